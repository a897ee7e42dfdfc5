"""The sites of a model as vLLM builds it, by the names that Hugging Face and TransformerLens use.

vLLM keeps the paths of Hugging Face's modules, hands the residual stream from block to block in two
parts, and fuses projections that read the same input. What is offered here is what the same name
means there: the stream as the sum of its parts, and each projection by itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from polycode_plugins.activations import Site
from polycode_plugins.errors import ModelError

#: vLLM's norms that add their two arguments before anything else.
ADDING = frozenset({"RMSNorm", "GemmaRMSNorm"})
FEATURES = ("batch", "position", "feature")
HEADS = ("batch", "position", "head", "feature")

_ATTENTION = ("self_attn", "attn", "attention", "self_attention")
_MLP = ("mlp", "feed_forward")
_INTO_MLP = ("down_proj", "c_proj", "fc2", "dense_4h_to_h", "w2", "fc_out")
_OUT_OF_MLP = ("c_fc", "fc1", "dense_h_to_4h", "fc_in")
_OUT_OF_HEADS = ("o_proj", "c_proj", "out_proj", "dense")
_FUSED_HEADS = ("qkv_proj", "c_attn", "query_key_value")
_BEFORE_MLP = ("pre_feedforward_layernorm", "post_attention_layernorm", "ln_2")
_FIRST_NORM = ("input_layernorm", "ln_1")
_LAST_NORM = ("norm", "ln_f", "final_layer_norm")
_EMBEDDING = ("embed_tokens", "wte", "embed_in")


@dataclass(frozen=True)
class Place:
    """Where in a model a site is, and what of the tensors there it is.

    Attributes:
        name: of the site.
        module: path of the module.
        side: "in" for what the module is called with, "out" for what it returns.
        stream: whether it is the residual stream, the sum of what comes in two parts.
        columns: first and last column of a projection that is fused with others; None for all.
        heads: heads that the columns are of; None for features without heads.
        width: features, those of all heads together.
        shared: whether each of several tensor-parallel workers holds all of it, not a share.
        proof: path of the module that adds the two parts of a block's output: what it is called
            with is the proof that they are parts of one stream.
    """

    name: str
    module: str
    side: str
    width: int
    stream: bool = False
    columns: tuple[int, int] | None = None
    heads: int | None = None
    shared: bool = True
    proof: str | None = None

    @property
    def source(self) -> str:
        """Equal for two names of one tensor."""
        columns = "" if self.columns is None else f"[{self.columns[0]}:{self.columns[1]}]"
        return f"{self.module}:{self.side}{columns}{'+' if self.stream else ''}"

    def site(self, depth: int) -> Site:
        """The site, `depth` places of other tensors after the first."""
        return Site(
            self.name, depth, FEATURES if self.heads is None else HEADS, self.width, self.source
        )


def listed(places: Sequence[Place]) -> list[Site]:
    """The sites at places that are in the order in which they fire."""
    depths: dict[str, int] = {}
    return [place.site(depths.setdefault(place.source, len(depths))) for place in places]


def places(model: nn.Module, width: int, world: int = 1) -> list[Place]:
    """All places of a model that statistics can be gathered at, in the order in which they fire.

    Args:
        model: as vLLM builds it.
        width: of the residual stream.
        world: tensor-parallel workers; with several, places of which each holds a share are left
            out.

    Raises:
        ModelError: for a model without a row of blocks, or with several (images and texts).
    """
    path, blocks = _blocks(model)
    found = [*_stem(model, path, width)]
    last = _last_norm(model, path)
    for index, block in enumerate(blocks):
        at = f"{path}.{index}"
        following = f"{path}.{index + 1}" if index + 1 < len(blocks) else None
        adds = last if following is None else _child(blocks[index + 1], _FIRST_NORM, following)
        found += _block(block, at, f"blocks.{index}", width, adds)
    if last is not None:
        found.append(Place(last, last, "out", width))
    return [place for place in found if place.shared or world == 1]


def _blocks(model: nn.Module) -> tuple[str, Sequence[nn.Module]]:
    """The path of the row of blocks, and these."""
    lists = [
        (path, module)
        for path, module in model.named_modules()
        if isinstance(module, nn.ModuleList) and len(module) and any(module[0].children())
    ]
    outermost = [p for p, _ in lists if not any(p.startswith(f"{other}.") for other, _ in lists)]
    if len(outermost) != 1:
        which = "no row of blocks" if not outermost else f"several rows ({', '.join(outermost)})"
        raise ModelError(
            f"{type(model).__name__} has {which}, and in vLLM this adapter reads language models "
            "of one; use adapter='transformers' on the folder"
        )
    return outermost[0], list(dict(lists)[outermost[0]])


def _stem(model: nn.Module, path: str, width: int) -> Iterator[Place]:
    above = path.rpartition(".")[0]
    name = _child(model.get_submodule(above), _EMBEDDING, above)
    if name is not None:
        place = Place(name, name, "out", width)
        yield from (place, replace(place, name="hook_embed"))


def _last_norm(model: nn.Module, path: str) -> str | None:
    above = path.rpartition(".")[0]
    return _child(model.get_submodule(above), _LAST_NORM, above)


def _block(block: nn.Module, at: str, lens: str, width: int, adds: str | None) -> Iterator[Place]:
    """The places of one block; `lens` is what TransformerLens calls it."""
    stream = Place(f"{lens}.hook_resid_pre", at, "in", width, stream=True)
    yield stream
    norm = _child(block, _FIRST_NORM, at)
    if norm is not None:
        yield Place(norm, norm, "out", width)
    attention = _child(block, _ATTENTION, at)
    if attention is not None:
        yield from _heads(block.get_submodule(_last(attention)), attention, f"{lens}.attn")
        yield from _both(Place(attention, attention, "out", width), f"{lens}.hook_attn_out")
    second = _child(block, _BEFORE_MLP, at)
    # Where attention and MLP read the same stream side by side there is none between them.
    if second is not None and norm is not None and attention is not None:
        kind = type(block.get_submodule(_last(second))).__name__
        if kind in ADDING or second.endswith(".ln_2"):
            yield replace(stream, name=f"{lens}.hook_resid_mid", module=second)
        yield Place(second, second, "out", width)
    mlp = _child(block, _MLP, at)
    if mlp is not None:
        yield from _neurons(block.get_submodule(_last(mlp)), mlp, f"{lens}.mlp")
        yield from _both(Place(mlp, mlp, "out", width), f"{lens}.hook_mlp_out")
    whole = Place(at, at, "out", width, stream=True, proof=adds)
    yield from _both(whole, f"{lens}.hook_resid_post")


def _heads(attention: nn.Module, at: str, lens: str) -> Iterator[Place]:
    fused = _child(attention, _FUSED_HEADS, at)
    heads = None
    if fused is not None:
        module: Any = attention.get_submodule(_last(fused))
        sizes = [getattr(module, name, None) for name in ("num_heads", "num_kv_heads", "head_size")]
        if all(isinstance(size, int) for size in sizes):
            heads, groups, size = (int(n or 0) for n in sizes)
            start = 0
            for name, count in (("q", heads), ("k", groups), ("v", groups)):
                stop = start + count * size
                part = Place(
                    f"{at}.{name}_proj", fused, "out", count * size,
                    columns=(start, stop), shared=False,
                )  # fmt: skip
                yield part
                yield replace(part, name=f"{lens}.hook_{name}", heads=count)
                start = stop
    out = _child(attention, _OUT_OF_HEADS, at)
    if out is not None and heads is not None:
        module = attention.get_submodule(_last(out))
        place = Place(f"{out}:in", out, "in", int(module.input_size), shared=False)
        yield place
        yield replace(place, name=f"{lens}.hook_z", heads=heads)


def _neurons(mlp: nn.Module, at: str, lens: str) -> Iterator[Place]:
    into = _child(mlp, _INTO_MLP, at)
    if into is None:
        return  # experts: which of them a token goes to differs
    module: Any = mlp.get_submodule(_last(into))
    size = getattr(module, "input_size", None)
    if size is None:
        return
    fused, single = _child(mlp, ("gate_up_proj",), at), _child(mlp, _OUT_OF_MLP, at)
    if fused is not None:
        for index, (name, hook) in enumerate(
            (("gate_proj", "hook_pre"), ("up_proj", "hook_pre_linear"))
        ):
            columns = (index * size, (index + 1) * size)
            part = Place(f"{at}.{name}", fused, "out", size, columns=columns, shared=False)
            yield from _both(part, f"{lens}.{hook}")
    elif single is not None:
        yield from _both(Place(single, single, "out", size, shared=False), f"{lens}.hook_pre")
    neurons = Place(f"{into}:in", into, "in", size, shared=False)
    yield from _both(neurons, f"{lens}.hook_post")


def _both(place: Place, lens: str) -> tuple[Place, Place]:
    return place, replace(place, name=lens)


def _child(module: nn.Module, names: Sequence[str], at: str) -> str | None:
    """The path of the first of `names` that is a child of `module`, which is at `at`."""
    children = dict(module.named_children())
    found = next((name for name in names if name in children), None)
    return None if found is None else f"{at}.{found}".lstrip(".")


def _last(path: str) -> str:
    return path.rpartition(".")[2]
