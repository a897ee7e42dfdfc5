"""What a folder of an autoencoder says: the encoder, where it reads, what is worth recording."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from polycode_plugins.errors import DataError
from polycode_plugins.explainers.units.autoencoder.encoder import Encoder


@dataclass(frozen=True)
class Contents:
    """An autoencoder as it was read.

    Attributes:
        encoder: of it.
        hook: where it reads: "blocks.8.hook_resid_pre", or the path of a module, ":in" for what
            the module is given.
        origin: JSON values: format, model, versions.
    """

    encoder: Encoder
    hook: str
    origin: Mapping[str, Any] = field(default_factory=dict)


def take(tensors: Mapping[str, Tensor], *names: str) -> list[Tensor]:
    """These tensors as float32, contiguous.

    Raises:
        DataError: where one is missing.
    """
    missing = [n for n in names if n not in tensors]
    if missing:
        held = ", ".join(sorted(tensors)) or "nothing"
        raise DataError(f"its weights lack {missing[0]!r} and hold {held}")
    return [tensors[n].float().contiguous() for n in names]


def leave_none(tensors: Mapping[str, Tensor], *known: str) -> None:
    """Raise DataError where there are tensors beside the known ones: they might change a number."""
    other = sorted(set(tensors) - set(known))
    if other:
        raise DataError(f"its weights hold {other[0]!r}, which is not read here")


def choice(config: Mapping[str, Any], name: str, default: Any, *known: Any) -> Any:
    """A value of the configuration that decides what is computed.

    Raises:
        DataError: for one that is not known.
    """
    value = config.get(name, default)
    if not any(value == k and type(value) is type(k) for k in known):
        raise DataError(
            f"its {name} is {value!r}, and what is read is {' or '.join(map(repr, known))}"
        )
    return value


def whole(config: Mapping[str, Any], name: str) -> int:
    """A whole number of the configuration that is positive.

    Raises:
        DataError: for anything else.
    """
    value = config.get(name)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise DataError(f"its {name} is {value!r} and must be a positive whole number")
    return value
