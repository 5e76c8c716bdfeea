"""What tables a store has: their columns, their key, and what they are called.

Every table has one key column, declared as Lance's unenforced primary key: without it concurrent
merges of the same new keys duplicate rows.
"""

import re

import pyarrow as pa

FORMAT = 8
"""Version of the layout below: an older store is upgraded (`migrations`), a newer one refused."""


def _schema(key: str, **columns: pa.DataType) -> pa.Schema:
    primary = pa.field(
        key, pa.string(), nullable=False, metadata={"lance-schema:unenforced-primary-key": "true"}
    )
    return pa.schema([primary, *(pa.field(n, t) for n, t in columns.items())])


TEXT, INT, REAL, TIME = pa.string(), pa.int64(), pa.float64(), pa.timestamp("us")
FLAG, TEXTS = pa.bool_(), pa.list_(TEXT)
_CUT_BY = dict.fromkeys(("scheme", "group_by", "stratify", "where_sql"), TEXT)

PATCHES, COMPARISONS, MEASURES, COPIES = "patches", "comparisons", "measures", "copies"
REMOVALS, TAGS = "removals", "tags"

CUT: dict[str, pa.DataType] = {
    "cut_x_l0": REAL,
    "cut_y_l0": REAL,
    "cut_mpp": REAL,
    "cut_fingerprint": TEXT,
}
"""Of which pixels a vector or crop was made, NULL where that is not known: see `views.valid`."""

TABLES: dict[str, pa.Schema] = {
    "store": _schema("format", created_at=TIME),
    "datasets": _schema(
        "dataset",
        positive_label=TEXT,
        source=TEXT,
        mpp=REAL,
        classes=TEXT,
        notes=TEXTS,
        # What the `add` that is under way has done to embeddings, until it says so.
        pending=TEXTS,
        created_at=TIME,
    ),
    "slides": _schema(
        "slide_id",
        dataset=TEXT,
        slide=TEXT,
        kind=TEXT,
        **dict.fromkeys(("case_id", "case_source", "path"), TEXT),
        width=INT,
        height=INT,
        mpp=REAL,
        mpp_source=TEXT,
        fingerprint=TEXT,
        bounds=pa.list_(INT),
        **dict.fromkeys(("frame", "frame_source", "unit", "source_slide", "scanner"), TEXT),
        **dict.fromkeys(("status", "problem", "attributes"), TEXT),
    ),
    "annotations": _schema(
        "annotation_id",
        dataset=TEXT,
        slide=TEXT,
        case_id=TEXT,
        domain=TEXT,
        label=TEXT,
        x_l0=REAL,
        y_l0=REAL,
        source_id=TEXT,
        category=TEXT,
        votes=TEXTS,
        split=TEXT,
    ),
    "models": _schema(
        "model",
        arch=TEXT,
        dim=INT,
        pooling=TEXT,
        dtype=TEXT,
        patch_px=INT,
        mpp_out=REAL,
        n_params=INT,
        weights=TEXT,
        weights_sha256=TEXT,
        **dict.fromkeys(("mean", "std"), pa.list_(REAL)),
        registry_name=TEXT,
        parity=REAL,
        timm_version=TEXT,
        torch_version=TEXT,
        created_at=TIME,
    ),
    "splits": _schema(
        "split_id",
        manifest_id=TEXT,
        dataset=TEXT,
        **_CUT_BY,
        seed=INT,
        fold=INT,
        fraction=REAL,
        train_domain=TEXT,
        val_by=TEXT,
        **dict.fromkeys(("n_train", "n_val", "n_test"), INT),
        **dict.fromkeys(("shared_slides", "shared_cases", "overlapping_patches"), REAL),
        **dict.fromkeys(("shared_centres", "patch_um"), REAL),
        created_at=TIME,
        train=TEXTS,
        val=TEXTS,
        test=TEXTS,
    ),
    "results": _schema(
        "result_id",
        run_id=TEXT,
        manifest_id=TEXT,
        dataset=TEXT,
        method=TEXT,
        params=TEXT,
        model=TEXT,
        weights=TEXT,
        weights_sha256=TEXT,
        **_CUT_BY,
        target=TEXT,
        fold=INT,
        fraction=REAL,
        train_domain=TEXT,
        eval_dataset=TEXT,
        eval_digest=TEXT,
        eval_domain=TEXT,
        metric=TEXT,
        value=REAL,
        ci_low=REAL,
        ci_high=REAL,
        ci_by=TEXT,
        ci_kind=TEXT,
        n_groups=INT,
        threshold=REAL,
        n_train=INT,
        n_val=INT,
        n_test=INT,
        n_pos=INT,
        seed=INT,
        seconds=REAL,
        state=TEXT,
        chosen=TEXT,
        pixels=TEXT,
        embeddings_version=INT,
        embedded_at=TIME,
        software=TEXT,
        created_at=TIME,
    ),
    # What a linear probe learnt: logits = vector @ coef + intercept, coef row by row (label, dim).
    "probes": _schema(
        "run_id",
        dataset=TEXT,
        model=TEXT,
        views=TEXT,
        labels=TEXTS,
        coef=pa.list_(REAL),
        intercept=pa.list_(REAL),
        threshold=REAL,
        created_at=TIME,
    ),
    # One row a run, dataset, role and label, so that a run is one atomic merge. truth: the labels
    # then; decision: what ranks, where it is more than the probability.
    "predictions": _schema(
        "prediction_id",
        run_id=TEXT,
        dataset=TEXT,
        role=TEXT,
        label=TEXT,
        annotation_id=TEXTS,
        truth=TEXTS,
        probability=pa.list_(REAL),
        decision=pa.list_(REAL),
    ),
    # A row an annotation and scale: a crop wider than its patch, as `patch_cache.encode` packs it.
    PATCHES: _schema(
        "patch_id",
        annotation_id=TEXT,
        dataset=TEXT,
        slide=TEXT,
        size_px=INT,
        mpp_out=REAL,
        n_bytes=INT,
        created_at=TIME,
        **CUT,
        pixels=pa.binary(),
    ),
    # What `compare` found of two sides over all folds; n_resamples is of former versions alone.
    COMPARISONS: _schema(
        "comparison_id",
        manifest_id=TEXT,
        dataset=TEXT,
        **_CUT_BY,
        seed=INT,
        metric=TEXT,
        fraction=REAL,
        train_domain=TEXT,
        eval_domain=TEXT,
        a=TEXT,
        b=TEXT,
        difference=REAL,
        ci_low=REAL,
        ci_high=REAL,
        p_value=REAL,
        p_delong=REAL,
        n_folds=INT,
        n_test=INT,
        n_groups=INT,
        n_resamples=INT,
        ci_kind=TEXT,
        run_ids=TEXTS,
        created_at=TIME,
    ),
    # A number of a study each: see `probes.studies`.
    MEASURES: _schema(
        "measure_id",
        **dict.fromkeys(
            ("dataset", "study", "model", "against", "factor", "split", "metric"), TEXT
        ),
        **dict.fromkeys(("x", "value", "ci_low", "ci_high", "p_value", "p_holm"), REAL),
        **dict.fromkeys(("n", "n_groups"), INT),
        **dict.fromkeys(("ci_by", "ci_kind", "details", "manifest_id"), TEXT),
        created_at=TIME,
    ),
    # Annotations of different slides that show the same: see `probes.studies.copies`.
    COPIES: _schema(
        "copy_id",
        **dict.fromkeys(("a", "b", "dataset_a", "dataset_b", "found_by", "model"), TEXT),
        **dict.fromkeys(("cosine", "pixels"), REAL),
        created_at=TIME,
    ),
    # Names that a user gives to annotations: see `tags`.
    TAGS: _schema("tag_id", tag=TEXT, annotation_id=TEXT, dataset=TEXT, created_at=TIME),
    # What is removed and may not be deleted yet: see `removal`.
    REMOVALS: _schema("removal_id", created_at=TIME, gone=TEXT),
}

LISTS = ("splits", "predictions", "probes")
"""Tables whose rows hold long lists, to be scanned a few rows at a time."""

MODEL_PREFIX, VIEWS_PREFIX = "embeddings.", "views."
"""How the names of the tables of embeddings and of views begin."""


def model_schema(dim: int) -> pa.Schema:
    """Return the schema of one model's table: the keys beside a float32 vector of width dim.

    resized says whether a pre-cropped patch had another size than the model was given; NULL for
    patches cut from slides and for imported vectors.
    """
    return _schema(
        "annotation_id",
        model=TEXT,
        dataset=TEXT,
        domain=TEXT,
        label=TEXT,
        slide=TEXT,
        embedded_at=TIME,
        resized=FLAG,
        **CUT,
        vector=pa.list_(pa.float32(), dim),
    )


def views_schema(dim: int) -> pa.Schema:
    """Return the schema of a model's table of views: as its own, keyed by annotation_id#view."""
    key = _schema("view_id", view=TEXT)
    plain = (f.remove_metadata().with_nullable(True) for f in model_schema(dim))
    return pa.schema([*key, *plain])


def model_table(model: str) -> str:
    """Return the Lance table name of a model: letters LanceDB forbids become .hex, reversibly."""
    safe = re.sub(r"[^A-Za-z0-9_-]", lambda m: "".join(f".{b:02x}" for b in m[0].encode()), model)
    return MODEL_PREFIX + safe


def views_table(model: str) -> str:
    """Return the Lance table name of a model's views."""
    return VIEWS_PREFIX + model_table(model).removeprefix(MODEL_PREFIX)


def view_id(annotation_id: str, view: str) -> str:
    """Return the key of a view of a patch: annotation_id#view."""
    return f"{annotation_id}#{view}"


def model_of_table(table: str, prefix: str = MODEL_PREFIX) -> str | None:
    """Return the model whose table this is, or None."""
    if not table.startswith(prefix):
        return None
    safe = table.removeprefix(prefix)
    raw = re.sub(rb"\.([0-9a-f]{2})", lambda m: bytes.fromhex(m[1].decode()), safe.encode())
    return raw.decode()
