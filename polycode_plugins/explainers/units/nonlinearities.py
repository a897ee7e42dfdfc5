"""The nonlinearity of a layer, proven by values: which function of what makes a site's activations.

A layer's neurons are f(x), or f(x) v in a gated layer (Shazeer 2020), one number of each input for
each neuron. Names of sites say nothing reliable of that; what they hold does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

FUNCTIONS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "relu": torch.relu,
    "gelu": F.gelu,
    "gelu_tanh": partial(F.gelu, approximate="tanh"),
    "gelu_sigmoid": lambda x: x * torch.sigmoid(1.702 * x),
    "silu": F.silu,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "relu_squared": lambda x: torch.relu(x) ** 2,
    "softplus": F.softplus,
    "elu": F.elu,
    "selu": F.selu,
    "leaky_relu": F.leaky_relu,
    "mish": F.mish,
    "relu6": F.relu6,
    "hardswish": F.hardswish,
}
#: What rounding may leave between a function's values and a site's, of the largest of these.
_TOLERANCE = {torch.float16: 4e-3, torch.bfloat16: 3e-2}
_EXACT = 1e-4


@dataclass(frozen=True)
class Nonlinearity:
    """How a site's activations come about.

    Attributes:
        function: one of `FUNCTIONS`.
        inputs: the site that goes through the function; of a gated layer also the one that its
            values are multiplied with.
    """

    function: str
    inputs: tuple[str, ...]

    def __call__(self, inputs: Sequence[Tensor]) -> Tensor:
        """The activations [..., features], of the inputs in the order of their names."""
        made = FUNCTIONS[self.function](inputs[0])
        return made if len(inputs) == 1 else made * inputs[1]


def nonlinearity_of(values: Tensor, before: Mapping[str, Tensor]) -> Nonlinearity | None:
    """The function and the inputs that give `values`, closest first; None where none does.

    Args:
        values: [tokens, features] of a site, some that differ.
        before: the same tokens at sites that fire before it, nearest first; those of another width
            are left out, and so are those that hold the same values.
    """
    tolerance = _TOLERANCE.get(values.dtype, _EXACT) * float(values.abs().max())
    target = values.float()
    if not tolerance > 0:
        return None
    known = {name: x.float() for name, x in before.items() if x.shape == values.shape}
    known = {name: x for name, x in known.items() if float((x - target).abs().max()) > tolerance}
    best, least = None, tolerance
    for name, x in known.items():
        for function, of in FUNCTIONS.items():
            made = of(x)
            others: list[tuple[tuple[str, ...], Tensor]] = [((name,), made)]
            others += [((name, other), made * v) for other, v in known.items() if other != name]
            for inputs, found in others:
                error = float((found - target).abs().max())
                if error < least:
                    best, least = Nonlinearity(function, inputs), error
    return best
