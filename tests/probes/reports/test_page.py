"""The page in a real headless browser: no errors, tables sort, figures readable, light and dark."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.making.stores import DATASET

# A page around the report: it acts as a user would and writes down what it sees.
HARNESS = """<!DOCTYPE html><meta charset="utf-8"><body style="margin:0">
<iframe src="index.html%(hash)s" style="border:0;width:%(width)dpx;height:3000px"></iframe>
<pre id="seen"></pre><script>
addEventListener("load", () => {
  const w = document.querySelector("iframe").contentWindow, d = w.document, seen = {};
  const all = (q) => [...d.querySelectorAll(q)];
  const column = (id, n) => [...d.getElementById(id).tBodies[0].rows].map((r) => r.cells[n].dataset.v);
  try {
    seen.overflow = d.documentElement.scrollWidth - d.documentElement.clientWidth;
    seen.small = all("svg text").filter((t) => t.getBoundingClientRect().height > 0)
      .map((t) => t.getBoundingClientRect().height);
    seen.panels = all("#figure1-figure .panel svg").map((s) => s.getBoundingClientRect().width);
    seen.paper = w.getComputedStyle(d.body).backgroundColor;
    seen.ink = w.getComputedStyle(d.body).color;
    const text = d.querySelector("#figure1-figure svg text");
    seen.text = w.getComputedStyle(text).fill;
    const lines = all("#figure1-figure .line path");
    seen.strokes = lines.map((p) => w.getComputedStyle(p).stroke);
    seen.before = column("table2", 2);
    const head = () => d.getElementById("table2").tHead.rows[0].cells[2];
    head().firstElementChild.click();
    seen.falling = column("table2", 2);
    head().firstElementChild.click();
    seen.rising = column("table2", 2);
    seen.aria = head().getAttribute("aria-sort");
    const legend = d.querySelector(".legend button");
    legend.click();
    seen.hidden = all("#figure1-figure .off").length;
    legend.click();
    seen.shown = all("#figure1-figure .off").length;
    const matrices = () => all(".matrices td").map((t) => t.textContent).join(" ");
    seen.lines = all(".matrices td").map((t) => {
      const range = d.createRange();
      range.selectNodeContents(t);
      return new Set([...range.getClientRects()].map((r) => r.top)).size;
    });
    seen.matrices = all(".matrices table").length;
    const first = matrices(), choose = d.querySelector(".widget select");
    choose.value = 1 - Number(choose.value);
    choose.dispatchEvent(new w.Event("change"));
    seen.chosen = matrices() !== first;
    const canvas = d.querySelector("canvas"), g = canvas.getContext("2d");
    const drawn = () => g.getImageData(0, 0, canvas.width, canvas.height).data.filter((v) => v).length;
    seen.points = drawn();
    const box = canvas.getBoundingClientRect();
    for (let k = 0; k < 400 && d.getElementById("tip").hidden; k++)
      canvas.dispatchEvent(new w.PointerEvent("pointermove", { bubbles: true,
        clientX: box.left + (0.1 + 0.8 * (k %% 20) / 20) * box.width,
        clientY: box.top + (0.1 + 0.8 * Math.floor(k / 20) / 20) * box.height }));
    seen.tip = d.getElementById("tip").textContent;
    seen.alien = all("b, i").filter((e) => e.closest("#tip") === null).length;
    seen.title = d.title;
  } catch (e) { seen.error = String(e); }
  document.getElementById("seen").textContent = JSON.stringify(seen);
});
</script>"""


@pytest.fixture(scope="module")
def look(browser: Any, written: dict[str, Path]) -> Any:
    """What a user at a width, with an address, sees: see HARNESS."""
    folder = written["index.html"].parent

    def see(width: int, fragment: str = "") -> dict[str, Any]:
        page = folder / f"harness-{width}.html"
        page.write_text(HARNESS % {"width": width, "hash": fragment})
        dom, console = browser(page.as_uri(), "--dump-dom", f"--window-size={width},3000")
        page.unlink()
        assert not console
        shown = re.search(r'<pre id="seen">(.*?)</pre>', dom, re.DOTALL)
        assert shown is not None
        text = shown[1]
        seen: dict[str, Any] = json.loads(
            text.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")
        )
        assert "error" not in seen, seen["error"]
        return seen

    return see


@pytest.fixture(scope="module")
def desktop(look: Any) -> dict[str, Any]:
    seen: dict[str, Any] = look(1280)
    return seen


def test_the_console_stays_silent_and_no_script_of_a_name_runs(
    browser: Any, written: dict[str, Path]
) -> None:
    dom, console = browser(written["index.html"].as_uri(), "--dump-dom")
    assert not console
    assert (
        f"How good are these models on {DATASET}?".replace("<", "&lt;").replace(">", "&gt;") in dom
    )
    assert "alert(1)" in dom
    assert "<script>alert" not in dom


def test_tables_sort_by_their_headings(desktop: dict[str, Any]) -> None:
    falling = sorted(map(float, desktop["before"]), reverse=True)
    assert len(set(falling)) == 2
    assert list(map(float, desktop["falling"])) == falling
    assert list(map(float, desktop["rising"])) == falling[::-1]
    assert desktop["aria"] == "ascending"


def test_an_address_sorts(look: Any) -> None:
    for direction in ("ascending", "descending"):
        seen = look(1280, f"#sort=table2:3:{direction}")
        want = sorted(map(float, seen["before"]), reverse=direction == "descending")
        assert list(map(float, seen["before"])) == want


def test_the_legend_takes_lines_away_and_brings_them_back(desktop: dict[str, Any]) -> None:
    assert desktop["hidden"] > 0
    assert desktop["shown"] == 0


def test_any_two_models_can_be_set_side_by_side(desktop: dict[str, Any]) -> None:
    assert desktop["matrices"] == 3
    assert desktop["chosen"]


def test_the_map_is_drawn_and_tells_its_points(desktop: dict[str, Any]) -> None:
    assert desktop["points"] > 1000
    assert DATASET in desktop["tip"]


def test_names_stay_text(desktop: dict[str, Any]) -> None:
    assert desktop["alien"] == 0
    assert DATASET in desktop["title"]


@pytest.mark.parametrize("width", [390, 1280])
def test_figures_are_readable(look: Any, width: int) -> None:
    seen = look(width)
    assert seen["overflow"] <= 0
    assert min(seen["small"]) >= 8.5
    assert all(min(width - 40, 300) <= p <= width for p in seen["panels"])


@pytest.mark.parametrize("width", [200, 390])
def test_no_number_of_a_matrix_is_broken_in_two(look: Any, width: int) -> None:
    assert set(look(width)["lines"]) == {1}


def luminance(rgb: str) -> float:
    linear = [
        v / 255 / 12.92 if v / 255 <= 0.04045 else ((v / 255 + 0.055) / 1.055) ** 2.4
        for v in map(float, re.findall(r"[\d.]+", rgb)[:3])
    ]
    return float(np.dot(linear, (0.2126, 0.7152, 0.0722)))


def contrast(a: str, b: str) -> float:
    """Contrast by WCAG 2.1."""
    high, low = sorted((luminance(a), luminance(b)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_light_and_dark_have_contrast(look: Any, theme: str) -> None:
    seen = look(1280, f"#theme={theme}")
    assert (luminance(seen["paper"]) > 0.5) == (theme == "light")
    assert contrast(seen["paper"], seen["ink"]) > 10
    assert contrast(seen["paper"], seen["text"]) > 4.5
    assert all(contrast(seen["paper"], s) > 2 for s in seen["strokes"])


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_a_screenshot_is_not_blank(
    browser: Any, written: dict[str, Path], tmp_path: Path, width: int, theme: str
) -> None:
    shot: Path = tmp_path / "shot.png"
    browser(
        f"{written['index.html'].as_uri()}#theme={theme}",
        f"--screenshot={shot}",
        f"--window-size={width},1600",
    )
    pixels = np.asarray(Image.open(shot).convert("L"), dtype=float)
    assert (pixels.mean() > 128) == (theme == "light")
    assert pixels.std() > 10
