"""`sheet`: the page shows the patches that its rows name, in their order, whatever is in them."""

import base64
import io
import re
from pathlib import Path
from typing import Any

import numpy as np
import openslide
import pytest
from PIL import Image

from embedstore.add import AddOptions, add
from embedstore.reading.sheet import PATCH_PX, sheet
from embedstore.slides.patches import PatchGeometry
from embedstore.store import Store
from tests.making.commands import call_command
from tests.making.slides import TinyDataset
from tests.making.stores import bare_store, query_of

ALL = "select annotation_id, x_l0 from annotations order by annotation_id"


def shown(page: str) -> list[tuple[str, str | None]]:
    """Each card's id and the data address of its picture."""
    cards = re.findall(r"<li .*?</li>", page, flags=re.DOTALL)
    found = []
    for card in cards:
        picture = re.search(r'<img src="(data:image/jpeg[^"]+)"', card)
        name = re.search(r'<div class="id">(.*?)</div>', card, flags=re.DOTALL)
        assert name is not None
        found.append((name[1].replace("<wbr>", ""), picture[1] if picture else None))
    return found


def pixels(address: str) -> np.ndarray:
    data = base64.b64decode(address.split(",", 1)[1])
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(float)


def test_the_patches_of_kept_crops_are_those_of_the_slide(
    embedded: str, tiny: TinyDataset, tmp_path: Path
) -> None:
    """Kept ones, those read from the slides, and what OpenSlide shows there, are the same."""
    kept = sheet(Store.open(embedded), f"{ALL} limit 12")
    add(str(tmp_path / "s"), "tiny", tiny.csv, AddOptions(slides=tiny.slides))
    fresh = sheet(Store.open(str(tmp_path / "s")), f"{ALL} limit 12")
    rows = query_of(embedded, "select * from annotations order by annotation_id limit 12")
    paths = {r["slide"]: r["path"] for r in query_of(embedded, "from slides")}
    assert [i for i, _ in shown(kept.page)] == [r["annotation_id"] for r in rows]
    assert kept.n_pictures == fresh.n_pictures == 12
    there = np.array([on_the_slide(paths[r["slide"]], r, kept_size(embedded)) for r in rows])
    for page in (kept.page, fresh.page):
        pictures = np.array([pixels(p) for _, p in shown(page) if p is not None])
        assert pictures.shape == (12, PATCH_PX, PATCH_PX, 3)
        apart = np.array([[np.abs(p - t).mean() for t in grey(there)] for p in grey(pictures)])
        assert (apart.argmin(axis=1) == np.arange(12)).all()
        others = apart[~np.eye(12, dtype=bool)].min()
        assert apart.diagonal().max() < 0.85 * others  # JPEG, and the slides are noise


def grey(pictures: np.ndarray) -> np.ndarray:
    """Brightness: JPEG keeps colours at half the resolution."""
    return np.asarray(pictures @ np.array([0.299, 0.587, 0.114]))


def on_the_slide(path: str, row: dict[str, Any], size_px: int) -> np.ndarray:
    """What OpenSlide shows around an annotation: size_px at 0.25 um, as the page's picture."""
    side = round(size_px * 0.25 / row["mpp"])
    corner = (round(row["x_l0"] - side / 2), round(row["y_l0"] - side / 2))
    with openslide.OpenSlide(path) as slide:
        region = slide.read_region(corner, 0, (side, side))
    white = Image.new("RGB", region.size, "white")
    white.paste(region, mask=region.getchannel("A"))
    return np.asarray(white.resize((PATCH_PX, PATCH_PX), Image.Resampling.BICUBIC)).astype(float)


def kept_size(uri: str) -> int:
    (row,) = query_of(uri, "select min(size_px) as n from patches")
    return next(
        px
        for px in (224, 192, 128, 112, 96, 64, 32)
        if PatchGeometry(px).wide().size_px <= row["n"]
    )


def test_hostile_text_stays_text(tmp_path: Path, browser: Any) -> None:
    cells = [{"slide": "<b>.tiff", "source_id": "<img src=x onerror=alert(1)>", "label": "a&b"}]
    store = bare_store(str(tmp_path / "s"), "d", cells)
    query = "select annotation_id, '</script><script>document.title=1' as \"<i>\" from annotations"
    made = sheet(store, query)
    (tmp_path / "p.html").write_text(made.page)
    dom, console = browser(f"file://{tmp_path / 'p.html'}", "--dump-dom")
    assert not console
    assert "<title>select annotation_id" in dom
    assert "onerror=alert(1)&gt;" in dom
    assert "<img" not in dom
    assert made.n_pictures == 0
    assert "1 without a picture" in dom


def test_labels_switch_cells_off(embedded: str, tmp_path: Path, browser: Any) -> None:
    page = tmp_path / "p.html"
    made = call_command("embedstore", "sheet", ALL, "-o", page, "--json", "--store", embedded)
    (row,) = made.json()
    assert (row["n_rows"], row["n_shown"], row["n_pictures"]) == (48, 48, 48)
    click = "<script>document.querySelector('nav button').click()</script></body>"
    page.write_text(page.read_text().replace("</body>", click))
    dom, console = browser(f"file://{page}", "--dump-dom")
    assert not console
    off = len(re.findall(r'<li data-label="[^"]+" class="off"', dom))
    (count,) = query_of(
        embedded,
        "select count(*) as n from annotations where label = (select min(label) from annotations)",
    )
    assert off == count["n"]


def test_a_page_says_what_it_leaves_out(embedded: str) -> None:
    made = sheet(Store.open(embedded), ALL, limit=5)
    assert "the first 5 of 48 rows" in made.page
    assert len(shown(made.page)) == 5


def test_neighbours_as_a_page(embedded: str, tmp_path: Path) -> None:
    (first,) = query_of(embedded, "select min(annotation_id) as i from annotations")
    page = tmp_path / "n.html"
    words = ("embedstore", "neighbors", first["i"], "--model", "timm:test_vit", "-k", 4, "--json")
    done = call_command(*words, "-o", page, "--store", embedded)
    ids = [i for i, _ in shown(page.read_text())]
    assert ids == [first["i"], *(r["annotation_id"] for r in done.json())]
    again = call_command(*words, "-o", page, "--store", embedded)
    assert again.code == 2
    assert "--overwrite" in again.err


@pytest.mark.parametrize(
    ("query", "output", "code", "said"),
    [
        ("select 1 as x", "p.html", 1, "need a column annotation_id; there: x"),
        ("select 'x' as annotation_id", "p.html", 1, "are none of"),
        (ALL, "p.pdf", 2, "name FILE.html"),
        ("drop table x", "p.html", 1, "read only"),
    ],
)
def test_wrong_input_leaves_no_page(
    embedded: str, tmp_path: Path, query: str, output: str, code: int, said: str
) -> None:
    page = tmp_path / output
    done = call_command("embedstore", "sheet", query, "-o", page, "--store", embedded)
    assert done.code == code
    assert said in done.err
    assert not page.exists()
