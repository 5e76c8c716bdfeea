"""The page with all studies, of hostile names: ids once, nothing of a name is markup, text readable."""

import html
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from embedstore.store import Store
from probes.reports import report
from probes.runs import RunOptions, run
from probes.splits.spec import ManifestSpec
from probes.studies.copies import copies
from probes.studies.doubtful import doubtful
from probes.studies.fusion import fusion
from probes.studies.gap import gap
from probes.studies.likeness import likeness
from probes.studies.robustness import robustness
from probes.studies.shots import shots
from tests.making.stores import DATASET, EVIL, MODELS, plant_cells

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
SECTIONS = (
    "answer",
    "honest-splits",
    "few-labels",
    "embedding",
    "correcting",
    "together",
    "likeness",
    "labels",
    "twice",
)
HARNESS = """<!DOCTYPE html><meta charset="utf-8"><body style="margin:0">
<iframe src="index.html%(hash)s" style="border:0;width:%(width)dpx;height:3000px"></iframe>
<pre id="seen"></pre><script>
addEventListener("load", () => {
  const d = document.querySelector("iframe").contentWindow.document;
  const texts = [...d.querySelectorAll("svg text")].map((t) => t.getBoundingClientRect().height);
  document.getElementById("seen").textContent = JSON.stringify({
    overflow: d.documentElement.scrollWidth - d.documentElement.clientWidth,
    small: Math.min(...texts.filter((h) => h > 0)),
    alien: d.querySelectorAll("section script:not([type]), section iframe, section img[onerror]").length,
  });
});
</script>"""


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("studies")
    store = plant_cells(str(folder / "s"), DATASET, MODELS)
    run(store, ManifestSpec(DATASET, group_by="slide"), RunOptions(correct="centre:domain"))
    gap(store, DATASET)
    shots(store, DATASET, sizes=(1, 4), n_sets=10)
    for study in (robustness, likeness, doubtful, copies):
        study(store, DATASET)
    fusion(store, DATASET, steps=2)
    report(Store.open(store.uri), [], folder / "r")
    return folder / "r"


def test_every_study_has_its_section_and_each_id_is_there_once(page: Path) -> None:
    text = (page / "index.html").read_text()
    ids = re.findall(r'\sid="([^"]+)"', text)
    assert len(ids) == len(set(ids)), sorted(i for i in ids if ids.count(i) > 1)
    for key in SECTIONS:
        assert f'id="{key}"' in text
        assert f'href="#{key}"' in text
    for name in ("gap", "shots", "robustness", "remedies", "fusion", "likeness-pairs"):
        assert (page / f"{name}.csv").exists(), name
    for name in ("figure-gap", "figure-shots", "figure-fusion", "figure-likeness-1"):
        assert (page / f"{name}.svg").stat().st_size > 1000


def test_nothing_of_a_name_is_markup(page: Path) -> None:
    text = (page / "index.html").read_text()
    assert EVIL not in text
    assert html.escape(EVIL).replace("&#x27;", "&#39;") in text.replace("<span>", "").replace(
        "</span>", ""
    )
    rows = json.loads((page / "leaderboard.json").read_text())
    assert {r["dataset"] for r in rows} == {DATASET}
    assert {r["model"] for r in rows} >= set(MODELS)


@pytest.mark.parametrize(("width", "theme"), [(1200, "light"), (700, "dark"), (420, "light")])
def test_it_reads_in_a_browser(page: Path, tmp_path: Path, width: int, theme: str) -> None:
    found = next((b for b in map(shutil.which, BROWSERS) if b), None)
    if found is None:
        pytest.skip("no browser: `make browser` installs one")
    harness = page / f"harness-{width}.html"
    harness.write_text(HARNESS % {"hash": f"#theme={theme}", "width": width})
    command = [
        found,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-background-networking",
    ]
    options = ["--allow-file-access-from-files", f"--user-data-dir={tmp_path}"]
    options += ["--virtual-time-budget=4000", "--dump-dom", f"--window-size={width + 40},3200"]
    done = subprocess.run(
        [*command, *options, harness.as_uri()], capture_output=True, text=True, timeout=120
    )
    seen = json.loads(html.unescape(re.findall(r'<pre id="seen">(.*?)</pre>', done.stdout)[0]))
    assert seen["overflow"] <= 0
    assert seen["alien"] == 0
    assert seen["small"] >= 7.0
