"""What `e2e` refuses: one message, the right exit code, and nothing is left."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from e2e.run import run
from embedstore.errors import EmbedstoreError
from embedstore.store import Store
from probes.splits.spec import Asked, ManifestSpec
from tests.making.commands import run_command
from tests.making.training import OPTIONS, SMALL


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"backbone": "resnet51"}, "timm:resnet"),
        ({"recipe": replace(SMALL, adapt="lora")}, "--adapt full or head"),
        ({"weights": "none.pt"}, "no weights for timm:test_resnet at none.pt"),
        ({"splits": Asked([0.001], [4])}, "fraction 0.001"),
        ({"splits": Asked(manifest="ffff")}, "ffff"),
        ({"device": "cuda:7"}, "cuda:7"),
    ],
)
def test_what_cannot_be_is_told_and_leaves_nothing(store: Store, changes: Any, said: str) -> None:
    run(store, ManifestSpec("tiny"), OPTIONS)  # once; a recorded run is not trained again
    runs = Path(store.uri) / "runs"
    before = sorted(runs.iterdir())
    with pytest.raises(EmbedstoreError, match=re.escape(said)):
        run(
            store, ManifestSpec("tiny"), replace(OPTIONS, **{"splits": Asked(folds=[4]), **changes})
        )
    assert sorted(runs.iterdir()) == before


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (
            [
                "--backbone",
                "test_resnet",
                "--weights",
                "random",
                "--adapt",
                "some",
                "--batch-size",
                "1",
            ],
            2,
            "--batch-size 1",
        ),
        (["--weights", "hub"], 1, "timm/resnet50.tv2_in1k"),
    ],
)
def test_bad_input_has_one_message_and_the_right_code(
    store: Store, words: Any, code: int, said: str
) -> None:
    done = run_command("e2e", "run", "tiny", *words, "--store", store.uri)
    assert done.code == code
    assert done.out == ""
    assert said in done.err
    assert "Traceback" not in done.err
