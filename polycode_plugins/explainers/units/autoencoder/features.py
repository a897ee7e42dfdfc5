"""Features of a sparse autoencoder as units: with encoder, bias and threshold, as they fire."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from einops import rearrange
from torch import Tensor

from polycode_plugins.errors import DataError
from polycode_plugins.explainers.units.autoencoder.encoder import Encoder
from polycode_plugins.explainers.units.base import Units

KIND = "feature"


@dataclass(frozen=True, eq=False)
class Features(Units):
    """Some features of one sparse autoencoder; they read the site that it was trained on.

    `directions` and `offsets` are rows of the encoder and its negative bias: what is read off them
    is linear, and the activations are what `project` gives.

    Attributes:
        encoder: the whole of it; None in a comparison that was loaded, which does not hold it.
        which: int64 [units], their places in the encoder.
        hook: the site's name in the folder; see `sites.site_of`.
        site: the site's name as the user said it, or "".
    """

    encoder: Encoder | None = None
    which: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.int64))
    hook: str = ""
    site: str = ""

    def __post_init__(self) -> None:
        if len(set(self.names)) < len(self.names) or len(self.names) != len(self.directions):
            raise DataError("the features need a name each, and no two the same")

    @property
    def one_sided(self) -> bool:
        """Whether they are never negative, so that there is no other side to explain."""
        return self.encoder is not None and self.encoder.activation != "abstopk"

    def project(self, values: Tensor) -> Tensor:
        """float32 [..., units]: the activations of the features on `values` [..., width].

        Raises:
            DataError: of a comparison that was loaded.
        """
        if self.encoder is None:
            raise DataError(
                "a saved comparison holds the encoder's rows of its features and not the whole "
                "autoencoder; read its folder again to compute activations"
            )
        return self.encoder.encode(values, self.which)

    def by_unit(self, values: Tensor) -> Iterator[tuple[int, Tensor]]:
        """All units at once: those of a top-k autoencoder depend on each other."""
        yield 0, rearrange(self.project(values), "... unit -> unit ...").contiguous()

    def select(self, which: Sequence[int]) -> Features:
        """Some of the features, in the order given."""
        rows = torch.as_tensor(list(which), dtype=torch.int64)
        return Features(
            self.kind,
            tuple(self.names[i] for i in which),
            self.directions[rows],
            self.offsets[rows],
            self.origin,
            None,
            self.encoder,
            self.which[rows] if len(self.which) else self.which,
            self.hook,
            self.site,
        )


def features_of(
    encoder: Encoder,
    *,
    kind: str = KIND,
    hook: str = "",
    site: str = "",
    origin: Mapping[str, Any] | None = None,
) -> Features:
    """All features of an encoder of one's own, numbered from 0.

    Args:
        encoder: of the autoencoder.
        kind: of the units; two autoencoders of one site need two.
        hook: see `Features`; hook or site is needed to compare.
        site: see `Features`.
        origin: JSON values that say where it is from.
    """
    count = len(encoder)
    return Features(
        kind,
        tuple(f"{kind} {i}" for i in range(count)),
        encoder.weight,
        -encoder.bias,
        {"autoencoder": encoder.activation, "features": count, "k": encoder.k, **(origin or {})},
        None,
        encoder,
        torch.arange(count),
        hook,
        site,
    )
