"""Hook points of TransformerLens: the names of one tensor, the order of firing, which are sites."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial
from typing import Any

from polycode_plugins.adapters.evidence.points import holds_weights

# The order in which the parts of a model and of its blocks run, as far as it is the same in all
# architectures; for where no forward pass can be traced. A part that is not here comes late.
_PARTS = (
    *("embed", "hook_embed", "pos_embed", "hook_pos_embed", "embed_ln", "rotary_emb"),
    *("blocks", "ln_final", "unembed", "hook_unembed"),
    *("hook_in", "hook_resid_pre", "hook_attn_in", "hook_q_input", "hook_k_input", "hook_v_input"),
    *("ln1", "attn", "q", "hook_q", "k", "hook_k", "v", "hook_v", "hook_rot_q", "hook_rot_k"),
    *("hook_z", "o", "hook_result", "hook_hidden_states", "hook_attn_out", "ln1_post"),
    *("hook_resid_mid", "hook_mlp_in", "ln2", "mlp", "gate", "hook_pre", "in", "hook_pre_linear"),
    *("hook_post", "out", "hook_mlp_out", "ln2_post"),
    *("hook_scale", "hook_normalized", "hook_resid_post", "hook_out"),
)
_RANKS = {part: rank for rank, part in enumerate(_PARTS)}
_TOKEN_IDS = re.compile(r"(hook_tokens|(^|\.)(?!unembed)\w*embed\.hook_in)$")
# What has to be switched on, for the sake of memory, before a hook point fires.
_SWITCHES = {
    "attn.hook_result": "use_attn_result",
    "hook_q_input": "use_split_qkv_input",
    "hook_k_input": "use_split_qkv_input",
    "hook_v_input": "use_split_qkv_input",
    "mlp_in": "use_hook_mlp_in",
    "attn_in": "use_attn_in",
}


def by_source(points: Mapping[str, Any]) -> dict[str, list[str]]:
    """The names of each hook point under the one it gives itself, the best known first.

    The short ones and the aliases are those that TransformerLens had before version 4.
    """
    names: dict[int, list[str]] = {}
    for name, point in points.items():
        names.setdefault(id(point), []).append(name)
    found: dict[str, list[str]] = {}
    for group in names.values():
        own = str(getattr(points[group[0]], "name", None))
        source = own if own in group else group[0]
        found[source] = sorted(group, key=partial(_fame, source))
    return found


def _fame(source: str, name: str) -> tuple[int, bool, str]:
    return name.count("."), name == source, name


def usual_order(source: str) -> tuple[int, ...]:
    """Sorts hook points by the usual order of their parts."""
    late = len(_PARTS) - 2
    return tuple(
        int(part) if part.isdigit() else _RANKS.get(part, late) for part in source.split(".")
    )


def holds_tokens(source: str) -> bool:
    """Whether a hook point holds token ids or positions."""
    return _TOKEN_IDS.search(source) is not None


def why_no_site(name: str, source: str, config: Any) -> str | None:
    """Why a hook point is no site, where that is known without running the model.

    Args:
        name: what the message calls it.
        source: its own name; an alias may look like a hook point that is switched off.
        config: of the model.
    """
    if holds_weights(source):
        return (
            f"{name!r} holds attention weights or rotations, not the activations of units; choose "
            "for example hook_z, hook_result or hook_resid_post"
        )
    for suffix, switch in _SWITCHES.items():
        if source.endswith(suffix) and not getattr(config, switch, True):
            return (
                f"{name!r} fires only after model.set_{switch}(True); call that first, or choose "
                "another site"
            )
    return None
