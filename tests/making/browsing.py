"""A real browser in real time: pages whose work goes on in workers, which virtual time outruns."""

import contextlib
import json
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from websockets.sync.client import connect


class Tab:
    """An open page, asked over the DevTools protocol."""

    def __init__(self, socket: Any) -> None:
        self._socket, self._n = socket, 0

    def call(self, method: str, **params: Any) -> Any:
        self._n += 1
        self._socket.send(json.dumps({"id": self._n, "method": method, "params": params}))
        while True:
            answer = json.loads(self._socket.recv(timeout=60))
            if answer.get("id") == self._n:
                return answer["result"]

    def value(self, script: str) -> Any:
        """What an expression is on the page."""
        found = self.call("Runtime.evaluate", expression=script, returnByValue=True)
        return found["result"].get("value")

    def wait(self, script: str, seconds: float = 90) -> Any:
        """The expression's value as soon as it is true."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if value := self.value(script):
                return value
            time.sleep(0.3)
        raise AssertionError(f"{script} stayed false; the page: {self.value(TEXT)}")


TEXT = "document.body.innerText"


@contextlib.contextmanager
def opened(program: str, address: str, profile: Path) -> Iterator[Tab]:
    """A page in a headless browser of its own."""
    options = ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-background-networking")
    command = [program, *options, "--remote-debugging-port=0", "--remote-allow-origins=*"]
    running = subprocess.Popen(
        [*command, f"--user-data-dir={profile}", "about:blank"], stderr=subprocess.DEVNULL
    )
    try:
        told = profile / "DevToolsActivePort"
        end = time.monotonic() + 60
        while not (told.is_file() and told.read_text().strip()):
            assert time.monotonic() < end, "the browser does not start"
            time.sleep(0.2)
        port = told.read_text().split()[0]
        pages = json.load(urllib.request.urlopen(f"http://127.0.0.1:{port}/json"))
        page = next(p for p in pages if p["type"] == "page")
        with connect(page["webSocketDebuggerUrl"], max_size=None) as socket:
            tab = Tab(socket)
            tab.call("Page.enable")
            tab.call("Page.navigate", url=address)
            yield tab
    finally:
        running.terminate()
        running.wait(timeout=30)
