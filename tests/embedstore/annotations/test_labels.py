"""What classes mean: known names, codes that must be mapped, and options that can be copied."""

import shlex
from pathlib import Path
from typing import Any

import pytest

from embedstore.add import AddOptions, add
from embedstore.errors import EmbedstoreError


def write(path: Any, classes: Any) -> Any:
    rows = [f"a.tiff,{n},1,{c}" for n, c in enumerate(classes)]
    path.write_text("\n".join(["slide,x,y,label", *rows]))
    return path


def copied(message: str, *, mitosis: bool) -> AddOptions:
    """The options that a message recommends, taken apart as a shell does."""
    of_mitosis, _, as_they_are = message.partition("or as they are: ")
    text = of_mitosis if mitosis else as_they_are or message
    text = text.replace("--label 'CLASS=LABEL'", "").rstrip("; ")
    words = shlex.split(text[text.index("--label") :])
    assert set(words[::2]) <= {"--label", "--positive"}
    given = list(zip(words[::2], words[1::2], strict=True))
    labels = dict(value.split("=", 1) for option, value in given if option == "--label")
    return AddOptions(labels=labels, positive=dict(given).get("--positive"))


@pytest.mark.parametrize(
    ("classes", "mapping"),
    [
        ("0110", {"1": "mitotic figure", "0": "non-mitotic figure"}),
        ("1221", {"1": "mitotic figure", "2": "non-mitotic figure"}),
        (
            ["True", "False", "True", "False"],
            {"True": "mitotic figure", "False": "non-mitotic figure"},
        ),
    ],
)
def test_codes_are_mapped_explicitly_and_the_message_can_be_copied(
    tmp_path: Path, classes: Any, mapping: Any
) -> None:
    file, uri = write(tmp_path / "a.csv", classes), str(tmp_path / "s")
    with pytest.raises(EmbedstoreError) as e:
        add(uri, "d", file, AddOptions())
    said = " ".join(f"--label '{k}={v}'" for k, v in mapping.items())
    assert said in str(e.value)
    assert not (tmp_path / "s").exists()
    options = copied(str(e.value), mitosis=True)
    assert options.labels == mapping
    assert add(uri, "d", file, options).classes == mapping
    as_they_are = copied(str(e.value), mitosis=False)
    report = add(uri, "e", file, as_they_are)
    assert report.classes == {c: c for c in set(classes)}


@pytest.mark.parametrize(
    "classes",
    [
        ["tumour", "stroma"],
        ["it's", "not it"],
        ["A", "B", "C"],
        ["3", "1", "2"],
        ["only"],
        [f"grade {k}" for k in range(9)],
    ],
)
def test_other_label_sets_get_an_example_that_works(tmp_path: Path, classes: Any) -> None:
    file, uri = write(tmp_path / "a.csv", classes * 2), str(tmp_path / "s")
    with pytest.raises(EmbedstoreError) as e:
        add(uri, "d", file, AddOptions())
    report = add(uri, "d", file, copied(str(e.value), mitosis=False))
    assert report.classes == {c: c for c in classes}


def test_partly_known_classes_are_left_out_and_told(tmp_path: Path) -> None:
    file, uri = write(tmp_path / "a.csv", ["mitosis"] * 3 + ["background"] * 4), str(tmp_path / "s")
    report = add(uri, "d", file, AddOptions())
    assert report.n_annotations == 3
    assert "4 annotations of class 'background' were left out" in report.notes
    (hint,) = [n for n in report.notes if "only label left" in n]
    assert hint.endswith("--label 'background=non-mitotic figure'")
    report = add(uri, "d", file, copied(hint, mitosis=False))
    assert report.n_annotations == 7
    assert not [n for n in report.notes if "left" in n]


def test_half_a_mapping_is_told_as_well(tmp_path: Path) -> None:
    file = write(tmp_path / "a.csv", "0011")
    report = add(str(tmp_path / "s"), "d", file, AddOptions(labels={"1": "mitotic figure"}))
    assert "2 annotations of class '0' were left out" in report.notes
    assert any("--label '0=non-mitotic figure'" in n for n in report.notes)


def test_two_known_labels_beside_unknown_ones_need_no_hint(tmp_path: Path) -> None:
    file = write(tmp_path / "a.csv", ["Mitosis", " hard negative ", "Tumor cells"])
    report = add(str(tmp_path / "s"), "d", file, AddOptions())
    assert [n for n in report.notes if "label left" in n] == []
    assert "1 annotations of class 'Tumor cells' were left out" in report.notes
