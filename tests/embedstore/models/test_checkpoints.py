"""Weights from the hub: the real client against a server on this machine that speaks its protocol."""

from pathlib import Path

import pytest

from tests.making.commands import run_command
from tests.making.hub import COMMIT, CONTENT, SHA256, ask


def test_a_file_is_fetched_once_named_by_its_commit_and_found_offline(
    hub: str, tmp_path: Path
) -> None:
    code = "vars(find_weights('m', 'hub', 'ok/model'))"
    first = ask(code, hub, tmp_path)
    assert first["label"] == f"ok/model@{COMMIT}"
    assert Path(first["path"]).read_bytes() == CONTENT
    assert ask(code, hub, tmp_path, offline=True) == first
    assert ask("availability('hub', 'ok/model')", hub, tmp_path, offline=True) == [
        "here (in the hub's cache)",
        "not pinned",
    ]


@pytest.mark.parametrize(
    ("repository", "said"),
    [
        ("gated/model", "gated: accept its terms"),
        ("none/model", "the hub knows no none/model"),
    ],
)
def test_what_the_hub_refuses_says_the_way_out(
    hub: str, tmp_path: Path, repository: str, said: str
) -> None:
    found = ask(f"vars(find_weights('m', 'hub', '{repository}'))", hub, tmp_path)
    assert said in found["error"]
    assert "--weights m=PATH" in found["error"]


def test_offline_without_a_copy(hub: str, tmp_path: Path) -> None:
    found = ask("vars(find_weights('m', 'hub', 'ok/model'))", hub, tmp_path, offline=True)
    assert "no copy is cached" in found["error"]


@pytest.mark.parametrize(
    ("repository", "said"),
    [
        ("ok/model", "hub"),
        ("gated/model", "no: gated"),
        ("none/model", "no: the hub shows"),
        ("broken/model", "no: the hub cannot be reached"),
    ],
)
def test_availability_asks_without_fetching(
    hub: str, tmp_path: Path, repository: str, said: str
) -> None:
    assert ask(f"availability('hub', '{repository}')", hub, tmp_path)[0].startswith(said)
    assert not list(tmp_path.rglob("*.bin"))


def test_a_pinned_file_is_fetched_at_its_revision_and_held_against_its_digest(
    hub: str, tmp_path: Path
) -> None:
    found = ask("vars(find_weights('pinned', 'hub', 'ok/model'))", hub, tmp_path)
    assert (found["label"], found["sha256"]) == (f"ok/model@{COMMIT}", SHA256)
    wrong = ask("vars(find_weights('other', 'hub', 'ok/model'))", hub, tmp_path)["error"]
    assert f"is not the file of other that is pinned: its SHA-256 is {SHA256}" in wrong
    assert "--weights other=" in wrong
    gone = ask("vars(find_weights('older', 'hub', 'ok/model'))", hub, tmp_path)["error"]
    assert "ok/model has no pytorch_model.bin" in gone


@pytest.mark.parametrize(
    ("name", "fetched", "expected"),
    [
        ("pinned", False, ["hub", "the same file"]),
        ("other", False, ["hub", f"differs: SHA-256 is {SHA256[:12]}, pinned is 000000000000"]),
        ("older", False, ["hub", "the same file; the hub has moved on to aaaaaaaa"]),
        ("pinned", True, ["here (in the hub's cache)", "the same file"]),
        (
            "other",
            True,
            [
                "here (in the hub's cache)",
                f"differs: SHA-256 is {SHA256[:12]}, pinned is 0" + "0" * 11,
            ],
        ),
    ],
)
def test_models_check_says_what_differs_from_the_pin(
    hub: str, tmp_path: Path, name: str, fetched: bool, expected: list[str]
) -> None:
    if fetched:
        ask("vars(find_weights('pinned', 'hub', 'ok/model'))", hub, tmp_path)
    asked = f"availability('hub', 'ok/model', None, PINS['{name}'])"
    assert ask(asked, hub, tmp_path) == expected


def test_models_check_offline() -> None:
    rows = {r["model"]: r for r in run_command("embedstore", "models", "check", "--json").json()}
    assert rows["efficientnet-lite0"]["weights"].startswith("here (package")
    assert rows["uni"]["weights"].startswith(("no: not cached", "here (in"))
    assert "--weights MODEL=PATH" in run_command("embedstore", "models", "check").err


def test_no_space_is_told_with_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    import errno

    import huggingface_hub

    from embedstore.errors import EmbedstoreError
    from embedstore.models.checkpoints import find_weights

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", full)
    with pytest.raises(
        EmbedstoreError, match=r"No space left on device.*HF_HOME.*--weights m=PATH"
    ):
        find_weights("m", "hub", "ok/model")


def test_a_hub_that_nobody_answers_for_is_said_and_no_traceback(tmp_path: Path) -> None:
    """A real connection to a port where nothing listens; the client's error is none of the hub's."""
    (said, _) = ask("availability('hub', 'ok/model')", "http://127.0.0.1:9", tmp_path)
    assert said.startswith("no: the hub cannot be reached (Connect")
