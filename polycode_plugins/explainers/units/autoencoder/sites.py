"""Where an autoencoder reads, in the names of whichever adapter.

SAELens says it in TransformerLens's names (`blocks.8.hook_resid_pre`), sparsify by the path of a
module (`layers.8.mlp`). Every translation is to the same tensor, and one that needs a guess is
asked for.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from polycode_plugins.adapters.base import Adapter
from polycode_plugins.errors import DataError
from polycode_plugins.explainers.units.autoencoder.features import Features

_LENS = re.compile(r"^blocks\.(\d+)\.(.+)$")
_ROW = r"(?:layers|layer|h|blocks|block)"
_BLOCK = re.compile(rf"^(?:.*\.)?{_ROW}\.(\d+)(?:\.([\w.]+))?$")
_IN = ":in"
#: For each point in a block of TransformerLens, the modules inside a block of other libraries:
#: "" is the block itself, ":in" what the module is given. The first that exists is the one.
_MODULES: dict[str, tuple[str, ...]] = {
    "hook_resid_pre": (_IN,),
    "hook_resid_post": ("",),
    "hook_mlp_out": ("post_feedforward_layernorm", "mlp", "feed_forward", "block_sparse_moe"),
    "hook_attn_out": ("attn", "self_attn", "attention"),
    "mlp.hook_post": tuple(
        f"{part}{_IN}"
        for part in ("mlp.c_proj", "mlp.down_proj", "mlp.dense_4h_to_h", "mlp.fc2", "mlp.w2", "fc2")
    ),
    "attn.hook_z": tuple(
        f"{part}{_IN}"
        for part in ("attn.c_proj", "self_attn.o_proj", "attention.dense", "self_attn.out_proj")
    ),
    "hook_resid_mid": (f"ln_2{_IN}",),
}
#: A block with this has a norm behind attention too, and adds what the norms give.
_NORM_BEHIND, _NORM_BEHIND_ATTENTION = "post_feedforward_layernorm", "post_attention_layernorm"
#: The other way, for outputs of a module and for what it is given.
_HOOKS = {
    "": ("hook_resid_post",),
    _IN: ("hook_resid_pre",),
    "mlp": ("hook_mlp_out",),
    "feed_forward": ("hook_mlp_out",),
    f"mlp{_IN}": ("mlp.hook_in",),
    "attn": ("hook_attn_out",),
    "self_attn": ("hook_attn_out",),
    "attention": ("hook_attn_out",),
}


def site_of(features: Features, adapter: Adapter) -> str:
    """The adapter's name of the site that an autoencoder reads.

    Raises:
        DataError: where the folder does not say it, or the adapter has no such site or several.
    """
    if features.site:
        return features.site
    what = f"the autoencoder {features.origin.get('folder', features.kind)!r}"
    if not features.hook:
        raise DataError(
            f"{what} does not say which site it reads; say it, as FOLDER:SITE on the command line "
            "or read_autoencoder(folder, site=...)"
        )
    names = [site.name for site in adapter.sites()]
    found = _found(features.hook, names)
    if len(found) == 1:
        return found[0]
    how = "say which as FOLDER:SITE or read_autoencoder(folder, site=...); 'polycode sites' lists"
    if found:
        raise DataError(
            f"{what} reads {features.hook!r}, which may be {' or '.join(map(repr, found[:4]))} "
            f"here: {how} them"
        )
    raise DataError(
        f"{what} reads {features.hook!r}, and the adapter {adapter.name!r} has no site that is "
        f"known to be it: {how} what there is"
    )


def _found(hook: str, names: list[str]) -> list[str]:
    """The sites that a hook may be: the tensor itself, or its like in another library's names."""
    held = set(names)
    bare = hook.removesuffix(_IN)
    if bare in held:
        return [hook]
    endings = [n for n in names if n.endswith(f".{bare}")]
    if endings:  # sparsify names modules from the base model on
        return [n + hook[len(bare) :] for n in endings]
    lens = _LENS.match(hook)
    if lens:
        return _modules(int(lens[1]), lens[2], names)
    inner = _BLOCK.match(bare)
    if inner:
        part = (inner[2] or "") + hook[len(bare) :]
        if part and any(re.match(rf"blocks\.{inner[1]}\.ln\d_post", name) for name in names):
            return []  # the points behind a norm are not what the modules give
        places = [f"blocks.{inner[1]}.{point}" for point in _HOOKS.get(part, ())]
        return [place for place in places if place in held]
    return []


def _modules(block: int, point: str, names: list[str]) -> list[str]:
    """The module inside a block that a point of TransformerLens is, in each row of blocks."""
    found = []
    held = set(names)
    for prefix in _rows(names):
        path = f"{prefix}.{block}"
        parts = _MODULES.get(point, ())
        if point == "hook_attn_out" and f"{path}.{_NORM_BEHIND}" in held:
            parts = (_NORM_BEHIND_ATTENTION,)
        for part in parts:
            module, given = part.removesuffix(_IN), part.endswith(_IN)
            at = f"{path}.{module}" if module else path
            if at in held:
                found.append(at + (_IN if given else ""))
                break
    return found


def _rows(names: Iterable[str]) -> list[str]:
    """Paths of the outermost lists of blocks: `model.layers` of `model.layers.3.mlp`."""
    rows = dict.fromkeys(
        match[1] for name in names if (match := re.match(rf"^((?:.*?\.)?{_ROW})\.\d+", name))
    )
    return list(rows)
