"""Pre-cropped patches in a folder a class, with or without a split."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedstore.add import AddOptions, add
from embedstore.annotations.readers import read_annotations
from embedstore.errors import EmbedstoreError
from tests.making.images import image
from tests.making.stores import query_of

FOLDERS = st.lists(
    st.tuples(
        st.sampled_from(["mitosis", "imposter"]),
        st.sampled_from(["", "c1", "c1/x", "c2"]),
        st.sampled_from(["1.png", "2.JPEG", "3.tif", "4.webp", "notes.txt", ".5.png"]),
    ),
    min_size=1,
    max_size=12,
    unique=True,
)


SPLIT_NAMES = st.sampled_from([None, ("train", "Validation", "test"), ("training", "dev")])


@settings(max_examples=40, deadline=None)
@given(files=FOLDERS, splits=SPLIT_NAMES)
def test_folders_a_class_with_or_without_a_split(
    tmp_path_factory: pytest.TempPathFactory, files: Any, splits: Any
) -> None:
    root = tmp_path_factory.mktemp("folder")
    expected, n_other = {}, 0
    for k, (label, nested, name) in enumerate(files):
        split = splits[k % len(splits)] if splits else None
        relative = "/".join(p for p in (split, label, nested, name) if p)
        (root / relative).parent.mkdir(parents=True, exist_ok=True)
        (root / relative).write_bytes(b"")
        if name.endswith("txt") or name.startswith("."):
            n_other += 1
        else:
            of = {"t": "train", "v": "val", "d": "val"}.get((split or "?").lower()[0])
            of = "test" if split == "test" else of
            expected[relative] = (label, of, nested or None)
    if not expected:
        with pytest.raises(EmbedstoreError, match="holds no annotations"):
            read_annotations(root, "imagefolder")
        return
    content = read_annotations(root, "imagefolder")
    assert {
        a.slide: (a.category, a.split, a.attributes.get("directory")) for a in content.annotations
    } == expected
    assert content.kind == "patch"
    assert bool(n_other) == any(
        n == f"{n_other} files that are no images were left out" for n in content.notes
    )


def test_an_image_folder_in_the_store(tmp_path: Path) -> None:
    for name in (
        "mitosis/case1/a.png",
        "mitosis/case2/a.png",
        "hard negative/case1/a.png",
        "loose.png",
    ):
        image(tmp_path / "f" / name)
    uri = str(tmp_path / "s")
    report = add(uri, "d", tmp_path / "f", AddOptions(case_from="directory"))
    assert query_of(
        uri, "select annotation_id, case_id, label, split from annotations order by 1"
    ) == [
        {
            "annotation_id": "d/hard negative/case1/a.png/patch",
            "case_id": "case1",
            "label": "non-mitotic figure",
            "split": None,
        },
        {
            "annotation_id": "d/mitosis/case1/a.png/patch",
            "case_id": "case1",
            "label": "mitotic figure",
            "split": None,
        },
        {
            "annotation_id": "d/mitosis/case2/a.png/patch",
            "case_id": "case2",
            "label": "mitotic figure",
            "split": None,
        },
    ]
    assert "1 images in no class's folder were left out" in report.notes
    assert query_of(uri, "select source from datasets") == [{"source": "f"}]


def test_linked_folders_are_followed(tmp_path: Path) -> None:
    image(tmp_path / "elsewhere" / "a.png")
    (tmp_path / "f").mkdir()
    (tmp_path / "f" / "mitosis").symlink_to(tmp_path / "elsewhere")
    (a,) = read_annotations(tmp_path / "f").annotations
    assert (a.slide, a.category) == ("mitosis/a.png", "mitosis")
