"""The views that SQL sees: each a query over the tables, whose names begin with _."""

from embedstore.store.layout import CUT

# An annotation's status follows from its slide's, so that a slide that recovers needs no rewrite.
_OFF_SLIDE = "(a.x_l0 < 0 or a.y_l0 < 0 or a.x_l0 >= s.width or a.y_l0 >= s.height)"
# So does the centre of a patch: it is that of the whole file, whatever size that has.
_X_L0, _Y_L0 = (
    f"case when s.kind = 'patch' then s.{size} / 2 else a.{at} end"
    for size, at in (("width", "x_l0"), ("height", "y_l0"))
)
# Of a patch it is what its table names; NULL where it names none.
_SOURCE_SLIDE = (
    "coalesce(s.source_slide, case when s.kind is distinct from 'patch' then a.slide end)"
)
_RUN_COLUMNS = "manifest_id, dataset, scheme, group_by, stratify, where_sql, seed, fold, fraction"

FORMER: dict[str, str] = {
    "predictions": (
        "select p.* exclude (role), d.dataset, d.truth, p.score::double[] as probability, "
        "null::double[] as decision, if(prediction_id like '%/test:%', 'eval', role) as role "
        "from _stored_predictions p join (select prediction_id, any_value(a.dataset) as dataset, "
        "list(a.label order by n) as truth from (select prediction_id, unnest(annotation_id) as "
        "annotation_id, generate_subscripts(annotation_id, 1) as n from _stored_predictions) "
        "left join _annotations a using (annotation_id) group by 1) d using (prediction_id)"
    )
}
"""How a table of an older format is read where it lacks columns, if not as NULL."""


def valid(v: str) -> str:
    """Return the condition that a row v of vectors or crops is of what its annotation says now.

    One of which it is not known what it was made of (imported, or of an older store) passes. A
    patch has no place but its file: there both sides are NULL, which are equal within a row.
    """
    is_patch = "s.kind = 'patch'"
    place = ", ".join(f"if({is_patch}, null, {of})" for of in ("a.x_l0", "a.y_l0", "s.mpp"))
    cut = ", ".join(f"{v}.{column}" for column in CUT)
    return (
        f"({v}.cut_fingerprint is null or ({v}.annotation_id, {cut}) in (select "
        f"(a.annotation_id, {place}, s.fingerprint) from _annotations a join _slides s on "
        "s.slide_id = a.dataset || '/' || a.slide))"
    )


_STANDS = "manifest_id not in (select manifest_id from superseded)"

VIEWS: dict[str, str] = {
    "slides": (
        "select dataset, slide, case_id, path, width, height, mpp, mpp_source, scanner, status, "
        "problem, kind, case_source, source_slide, bounds, frame, unit, fingerprint, attributes "
        "from _slides"
    ),
    "annotations": (
        "select a.annotation_id, a.dataset, a.slide, a.case_id, a.domain, a.label, "
        f"{_X_L0} as x_l0, {_Y_L0} as y_l0, "
        f"a.source_id, case when {_OFF_SLIDE} then 'off-slide' "
        "when s.status in ('unreadable', 'no-mpp') then s.status else 'ok' end as status, "
        f"case when {_OFF_SLIDE} then 'the centre lies off the slide' "
        "when s.status in ('unreadable', 'no-mpp') then s.problem end as problem, "
        "a.category, a.votes, a.split, s.kind, s.scanner, s.mpp, "
        f"{_SOURCE_SLIDE} as source_slide, coalesce(t.tags, []) as tags "
        "from _annotations a join _slides s on s.slide_id = a.dataset || '/' || a.slide left join "
        "(select annotation_id, list(tag order by tag) as tags from _tags group by 1) t on "
        "t.annotation_id = a.annotation_id"
    ),
    "datasets": (
        "select d.dataset, d.positive_label, coalesce(n.n, 0) as n_annotations, d.source, "
        "d.created_at, d.mpp, d.classes, d.notes from _datasets d left join "
        "(select dataset, count(*) as n from _annotations group by 1) n using (dataset)"
    ),
    "models": (
        "select model, arch, dim, pooling, dtype, patch_px, mpp_out, n_params, weights, "
        "weights_sha256, timm_version, created_at, mean, std, registry_name, parity, torch_version "
        "from _models"
    ),
    "splits": (
        f"select {_RUN_COLUMNS}, train_domain, val_by, n_train, n_val, n_test, shared_slides, "
        "shared_cases, overlapping_patches, shared_centres, patch_um, created_at, split_id "
        "from _splits"
    ),
    "manifests": " union all ".join(
        f"select {_RUN_COLUMNS}, train_domain, unnest({role}) as annotation_id, "
        f"'{role}' as role, split_id from _splits"
        for role in ("train", "val", "test")
    ),
    # Of the manifests of one spec the youngest that has results stands: older ones were cut from
    # annotations that have changed since. Imported ones are each their own.
    "superseded": (
        "select manifest_id from (select manifest_id, row_number() over (partition by dataset, "
        "scheme, group_by, stratify, where_sql, seed order by (manifest_id in (select manifest_id "
        "from _results)) desc, max(created_at) desc, manifest_id) as n from _splits "
        "where scheme != 'imported' group by dataset, scheme, group_by, stratify, where_sql, seed, "
        "manifest_id) where n > 1"
    ),
    "results": f"select * exclude (result_id) from _results where {_STANDS}",
    "all_results": (
        f"select * exclude (result_id), not ({_STANDS}) as is_superseded from _results"
    ),
    "probes": "select * from _probes",
    "patches": (
        "select annotation_id, dataset, slide, size_px, mpp_out, n_bytes, created_at from _patches"
    ),
    "comparisons": f"select * exclude (comparison_id) from _comparisons where {_STANDS}",
    "tags": "select tag, annotation_id, dataset, created_at from _tags",
    "copies": "select * exclude (copy_id) from _copies",
    "measures": "select * exclude (measure_id) from _measures",
    "predictions": (
        "select run_id, dataset, unnest(annotation_id) as annotation_id, role, label, "
        "unnest(truth) as truth, unnest(probability) as score, "
        "unnest(coalesce(decision, probability)) as decision from _predictions"
    ),
}
