"""Mergeable sufficient statistics of streams of activations.

`Covariance` keeps the rows themselves while there are few of them, and their moments afterwards.
Few means: not more than the width (then the rows are smaller than the scatter, and the Gram matrix
gives the same spectrum for less) or than one block (then a matrix product is worth its call).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, Self

import torch
from torch import Tensor

from polycode_plugins.activations import Activations, Positions
from polycode_plugins.errors import DataError, StateError
from polycode_plugins.metrics import decomposition, triangle
from polycode_plugins.metrics.base import Accumulator, Memory
from polycode_plugins.metrics.moments import Moments, block_rows

Precision = Literal["float64", "float32"]

# Rows kept because they are fewer than the width must still fit; wider layers need another choice.
MAX_ROW_BYTES = 4 * 2**30


@dataclass
class _Read:
    """What one reading of a covariance worked out: mean and sums of squares, the moments with
    everything folded, and the eigenvectors [rank, width]."""

    squares: tuple[Tensor, Tensor] | None = None
    total: Moments | None = None
    vectors: Tensor | None = None


class Covariance(Accumulator):
    """Mean and covariance of a layer's activations, streamed.

    The state is float64, and half a matrix: the lower triangle, in panels of some rows each. With
    `precision="float64"` (the default) so are the products, and any split into batches, order or
    merge tree gives the same covariance to about 1e-12 of its scale. With `precision="float32"` the
    products of one block are float32 on block-centred values and only their sum is float64: each
    entry S_ij errs by at most 2 (b + 2) u sqrt(S_ii S_jj), where b <= 4096 rows is the block and
    u = 2^-24 (worst case 5e-4; about 1e-6 seen), in two thirds of the time.
    TensorFloat-32 and autocast, which would not keep it, are off while a metric gathers; around an
    accumulator used by itself they are not (`precision.full_precision`).

    Args:
        positions: "samples" makes every position a sample and the width the number of channels;
            "features" makes each row of the batch one sample of channels x positions.
        precision: of the products, see above.
    """

    name = "covariance"

    def __init__(self, positions: Positions = "samples", precision: Precision = "float64") -> None:
        if positions not in ("samples", "features"):
            raise DataError(f"positions is 'samples' or 'features', not {positions!r}")
        if precision not in ("float64", "float32"):
            raise DataError(f"precision is 'float64' or 'float32', not {precision!r}")
        self.positions = positions
        self.precision = precision
        self._pending: list[Tensor] = []  # rows not yet folded into the moments
        self._n_pending = 0
        self._moments: Moments | None = None
        self._eigenvalues: Tensor | None = None  # of what was seen so far, once asked for
        self._read: _Read | None = None  # while a reading lasts

    def options(self) -> dict[str, Any]:
        """The settings that define the statistic."""
        return {"positions": self.positions, "precision": self.precision}

    @property
    def n_samples(self) -> int:
        """Samples taken in so far."""
        return self._n_pending + (self._moments.count if self._moments is not None else 0)

    @property
    def width(self) -> int | None:
        """Features per sample, None before the first batch."""
        if self._moments is not None:
            return self._moments.width
        return self._pending[0].shape[1] if self._pending else None

    @property
    def keeps_rows(self) -> bool:
        """Whether all samples are still there as they came."""
        return self._moments is None

    def memory(self, batch: Activations, rows: int | None) -> Memory:
        """Rows while they are few, half a matrix once they are more; see `Accumulator.memory`."""
        samples, width = batch.matrix(self.positions).shape
        row = width * batch.values.element_size()
        few = max(block_rows(width), width)
        if rows is None and self.positions == "features":
            rows = len(batch.values)  # each is one very wide sample; how many come nobody knows
        expected = None if rows is None else rows * samples // max(len(batch.values), 1)
        if expected is not None and expected <= few:
            return Memory(expected * row, 3 * expected * max(expected, width) * 8)
        # Two blocks of float64 while rows are folded in; three matrices for the eigenvalues.
        block = block_rows(width)
        held = triangle.size(width) * 8 + block * row
        return Memory(max(held, few * row), 8 * max(3 * width**2, 4 * block * width))

    def update(self, activations: Activations) -> None:
        """Take in one batch [.., features]; masked samples are left out."""
        rows = activations.matrix(self.positions)
        if rows.shape[0] == 0:
            return
        self._check_width(rows.shape[1])
        self._follow(rows.device)
        self._append(rows.detach())

    def merge(self, other: Self) -> None:
        """Take in everything `other` has seen."""
        if other.key() != self.key():
            raise StateError(f"{other.key()} cannot be merged into {self.key()}")
        if other.width is None:
            return
        self._check_width(other.width)
        self._forget()
        device = self._device()
        if other._moments is not None:
            self._fold()
            if self._moments is None:
                self._moments = Moments(other._moments.width, other._moments.mean.device)
            self._moments.merge(other._moments)
        for rows in other._pending:
            self._append(rows.to(device or self._device() or rows.device))

    def mean(self) -> Tensor:
        """float64 [width]; makes no matrix of width x width."""
        self._require(1)
        return self._mean_and_squares()[0].clone()

    def variances(self) -> Tensor:
        """float64 [width], the diagonal of the covariance; makes no matrix of width x width.

        Raises:
            DataError: for fewer than two samples.
        """
        self._require(2)
        return self._mean_and_squares()[1] / (self.n_samples - 1)

    def covariance(self) -> Tensor:
        """float64 [width, width], normalised by n_samples - 1.

        Raises:
            DataError: for fewer than two samples.
        """
        self._require(2)
        return self._folded().covariance()

    def multiplier(self) -> Callable[[Tensor], Tensor]:
        """What multiplies vectors [width, k] by the covariance; float64, on the vectors' device.

        It makes no matrix of width x width where fewer rows are kept.

        Raises:
            DataError: for fewer than two samples.
        """
        self._require(2)
        if self.keeps_rows and self.n_samples <= (self.width or 0):
            rows = self._centred_rows() / (self.n_samples - 1) ** 0.5
            return lambda vectors: (rows.T @ (rows @ vectors.to(rows))).to(vectors)
        matrix = self.covariance()
        return lambda vectors: (matrix @ vectors.to(matrix)).to(vectors)

    @contextmanager
    def reading(self) -> Iterator[None]:
        """While it lasts, what takes a while is worked out once, for all that a result asks.

        That is what rows not yet folded add, and the eigenvectors: more than a state may hold.
        Readings within one another are one.
        """
        if self._read is not None:
            yield
            return
        self._read = _Read()
        try:
            yield
        finally:
            self._read = None

    def _forget(self) -> None:
        """More samples have come."""
        self._eigenvalues = None
        self._read = None if self._read is None else _Read()

    def total_variance(self) -> float:
        """Trace of the covariance."""
        return float(self.variances().sum())

    def eigenvalues(self) -> Tensor:
        """float64 [min(width, n_samples - 1)], descending, never negative.

        With fewer samples than features they come from the n x n Gram matrix. The centred data has
        rank at most n - 1, and the eigenvalues beyond it are exactly zero and left out. They are
        worked out once: metrics that share this covariance share them.
        """
        if self._eigenvalues is None:
            self._eigenvalues, _ = self._decompose(vectors=False)
        return self._eigenvalues.clone()

    def eigenvectors(self, k: int | None = None) -> tuple[Tensor, Tensor]:
        """The leading `k` eigenvalues [k], descending, and eigenvectors [k, width], unit rows.

        The sign of each vector is fixed so that its entry of largest magnitude is positive.
        """
        held = self._read or _Read()
        if held.vectors is None:
            self._eigenvalues, held.vectors = self._decompose(vectors=True)
        values, vectors = self.eigenvalues(), held.vectors
        assert vectors is not None
        k = values.shape[0] if k is None else min(k, values.shape[0])
        vectors = vectors[:k]
        peak = vectors.gather(1, vectors.abs().argmax(dim=1, keepdim=True))
        return values[:k], vectors * torch.where(peak < 0, -1.0, 1.0)

    def leading_direction(self) -> Tensor:
        """float64 [width]: the unit eigenvector of the largest eigenvalue, by Lanczos iteration.

        Its sign makes the entry of largest magnitude positive. Costs a few products with a vector,
        far less than all eigenvectors.
        """
        self._require(2)
        width = self.width
        assert width is not None
        if (self._read or _Read()).vectors is not None:
            return self.eigenvectors(1)[1][0].cpu()
        if self.keeps_rows and self.n_samples <= width:
            found = decomposition.leading(self._centred_rows().cpu().numpy(), of_rows=True)
        else:
            found = decomposition.leading(self.covariance().cpu().numpy())
        return self.eigenvectors(1)[1][0].cpu() if found is None else found

    def without(self, rows: Tensor) -> Covariance:
        """What the samples without some of them give.

        Args:
            rows: [k, width], samples that were taken in, as they came.

        Raises:
            DataError: where fewer than two samples are left, or `rows` are none of these.
        """
        if len(rows) > self.n_samples - 2:
            raise DataError(
                f"{len(rows)} of {self.n_samples} samples leave no covariance; give more data"
            )
        left = self.fresh()
        if not self.keeps_rows:
            left._moments = self._folded().without(rows)
            return left
        held = torch.cat(self._pending)
        gone = torch.zeros(len(held), dtype=torch.bool, device=held.device)
        for row in rows.to(held):
            column = int(row.abs().argmax())  # most others differ there already
            near = (~gone & (held[:, column] == row[column])).nonzero().flatten()
            near = near[(held[near] == row).all(dim=1)]
            if not len(near):
                raise DataError("rows that never came cannot be taken out")
            gone[near[0]] = True
        left._append(held[~gone])
        return left

    def _decompose(self, *, vectors: bool) -> tuple[Tensor, Tensor | None]:
        self._require(2)
        width = self.width
        assert width is not None
        rank = min(width, self.n_samples - 1)
        if self.keeps_rows and self.n_samples <= width:
            rows = self._centred_rows()
            gram = rows @ rows.T / (self.n_samples - 1)
            values, basis = decomposition.eigen(gram, vectors=vectors)
            if basis is None:
                return decomposition.descending(values, rank), None
            found = (rows.T @ basis).T.flip(0)[:rank]
            return decomposition.descending(values, rank), found / found.norm(
                dim=1, keepdim=True
            ).clamp_min(torch.finfo(torch.float64).tiny)
        values, basis = decomposition.eigen(self.covariance(), vectors=vectors)
        return decomposition.descending(values, rank), None if basis is None else basis.T.flip(0)[
            :rank
        ]

    def state(self) -> dict[str, Tensor]:
        """count, mean, packed lower triangle of the scatter, and the rows not yet folded."""
        count = 0 if self._moments is None else self._moments.count
        state = {"count": torch.tensor(count, dtype=torch.int64)}
        if self._moments is not None:
            state |= self._moments.state()
        if self._pending:
            state["rows"] = torch.cat(self._pending).cpu()
        return state

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Replace what has been seen by `state`."""
        fresh = self.fresh()
        try:
            count = int(state["count"])
            if "mean" in state:
                fresh._moments = Moments.of_state(count, state)
            elif count:
                raise StateError("the saved covariance counts samples and has no mean")
            if "rows" in state:
                fresh._append(state["rows"])
        except (KeyError, ValueError, IndexError, RuntimeError) as error:
            raise StateError(f"the saved covariance is damaged: {error}") from error
        self.__dict__.update(fresh.__dict__)

    # -- rows ------------------------------------------------------------------------------------

    def _device(self) -> torch.device | None:
        held = self._pending if self._moments is None else [self._moments.mean]
        return held[0].device if held else None

    def _follow(self, device: torch.device) -> None:
        """Go where the rows are: a state that was loaded is on the CPU."""
        if self._device() in (None, device):
            return
        self._pending = [rows.to(device) for rows in self._pending]
        if self._moments is not None:
            self._moments = self._moments.to(device)

    def _append(self, rows: Tensor) -> None:
        """Fold `rows`, or keep a copy of them until they are many enough."""
        self._forget()
        width = rows.shape[1]
        if self._moments is not None and not self._pending and len(rows) >= _direct_rows(width):
            self._moments.add([rows], self._dtype([rows]))
            return
        limit = max(block_rows(width), width if self.keeps_rows else 0)
        for part in torch.split(rows, limit):
            self._pending.append(part.clone(memory_format=torch.contiguous_format))
            self._n_pending += part.shape[0]
            if self._n_pending > limit:
                self._fold()
                limit = block_rows(width)
        held = sum(r.numel() * r.element_size() for r in self._pending)
        if held > MAX_ROW_BYTES:
            n = self._n_pending
            self._pending, self._n_pending = [], 0
            raise DataError(
                f"{n} samples of width {width} exceed {MAX_ROW_BYTES / 2**30:.0f} GiB and the "
                f"covariance would need {width**2 * 8 / 2**30:.0f} GiB; use positions='samples', "
                "a narrower site, or fewer samples"
            )

    def _fold(self) -> None:
        """Move the pending rows into the moments."""
        pending, self._pending, self._n_pending = self._pending, [], 0
        if not pending:
            return
        if self._moments is None:
            self._moments = Moments(pending[0].shape[1], pending[0].device)
        self._moments.add(pending, self._dtype(pending))

    def _dtype(self, parts: list[Tensor]) -> torch.dtype:
        """Of the products of these rows."""
        narrow = self.precision == "float32" and all(p.dtype != torch.float64 for p in parts)
        return torch.float32 if narrow else torch.float64

    def _centred_rows(self) -> Tensor:
        rows = torch.cat([r.double() for r in self._pending])
        return rows - rows.mean(dim=0)

    def _mean_and_squares(self) -> tuple[Tensor, Tensor]:
        """Mean and sum of squared deviations of each feature, float64 [width] each."""
        held = self._read or _Read()
        if held.squares is None:
            held.squares = self._summed()
        return held.squares

    def _summed(self) -> tuple[Tensor, Tensor]:
        parts = []
        if self._moments is not None:
            parts.append((self._moments.count, self._moments.mean, self._moments.squares()))
        for pending in self._pending:
            rows = pending.double()
            mean = rows.mean(dim=0)
            parts.append((rows.shape[0], mean, (rows - mean).square().sum(dim=0)))
        count, mean, squares = parts[0][0], parts[0][1].clone(), parts[0][2].clone()
        for more, other, other_squares in parts[1:]:
            delta = other.to(mean.device) - mean
            squares += other_squares.to(mean.device)
            squares += delta.square() * (count * more / (count + more))
            mean += delta * (more / (count + more))
            count += more
        return mean, squares

    def _folded(self) -> Moments:
        """The moments of all samples, without folding any: reading must not change the state."""
        if self._moments is not None and not self._pending:
            return self._moments
        held = self._read or _Read()  # one name: another thread's reading may end meanwhile
        if held.total is None:
            first = self._pending[0]
            total = (
                Moments(first.shape[1], first.device)
                if self._moments is None
                else self._moments.to(first.device, copy=True)
            )
            total.add(self._pending, self._dtype(self._pending))
            held.total = total
        return held.total

    def _check_width(self, width: int) -> None:
        if self.width is not None and self.width != width:
            raise DataError(
                f"activations of width {width} follow ones of width {self.width}; a site must keep "
                "its width (inputs of one size, or positions='samples')"
            )

    def _require(self, n: int) -> None:
        if self.n_samples < n:
            raise DataError(
                f"a covariance needs at least {n} samples and {self.n_samples} came; give more "
                "data, or check that the mask leaves some"
            )


def _direct_rows(width: int) -> int:
    """Rows that are worth a product of their own, beside the pass over the scatter it takes."""
    return 2 * width
