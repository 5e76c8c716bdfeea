"""The folder of the generated dataset: filled once, whole or not at all."""

import hashlib
from pathlib import Path
from typing import Any

import pytest

from embedstore.demo import dataset as demo
from embedstore.demo.dataset import DemoDataset, write_demo
from embedstore.errors import EmbedstoreError
from tests.making.demos import SMALL


def _digests(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
    }


def test_same_seed_gives_the_same_bytes_and_another_seed_does_not(
    dataset: DemoDataset, tmp_path: Path
) -> None:
    first = _digests(dataset.midog_json.parent)
    assert _digests(write_demo(tmp_path / "again", **SMALL).midog_json.parent) == first
    other = _digests(write_demo(tmp_path / "other", seed=8, **SMALL).midog_json.parent)
    assert other.keys() == first.keys()
    assert not set(other.values()) & set(first.values())


def test_second_call_returns_without_rewriting(
    dataset: DemoDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise AssertionError("drawn again")

    monkeypatch.setattr(demo, "draw_slide", fail)
    folder = dataset.midog_json.parent
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    assert write_demo(folder, **SMALL) == dataset
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


def test_empty_folder_is_filled_and_progress_reported(tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    dataset = write_demo(
        tmp_path,
        progress=lambda done, total: calls.append((done, total)),
        n_slides_per_domain=1,
        n_annotations_per_slide=4,
    )
    assert dataset.slides == tmp_path / "slides"
    assert calls == [(1, 3), (2, 3), (3, 3)]
    assert sorted(p.name for p in tmp_path.parent.iterdir() if "partial" in p.name) == []


def test_foreign_folder_is_refused_and_untouched(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("keep")
    (tmp_path / "annotations.json").write_text('{"images": []}')
    before = _digests(tmp_path)
    with pytest.raises(EmbedstoreError, match="not a demo dataset"):
        write_demo(tmp_path, **SMALL)
    assert _digests(tmp_path) == before


def test_demo_of_other_arguments_and_damaged_demo_are_refused(tmp_path: Path) -> None:
    tiny: dict[str, Any] = {"n_slides_per_domain": 1, "n_annotations_per_slide": 4}
    dataset = write_demo(tmp_path / "d", **tiny)
    with pytest.raises(EmbedstoreError, match="'seed': 7"):
        write_demo(tmp_path / "d", seed=8, **tiny)
    (dataset.slides / "demo_002.tiff").unlink()
    with pytest.raises(EmbedstoreError, match=r"demo_002\.tiff"):
        write_demo(tmp_path / "d", **tiny)


def test_interrupted_generation_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(done: int, _: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_demo(tmp_path / "d", progress=interrupt, **SMALL)
    assert list(tmp_path.iterdir()) == []

    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(demo, "write_midog", fail)
    with pytest.raises(OSError, match="disk full"):
        write_demo(tmp_path / "d", n_slides_per_domain=1, n_annotations_per_slide=4)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("wrong", [{"n_slides_per_domain": 0}, {"n_annotations_per_slide": 3}])
def test_sizes_too_small_are_refused(tmp_path: Path, wrong: dict[str, Any]) -> None:
    with pytest.raises(EmbedstoreError, match="too small"):
        write_demo(tmp_path / "d", **wrong)
