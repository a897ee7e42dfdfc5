"""What flows from adapters to metrics: a site's name and place, and one batch of its activations.

The axes of a tensor are named, because which of them are samples and which are features decides the
covariance that everything else is computed from. `Activations.matrix` is the one place where that
decision is made.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal, TypeVar

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from polycode_plugins.devices import HOST, moved
from polycode_plugins.errors import DataError
from polycode_plugins.row_names import Repeats, content

Positions = Literal["samples", "features"]
T = TypeVar("T")

# Axes along which a unit is one and the same and only the place in the input changes. Whether they
# are samples or features is the caller's choice (`positions`); every other axis has one meaning.
POSITION_AXES = frozenset({"position", "depth", "height", "width"})
FEATURE_AXES = frozenset({"feature", "channel", "head"})
AXES = frozenset({"batch"}) | POSITION_AXES | FEATURE_AXES


@dataclass(frozen=True)
class Site:
    """A place in a model whose activations can be captured.

    Attributes:
        name: the name that was asked for; every result is keyed by it.
        depth: place in the order in which all sites of the model fire in a forward pass, from 0;
            the same whichever of them are asked for.
        axes: names of the axes of its tensor, `()` while unknown.
        width: features per sample with positions as samples, None while unknown.
        source: identity of the tensor behind the name; two names of one tensor share it.
    """

    name: str
    depth: int = 0
    axes: tuple[str, ...] = ()
    width: int | None = None
    source: str = ""


@dataclass(frozen=True, eq=False)
class Tokens:
    """What the model read at each position, for naming samples; no statistic depends on it.

    Attributes:
        ids: int64 [batch, position].
        text: what one id stands for; None where nobody knows.
    """

    ids: Tensor
    text: Callable[[int], str] | None = None


@dataclass(frozen=True, eq=False)
class Activations:
    """One batch of activations of one site.

    Attributes:
        values: tensor of any floating type; one axis for each entry of `axes`.
        axes: names out of `AXES`; "batch" comes first and at least one is a feature axis.
        mask: bool [batch] or [batch, positions], True where the sample counts; None when all do.
            Padding and special tokens are False here and never reach a statistic. Of whatever
            device; a mask on the CPU, as adapters give it, is known without waiting for a GPU.
        rows: int64 [batch], index of each row in the whole data; the same for any batch size.
        documents: int64 [batch], the document each row was cut from, or [batch, positions] where a
            row holds several; None when rows are documents. Rows of which it is not known which
            belong together are all of document -1.
        tokens: what stands at each row and position, where that is known.
        shared: what the sites of one batch have in common, see `once`; None for activations that
            come by themselves.
    """

    values: Tensor
    axes: tuple[str, ...]
    mask: Tensor | None = None
    rows: Tensor | None = None
    documents: Tensor | None = None
    tokens: Tokens | None = None
    shared: dict[Any, Any] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        check_axes(self.axes, self.values.shape)
        if self.mask is not None:
            if self.mask.dtype != torch.bool:
                raise DataError(f"a mask must be boolean, and this one is {self.mask.dtype}")
            if tuple(self.mask.shape) not in (self.values.shape[:1], self._sample_shape()):
                raise DataError(
                    f"a mask of shape {tuple(self.mask.shape)} does not fit activations of shape "
                    f"{tuple(self.values.shape)} with axes {', '.join(self.axes)}; it must be "
                    f"[batch] or cover the batch and position axes {self._sample_shape()}"
                )
        if self.documents is not None and tuple(self.documents.shape) not in (
            self.values.shape[:1],
            self._sample_shape(),
        ):
            raise DataError(
                f"documents of shape {tuple(self.documents.shape)} do not fit activations of shape "
                f"{tuple(self.values.shape)} with axes {', '.join(self.axes)}"
            )

    def _sample_shape(self) -> tuple[int, ...]:
        return tuple(
            n
            for n, axis in zip(self.values.shape, self.axes, strict=True)
            if axis not in FEATURE_AXES
        )

    def once(self, what: str, make: Callable[[], T]) -> T:
        """`make()`, computed once for all sites of a batch that have the same rows.

        Args:
            what: a name for it.
            make: makes it of the shape of the samples, mask, rows and documents alone.
        """
        if self.shared is None:
            return make()
        parts = self.mask, self.rows, self.documents
        key = (what, self._sample_shape(), self.values.device, *map(id, parts))
        if key not in self.shared:
            self.shared[key] = make(), parts  # which keeps the numbers of the parts theirs
        made: T = self.shared[key][0]
        return made

    def clone(self) -> Activations:
        """A copy that later in-place operations on the model's tensors cannot change."""
        return replace(self, values=self.values.detach().clone())

    def matrix(self, positions: Positions = "samples") -> Float[Tensor, "samples features"]:
        """The samples that count, as a matrix [samples, features].

        With `positions="samples"` every unmasked position is a sample and the features are the
        channels (heads and their features side by side). With `positions="features"` a sample is
        one row of the batch and its features are channels x positions; rows with a masked position
        are refused, since a sample with missing features has no covariance. The matrix may be a
        view of `values` and all who ask get the same one: it is not to be written to.

        Raises:
            DataError: for `positions="features"` where a row is partly masked.
        """
        if positions == "samples" or self.axes == ("batch", "feature"):
            return self._samples
        rows = self._features_last().reshape(self.values.shape[0], -1)
        if self.mask is None:
            return rows
        mask = self._full_mask().reshape(rows.shape[0], -1)
        whole = mask.all(dim=1)
        if not bool((whole == mask.any(dim=1)).all()):
            raise DataError(
                "positions='features' needs every position of a row, and some rows are partly "
                "masked; use positions='samples' or texts without padding"
            )
        return rows.index_select(0, moved(whole.nonzero().flatten(), rows.device))

    @cached_property
    def _samples(self) -> Tensor:
        """`matrix("samples")`; taking samples out by a mask is a copy, made once for all."""
        values = self._features_last().flatten(len(self._sample_shape())).flatten(0, -2)
        if self.mask is None:
            return values
        # Several times faster than an index by a mask.
        return values.index_select(0, self.once("places", self.sample_places))

    def _features_last(self) -> Tensor:
        order = sorted(range(len(self.axes)), key=lambda i: self.axes[i] in FEATURE_AXES)
        return self.values.permute(order)

    def sample_rows(self, device: torch.device | None = None) -> Int64[Tensor, " samples"]:
        """int64 [samples]: the batch row, from 0, that each line of `matrix("samples")` is of.

        Args:
            device: where it is wanted; by default where the values are.
        """
        shape = self._sample_shape()
        index = torch.arange(shape[0]).reshape(-1, *([1] * (len(shape) - 1))).expand(shape)
        index = index.reshape(-1)
        if self.mask is not None:
            index = index.index_select(0, self._counted())
        return moved(index, device or self.values.device)

    def sample_documents(
        self, device: torch.device | None = None
    ) -> Int64[Tensor, " samples"] | None:
        """int64 [samples]: the document of each line of `matrix("samples")`; None without any.

        Args:
            device: where it is wanted; by default where the values are.
        """
        if self.documents is None:
            return None
        documents = self.documents.cpu()
        if documents.dim() == 1:
            documents = documents.index_select(0, self.sample_rows(HOST))
        else:
            documents = documents.flatten()
            if self.mask is not None:
                documents = documents.index_select(0, self._counted())
        return moved(documents, device or self.values.device)

    def sample_places(self) -> Tensor:
        """int64 [samples]: where each line of `matrix("samples")` is among all of batch and places.

        Divided by the number of places of a row, it gives the row; what remains is the place.
        """
        if self.mask is not None:
            return moved(self._counted(), self.values.device)
        return torch.arange(math.prod(self._sample_shape()), device=self.values.device)

    def places(self) -> tuple[int, ...]:
        """Positions of one row: sizes of the axes that are neither batch nor features."""
        return self._sample_shape()[1:]

    def _counted(self) -> Tensor:
        """int64 [samples] on the CPU: `sample_places` under a mask."""
        return self.once("counted", lambda: self._full_mask().flatten().nonzero().flatten())

    def _full_mask(self) -> Tensor:
        assert self.mask is not None
        shape = self._sample_shape()
        # How many samples count is a shape, which has to be known here.
        mask = self.mask.cpu()
        if mask.dim() < len(shape):
            mask = mask.reshape(-1, *([1] * (len(shape) - 1))).expand(shape)
        return mask


def check_axes(axes: Sequence[str], shape: Sequence[int]) -> None:
    """Raise DataError unless `axes` names every axis of `shape` in a way that has a meaning."""
    unknown = [axis for axis in axes if axis not in AXES]
    if unknown:
        raise DataError(f"unknown axis {unknown[0]!r}; the axes are {', '.join(sorted(AXES))}")
    if len(axes) != len(shape):
        raise DataError(
            f"activations of shape {tuple(shape)} have {len(shape)} axes, and {len(axes)} are "
            f"named ({', '.join(axes)}); name each axis with axes="
        )
    if axes[0] != "batch" or axes.count("batch") > 1:
        raise DataError(f"the first axis must be 'batch', and the axes are {', '.join(axes)}")
    if not any(axis in FEATURE_AXES for axis in axes):
        raise DataError(f"no feature axis among {', '.join(axes)}; name one of them 'feature'")


def default_axes(ndim: int) -> tuple[str, ...]:
    """The usual meaning of a tensor with `ndim` axes: [b, f], [b, pos, f] or [b, c, h, w].

    Raises:
        DataError: for other numbers of axes, where a guess would be arbitrary.
    """
    usual = {
        2: ("batch", "feature"),
        3: ("batch", "position", "feature"),
        4: ("batch", "channel", "height", "width"),
        5: ("batch", "channel", "depth", "height", "width"),
    }
    if ndim not in usual:
        raise DataError(
            f"activations with {ndim} axes have no usual meaning; name the axes with axes="
        )
    return usual[ndim]


class Arrivals:
    """Numbers rows that have none in the order in which they come, at each site by itself.

    So somebody else's forward passes give what an adapter gives that numbers the rows of its data.
    A row that comes again is of the document that it was of the first time. A row without positions
    stays without a number: it is one sample, known by its values.
    """

    def __init__(self) -> None:
        self._seen: dict[str, int] = {}
        self._repeats: dict[str, Repeats] = {}

    def numbered(self, site: str, activations: Activations) -> Activations:
        """The same activations, with numbers of their rows where they have positions."""
        if activations.rows is not None or POSITION_AXES.isdisjoint(activations.axes):
            return activations
        values = activations.values
        first, size = self._seen.get(site, 0), values.shape[0]
        self._seen[site] = first + size
        rows = torch.arange(first, first + size)
        documents = activations.documents
        if documents is None and not values.is_meta:
            names = content(values.detach().reshape(size, -1))
            documents = self._repeats.setdefault(site, Repeats()).documents(names, rows)
        return replace(activations, rows=rows, documents=documents)
