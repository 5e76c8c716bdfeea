"""The archives: how each is asked for what it has under an identifier.

Each is one function of the identifier; a mirror of an archive is named by a variable.
"""

import contextlib
import os
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import quote

from embedstore.archives.http import ask
from embedstore.archives.remote import GIT, MD5, Record, RemoteFile
from embedstore.errors import EmbedstoreError

_HOSTS = {
    "EMBEDSTORE_ZENODO": "https://zenodo.org",
    "EMBEDSTORE_FIGSHARE": "https://api.figshare.com",
    "EMBEDSTORE_GITHUB": "https://api.github.com",
    "EMBEDSTORE_GITHUB_RAW": "https://raw.githubusercontent.com",
}
"""Variables that name a mirror of an archive, and where it is without one."""

_PAGE = 100


def _host(variable: str) -> str:
    return os.environ.get(variable, _HOSTS[variable]).rstrip("/")


def zenodo(record: str) -> Record:
    """Return a record of Zenodo by its number; source: developers.zenodo.org, records."""
    url = f"{_host('EMBEDSTORE_ZENODO')}/api/records/{quote(record)}"
    told = ask(url)
    with _understood(url):
        about = told["metadata"]
        authors = "; ".join(c["name"] for c in about.get("creators", ()))
        files = tuple(
            RemoteFile(
                f["key"],
                int(f["size"]),
                MD5 if f["checksum"].startswith("md5:") else None,
                f["checksum"].partition(":")[2],
                f["links"]["self"],
            )
            for f in told["files"]
        )
        licence = (about.get("license") or {}).get("id", "not said")
        cited = f"{authors}. {about['title']}. Zenodo, doi {told.get('doi', 'none')}"
        return Record(about["title"], licence, cited, files)


def figshare(collection: str) -> Record:
    """Return a collection of figshare by its number; source: docs.figshare.com, API v2."""
    host = _host("EMBEDSTORE_FIGSHARE")
    url = f"{host}/v2/collections/{quote(collection)}"
    told = ask(url)
    files: list[RemoteFile] = []
    licences: dict[str, None] = {}
    with _understood(url):
        for article in _pages(f"{url}/articles"):
            of = f"{host}/v2/articles/{article['id']}"
            licences[(ask(of).get("license") or {}).get("name", "not said")] = None
            for f in _pages(f"{of}/files"):
                md5 = f.get("computed_md5") or f.get("supplied_md5")
                files.append(
                    RemoteFile(
                        f["name"], int(f["size"]), MD5 if md5 else None, md5, f["download_url"]
                    )
                )
        cited = told.get("citation") or f"{told['title']}. figshare, doi {told.get('doi', 'none')}"
        return Record(told["title"], ", ".join(licences), cited, tuple(files))


def github(repository: str) -> Record:
    """Return a repository of GitHub, OWNER/NAME, as its newest commit has it; source: its API."""
    url = f"{_host('EMBEDSTORE_GITHUB')}/repos/{quote(repository)}"
    told = ask(url)
    with _understood(url):
        commit = ask(f"{url}/commits/{quote(told['default_branch'])}")["sha"]
        tree = ask(f"{url}/git/trees/{commit}?recursive=1")
        if tree.get("truncated"):
            raise EmbedstoreError(f"{url} has too many files for one list of them")
        raw = f"{_host('EMBEDSTORE_GITHUB_RAW')}/{quote(repository)}/{commit}"
        files = tuple(
            RemoteFile(f["path"], int(f["size"]), GIT, f["sha"], f"{raw}/{quote(f['path'])}")
            for f in tree["tree"]
            if f["type"] == "blob"
        )
        licence = (told.get("license") or {}).get("spdx_id", "not said")
        cited = f"github.com/{repository}, commit {commit[:12]}"
        return Record(told.get("description") or repository, licence, cited, files)


ARCHIVES: dict[str, Callable[[str], Record]] = {
    "zenodo": zenodo,
    "figshare": figshare,
    "github": github,
}
"""Archives by name. Another one is a function and a row."""


def _pages(url: str) -> Iterator[Any]:
    """Yield all rows of a list that figshare gives page by page."""
    page = 1
    while True:
        rows = ask(f"{url}?page={page}&page_size={_PAGE}")
        yield from rows
        if len(rows) < _PAGE:
            return
        page += 1


@contextlib.contextmanager
def _understood(url: str) -> Iterator[None]:
    """Name the archive where its answer has another form than it has had, not the key missing."""
    try:
        yield
    except (KeyError, TypeError, ValueError, AttributeError) as e:
        raise EmbedstoreError(
            f"{url} answers in a form that is not known here ({e!r}); the archive may have changed"
        ) from e
