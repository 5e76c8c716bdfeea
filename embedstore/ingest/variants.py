"""Which models an ingest fills: networks by pool and field of view, and what they are called."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from embedstore.embeddings.identity import check_model_name, entry_of
from embedstore.errors import EmbedstoreError, UsageError
from embedstore.ingest.options import IngestOptions, short_names, weights_spec
from embedstore.models.pools import OWN, check_pool, split_name, swept, variant_name
from embedstore.models.registry import OF_TOKENS, ModelEntry, check_name
from embedstore.slides.patches import VIEW_SETS, PatchGeometry
from embedstore.slides.slide import is_plausible_mpp

MPP_OUT = 0.25
"""The scale of patches, um per pixel, that a plain name stands for where several are asked for."""


@dataclass(frozen=True)
class Variant:
    """One network at one field of view with one pool; name: what its embeddings are stored under.

    pool is OWN where the model's own is meant, whatever that is.
    """

    registry_name: str
    name: str
    pool: str
    geometry: PatchGeometry


def variants(
    models: Sequence[str], options: IngestOptions, recorded: Mapping[str, Any]
) -> list[Variant]:
    """Return what is asked for, each pair of pool and field once; all options are checked.

    One field and no pool is the model under its plain name. Of a sweep, so is the model's own pool
    at MPP_OUT; the others are named `NAME@MPP/POOL`, and a model may be asked for by such a name.
    """
    asked = [(split_name(m) or (m, None, None)) for m in models]
    _check([model for model, _, _ in asked], options)
    found = list[Variant]()
    for model, mpp_out, pool in asked:
        check_name(model)
        if pool is None or mpp_out is None:
            found += _of_model(model, options.mpp_out, options.pools, options)
        elif options.pools or tuple(options.mpp_out) != (MPP_OUT,):
            named = variant_name(model, mpp_out, pool)
            raise UsageError(f"{named} names its pool and field; leave --pool and --mpp-out out")
        else:
            found += _of_model(model, (mpp_out,), (pool,), options)
    for variant in found:
        check_model_name(variant.name, recorded)
    return list(dict.fromkeys(found))


def _of_model(
    model: str, mpp_out: Sequence[float], pools: Sequence[str], options: IngestOptions
) -> list[Variant]:
    name, found = options.name or model, []
    for field in dict.fromkeys(mpp_out):
        geometry = PatchGeometry(options.patch_px, field)
        if not pools and len(mpp_out) == 1:
            found.append(Variant(model, name, OWN, geometry))
            continue
        entry = entry_of(model, options.variation, weights_spec(model, options))
        for pool in _pools(pools or (OWN,), entry):
            is_own = pool == entry.pooling
            full = name if is_own and field == MPP_OUT else variant_name(name, field, pool)
            found.append(Variant(model, full, OWN if is_own else pool, geometry))
    return found


def _pools(asked: Sequence[str], entry: ModelEntry) -> list[str]:
    has_class_token = entry.n_prefix > 0 and entry.pooling in (*OF_TOKENS, "timm")
    return swept(asked, entry.pooling, has_class_token=has_class_token)


def _check(models: Sequence[str], options: IngestOptions) -> None:
    if not models:
        raise EmbedstoreError("name at least one model with --model")
    if options.name is not None and len(set(models)) != 1:
        raise UsageError("--as NAME goes with exactly one --model")
    known = {name for m in models for name in (m, *short_names(m))}
    if unknown := [w for w in options.weights if w not in known]:
        raise UsageError(
            f"--weights names {', '.join(unknown)}, but no --model of that name is given; models: "
            f"{', '.join(models)}"
        )
    varied = options.variation
    if any((varied.pooling, varied.mean, varied.std)) and len(set(models)) != 1:
        raise UsageError("--pooling, --mean and --std go with exactly one --model")
    varied.check()
    for pool in options.pools:
        check_pool(pool)
    if options.pools and varied.pooling:
        raise UsageError("--pool and --pooling are both given; --pool alone can name several")
    if options.views is not None and options.views not in VIEW_SETS:
        raise UsageError(f"unknown --views '{options.views}'; allowed: {', '.join(VIEW_SETS)}")
    if not 16 <= options.patch_px <= 2048:
        raise UsageError(f"--patch-px {options.patch_px} is not between 16 and 2048")
    for field in options.mpp_out:
        if not is_plausible_mpp(field):
            raise UsageError(f"--mpp-out {field:g} is not between 0.05 and 2.0 um/px")
