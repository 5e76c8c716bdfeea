"""A store as the pages of docs/ suppose."""

import json
from pathlib import Path

import pytest

from embedstore.store import Store
from tests.making.pages import ok
from tests.making.slides import make_tiny

DOMAINS = {"a": "canine lymphosarcoma", "b": "human breast cancer", "c": "human melanoma"}


def write_midog(folder: Path) -> Path:
    """MIDOG's json of three domains and six cases, with votes, one annotation off its slide."""
    tiny = make_tiny(folder, per_label=10, domains=tuple(DOMAINS))
    names = sorted({r["slide"] for r in tiny.rows})
    images = [
        {
            "id": n,
            "file_name": name,
            "width": 900,
            "height": 700,
            "tumor_type": DOMAINS[name[0]],
            "case": f"case-{n}",
        }
        for n, name in enumerate(names)
    ]
    annotations = []
    for n, r in enumerate(tiny.rows):
        x, y, mine = float(r["x"]), float(r["y"]), 1 + (r["label"] != "mitotic figure")
        x = 5000 if n == 0 else x
        annotations.append(
            {
                "id": n,
                "image_id": names.index(r["slide"]),
                "category_id": mine,
                "bbox": [x - 25, y - 25, x + 25, y + 25],
                "labels": [mine, mine, 3 - mine if n % 5 == 0 else mine],
            }
        )
    path = folder / "MIDOG.json"
    path.write_text(
        json.dumps(
            {
                "images": images,
                "annotations": annotations,
                "categories": [
                    {"id": 1, "name": "mitotic figure"},
                    {"id": 2, "name": "not mitotic figure"},
                ],
            }
        )
    )
    return path


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A store as the cookbook supposes: dataset midog, models uni and virchow2, all experiments."""
    folder = tmp_path_factory.mktemp("cookbook")
    at = f"--store {folder / 'store'}"
    ok(
        f"embedstore add midog --annotations {write_midog(folder)} --slides {folder / 'slides'} {at}"
    )
    for name, arch in (("uni", "timm:test_vit"), ("virchow2", "timm:test_resnet")):
        model = f"--model {arch} --weights {arch}=random --as {name}"
        ok(f"embedstore ingest midog {model} --patch-px 64 {at}")
    ok(f"probes run midog --method uni --method prototype --fraction 0.2 --fraction 1 {at}")
    ok(f"probes run midog --group-by case {at}")
    ok(f"probes run midog --scheme cross-domain --fold 0 --fold 1 {at}")
    ok(f"probes run midog --target domain --fold 0 {at}")
    ok(
        "e2e run midog --backbone test_resnet --weights random --epochs 1 --min-steps 2 --batch-size 8 "
        f"--patch-px 32 --rotate 0 --no-patch-cache --fold 0 --device cpu {at}"
    )
    ok(f"probes compare midog --fraction 1 {at}")
    ok(f"probes gap midog {at}")
    # Last, since a model that lacks embeddings cannot be probed: what the queries find missing.
    ok(
        "embedstore ingest midog --model timm:test_vit --weights test_vit=random --as phikon "
        f"--patch-px 64 --limit 16 {at}"
    )
    return Store.open(str(folder / "store"))
