"""Finding the matrices of a model in which features are embedded, and which side is the features.

A matrix maps inputs to outputs. Where inputs are many and outputs the dimensions they share (an
embedding, the output of an MLP), each input's written vector is a feature; where outputs are many
(the input of an MLP, an unembedding), each output's read vector is one. How the matrix is stored
decides whether these are rows or columns: `nn.Linear` stores [outputs, inputs], TransformerLens,
`nn.Embedding` and Hugging Face's Conv1D store [inputs, outputs].
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args

from torch import Tensor, nn

from polycode_plugins.activations import Site
from polycode_plugins.adapters.base import Adapter
from polycode_plugins.adapters.patterns import match
from polycode_plugins.errors import DataError, ModelError, SiteError, near
from polycode_plugins.metrics.capacity.feature_capacity import FeatureCapacity, Side

End = Literal["inputs", "outputs"]
Features = Literal["inputs", "outputs", "rows", "columns"]
_Place = tuple[str, str, End]

#: The matrices of a TransformerLens model, stored [inputs, outputs], and which of both share the
#: dimensions of the residual stream: place in a block or in the model, last part of the name, side.
_LENS_HEAD: tuple[_Place, ...] = (("embed", "W_E", "inputs"), ("unembed", "W_U", "outputs"))
_LENS_BLOCK: tuple[_Place, ...] = (
    ("mlp", "W_in", "outputs"),
    ("mlp", "W_gate", "outputs"),
    ("mlp", "W_out", "inputs"),
)
DEFAULT_NAMES = ("W_E", "W_in", "W_out")


@dataclass(frozen=True)
class _Matrix:
    """A matrix of a model.

    Attributes:
        read: gives it, as stored.
        inputs: which side of it the inputs are; None where nothing tells.
        features: which end are the features by convention; None where it is the user's choice.
    """

    read: Callable[[], Tensor]
    inputs: Side | None
    features: End | None

    def side(self, name: str, features: Features | None) -> Side:
        """The side of the matrix that `features` means."""
        chosen = self.features if features is None else features
        if chosen == "rows" or chosen == "columns":
            return chosen
        if chosen is None or self.inputs is None:
            ends = (
                "features='inputs' (each input's written vector) or 'outputs' (each output's read "
                "vector)"
            )
            sides = "features='rows' or 'columns' of the matrix as it is stored"
            raise DataError(
                f"{name} does not say what its features are; give "
                f"{sides if self.inputs is None else ends}"
            )
        other: Side = "columns" if self.inputs == "rows" else "rows"
        return self.inputs if chosen == "inputs" else other


def capacity_of_weights(
    model: Any = None,
    names: Sequence[str] | str | None = None,
    *,
    features: Features | None = None,
    blocks: bool = False,
    tolerance: float = 0.01,
) -> dict[str, FeatureCapacity]:
    """Capacities of the features embedded in a model's weights (Scherlis et al. 2022).

    The weights are taken as they are: TransformerLens may have folded layer norms into them and
    centred them when it loaded the model, which changes the capacities.

    Args:
        model: an adapter, a live nn.Module, or what `pc.load` takes (a name, a folder, None).
        names: names or globs of parameters. In a glob `*` stays within one dotted part; a name
            without a dot also means every parameter whose last part it is. Default for a
            TransformerLens model: "W_E", "W_in" and "W_out" (`embed.W_E`, `blocks.0.mlp.W_in`, ..),
            whose features are tokens and neurons; "W_gate" and "W_U" are known, too.
        features: which vectors the features are: of "inputs" or of "outputs" where the module says
            which side is which (nn.Linear, nn.Embedding, Conv1D, TransformerLens), of "rows" or of
            "columns" of any matrix. Default: what TransformerLens's names and nn.Embedding imply;
            for other matrices it has to be said.
        blocks: see `FeatureCapacity.measure`.
        tolerance: see there.

    Returns:
        {full name of the parameter: its capacities}, in the model's order.

    Raises:
        SiteError: for a name that means no matrix of the model.
        DataError: where `features` is needed, or a matrix is none (of three axes, NaN, zero).
        ModelError: for something that has no weights.
    """
    if features is not None and features not in get_args(Features):
        raise DataError(f"features is one of {', '.join(get_args(Features))}, not {features!r}")
    matrices = dict(_matrices(_module(model)))
    if names is None:
        names = [n for n in DEFAULT_NAMES if any(_last(m) == n for m in matrices)]
        if not names:
            raise SiteError(
                "this is no TransformerLens model, so name the matrices to measure, for example "
                f"names=[{next(iter(matrices), 'fc.weight')!r}]"
            )
    wanted = [names] if isinstance(names, str) else names
    found = {name for pattern in wanted for name in _found(pattern, matrices)}
    return {
        name: FeatureCapacity.measure(
            _read(name, matrix),
            features=matrix.side(name, features),
            name=name,
            blocks=blocks,
            tolerance=tolerance,
        )
        for name, matrix in matrices.items()
        if name in found
    }


def _read(name: str, matrix: _Matrix) -> Tensor:
    try:
        weights = matrix.read()
    except NotImplementedError as error:  # TransformerLens's word for quantised or absent weights
        raise ModelError(f"{name} cannot be read: {error}") from error
    if weights.is_meta or not weights.is_floating_point():
        what = "not loaded" if weights.is_meta else f"stored as {weights.dtype}"
        raise ModelError(f"{name} is {what}, so it has no real numbers; load the model in float32")
    return weights


def _module(model: Any) -> nn.Module:
    if isinstance(model, nn.Module):
        return model
    if model is None or isinstance(model, str | Path):
        from polycode_plugins.loading import load

        model = load(model)
    live = model.model if isinstance(model, Adapter) else model
    if not isinstance(live, nn.Module):
        raise ModelError(
            f"a {type(live).__name__} has no weights to read; pass an nn.Module or an adapter of "
            "one, or a matrix to FeatureCapacity.measure"
        )
    return live


def _matrices(model: nn.Module) -> Iterator[tuple[str, _Matrix]]:
    """All matrices by name: TransformerLens's first, then every parameter but vectors."""
    seen = set()
    for name, matrix in _lens_matrices(model):
        seen.add(name)
        yield name, matrix
    for path, module in model.named_modules():
        for last, parameter in module.named_parameters(recurse=False):
            name = f"{path}.{last}" if path else last
            if parameter.dim() >= 2 and name not in seen:
                yield name, _parameter(module, last, parameter)


def _lens_matrices(model: nn.Module) -> Iterator[tuple[str, _Matrix]]:
    """TransformerLens's matrices; a TransformerBridge computes them from the original's."""
    if not all(hasattr(model, name) for name in ("hook_dict", "run_with_hooks", "embed")):
        return
    layers = [f"blocks.{i}." for i in range(len(getattr(model, "blocks", ())))]
    homes = [*_LENS_HEAD, *((at + home, w, f) for at in layers for home, w, f in _LENS_BLOCK)]
    for home, last, features in homes:
        module: Any = model
        for part in home.split("."):
            module = module[int(part)] if part.isdigit() else getattr(module, part, None)
        try:
            # A layer without such a matrix (no gate, a mixture of experts) has None or nothing.
            there = getattr(module, last, None) is not None
        except NotImplementedError:  # one that cannot be read, which matters once it is asked for
            there = True
        if there:
            yield f"{home}.{last}", _Matrix(partial(getattr, module, last), "rows", features)


def _parameter(module: nn.Module, last: str, parameter: Tensor) -> _Matrix:
    inputs: Side | None = None
    if last == "weight" and isinstance(module, nn.Linear):
        inputs = "columns"
    elif last == "weight" and (
        isinstance(module, nn.Embedding) or type(module).__name__ == "Conv1D"
    ):
        inputs = "rows"
    return _Matrix(
        lambda: parameter, inputs, "inputs" if isinstance(module, nn.Embedding) else None
    )


def _found(pattern: str, matrices: dict[str, _Matrix]) -> list[str]:
    sites = [Site(name) for name in matrices]
    found = [site.name for site in match(pattern, sites)]
    if not found and "." not in pattern:
        found = [name for name in matrices if _last(name) == pattern]
    if found:
        return found
    lasts = dict.fromkeys(_last(name) for name in matrices)
    hint = near(pattern, [*matrices, *lasts])
    raise SiteError(
        f"no matrix of this model is named {pattern!r}{hint}"
        + ("" if hint else f"; it has {', '.join([*matrices][:3])}, ..")
    )


def _last(name: str) -> str:
    return name.rpartition(".")[2]
