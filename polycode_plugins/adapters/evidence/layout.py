"""What the axes of a module's output mean: [b, pos, f], [b, c, h, w], or something to be told.

A module that only exists in one layout (a convolution, a linear map) decides for itself. For the
others (an activation function, a block) the modules of the model that do decide are the evidence;
where they contradict each other there is no guess but an error that asks.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Literal

from torch import Tensor, nn

from polycode_plugins.activations import check_axes, default_axes
from polycode_plugins.errors import SiteError

Layout = Literal["second", "last", "sequence-first"]  # where the features are

_SPATIAL = {3: ("position",), 4: ("height", "width"), 5: ("depth", "height", "width")}
_SECOND = (
    nn.modules.conv._ConvNd,
    nn.modules.batchnorm._BatchNorm,
    nn.modules.instancenorm._InstanceNorm,
    nn.modules.pooling._MaxPoolNd,
    nn.modules.pooling._AvgPoolNd,
    nn.modules.pooling._AdaptiveMaxPoolNd,
    nn.modules.pooling._AdaptiveAvgPoolNd,
    nn.GroupNorm,
    nn.PixelShuffle,
)
_LAST = (nn.Linear, nn.LayerNorm, nn.RMSNorm, nn.Embedding, nn.Bilinear)
_SEQUENCE = (
    nn.modules.rnn.RNNBase,
    nn.MultiheadAttention,
    nn.TransformerEncoderLayer,
    nn.TransformerDecoderLayer,
)


def own_layout(module: nn.Module) -> Layout | None:
    """Where a module's features are by what it is, None when it works in any layout."""
    if isinstance(module, _SEQUENCE):
        first = module.batch_first if hasattr(module, "batch_first") else _attention(module)
        return "last" if first else "sequence-first"
    # torchvision's and timm's LayerNorm2d are LayerNorms that permute: they keep channels second.
    if isinstance(module, nn.LayerNorm) and type(module).__name__ == "LayerNorm2d":
        return "second"
    if isinstance(module, _SECOND):
        return "second"
    # transformers' Conv1D is a linear map over the last axis.
    if isinstance(module, _LAST) or type(module).__name__ == "Conv1D":
        return "last"
    return None


def _attention(module: nn.Module) -> bool:
    attention = getattr(module, "self_attn", None)
    return bool(getattr(attention, "batch_first", False))


def evidence(modules: Iterable[tuple[nn.Module, int]]) -> dict[int, set[Layout]]:
    """The layouts seen for each number of axes, from modules and the axes of their outputs."""
    votes: dict[int, set[Layout]] = {}
    for module, ndim in modules:
        layout = own_layout(module)
        if layout is not None:
            votes.setdefault(ndim, set()).add(layout)
    return votes


def static_evidence(root: nn.Module) -> dict[int, set[Layout]]:
    """The evidence without a forward pass: each kind of module counts where it may occur.

    A layer norm may stand in an image in channels-last layout (Swin); a linear map is taken to read
    [batch, position, feature] and no image, since every convolutional classifier ends in one.
    """
    seen: list[tuple[nn.Module, int]] = []
    for module in root.modules():
        layout = own_layout(module)
        if layout == "second":
            digit = next((c for c in type(module).__name__ if c in "123"), "2")
            seen.append((module, int(digit) + 2))
        elif isinstance(module, nn.LayerNorm | nn.RMSNorm):
            seen += [(module, ndim) for ndim in _SPATIAL]
        elif layout is not None:
            seen.append((module, 3))
    return evidence(seen)


def axes_of(
    path: str,
    module: nn.Module,
    values: Tensor,
    votes: Mapping[int, set[Layout]],
    asked: Mapping[str, Sequence[str]] | Sequence[str] | None = None,
) -> tuple[str, ...]:
    """The names of the axes of a module's output.

    Args:
        path: the module's path, for messages and for patterns in `asked`.
        votes: the model's evidence, see `evidence`.
        asked: the axes the user named: one tuple for all sites, or {glob: axes}.

    Raises:
        SiteError: where the evidence is contradictory; it says how to name the axes.
    """
    named = asked_axes(path, values, asked)
    ndim = values.dim()
    if named is not None:
        return named
    if ndim < 3 or ndim not in _SPATIAL:
        return default_axes(ndim)
    layout = own_layout(module)
    candidates = {layout} if layout is not None else votes.get(ndim, set())
    if candidates == {"sequence-first"}:
        return ("position", "batch", "feature")
    if candidates == {"last"}:
        return ("batch", *_SPATIAL[ndim], "feature")
    if candidates == {"second"}:
        return ("batch", "channel", *_SPATIAL[ndim])
    if not candidates:
        return default_axes(ndim)
    raise SiteError(
        f"the output of {path!r} has shape {tuple(values.shape)} and this model uses more than one "
        f"layout ({', '.join(sorted(candidates))}), so its axes are ambiguous; name them, for "
        f"example axes={{{path!r}: {default_axes(ndim)!r}}}"
    )


def asked_axes(
    path: str, values: Tensor, asked: Mapping[str, Sequence[str]] | Sequence[str] | None
) -> tuple[str, ...] | None:
    """The axes that the user named for a tensor; None where none are named.

    Raises:
        SiteError: for axes that do not fit it.
        DataError: for unknown ones.
    """
    named = _asked(path, asked)
    if named is None:
        return None
    if "batch" not in named or len(named) != values.dim():
        raise SiteError(
            f"axes={named!r} does not fit the output of {path!r} with shape "
            f"{tuple(values.shape)}; name one axis 'batch' and each of the {values.dim()} axes"
        )
    check_axes(("batch", *(a for a in named if a != "batch")), values.shape)
    return named


def _asked(
    path: str, asked: Mapping[str, Sequence[str]] | Sequence[str] | None
) -> tuple[str, ...] | None:
    if asked is None:
        return None
    if isinstance(asked, Mapping):
        return next((tuple(a) for p, a in asked.items() if fnmatchcase(path, p)), None)
    return tuple(asked)
