"""docs/ as a site: it builds with every link in place, and neither building nor reading asks a network."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.making.commands import ROOT


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built as `make site` builds it: a link or page that is not there is an error."""
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--quiet", "--site-dir", folder],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return folder


def test_every_page_of_docs_is_a_page_of_the_site(site: Path) -> None:
    pages = {p.stem for p in (ROOT / "docs").glob("*.md")} | {"index", "CHANGELOG", "SECURITY"}
    assert pages <= {p.stem for p in site.glob("*.html")}
    nav = (site / "index.html").read_text()
    for part in ("Tutorial", "How to", "Reference", "Explanation"):
        assert part in nav


def test_no_page_asks_a_network(site: Path) -> None:
    for page in site.rglob("*.html"):
        text = page.read_text()
        assert not re.findall(r"<(?:script|link|img|iframe)[^>]*(?:src|href)=\"?https?:", text), (
            page
        )


def test_a_page_opens_in_a_browser_without_an_error(site: Path, browser: Any) -> None:
    text, said = browser((site / "own-vectors.html").as_uri(), "--dump-dom")
    assert "Own vectors, no slides" in text
    assert not [line for line in said if "ERROR" in line.upper()], said


def test_the_citation_names_the_version_of_the_package() -> None:
    citation = (ROOT / "CITATION.cff").read_text()
    (version,) = re.findall(r'^version = "(.*)"', (ROOT / "pyproject.toml").read_text(), flags=re.M)
    assert re.findall(r"^version: (.*)$", citation, flags=re.M) == [version]
