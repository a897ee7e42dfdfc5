"""How the code moves: the second moment of the differences between successive points of a path.

A path runs along the positions of one row (the tokens of a text) or along the rows of the data (the
frames of a stimulus). Rows come in batches and shards, so where a run of rows ends its edge rows
are kept until the neighbour arrives, in this accumulator or in one it is merged with.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, Literal, Self, get_args

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from polycode_plugins.activations import POSITION_AXES, Activations, Positions
from polycode_plugins.devices import moved
from polycode_plugins.errors import DataError, StateError
from polycode_plugins.metrics.accumulators import Covariance, Precision
from polycode_plugins.metrics.action.runs import Runs
from polycode_plugins.metrics.action.spread import Spread
from polycode_plugins.metrics.base import Accumulator, Memory
from polycode_plugins.metrics.decomposition import descending, eigen

Along = Literal["position", "rows"]

BLOCK_VALUES = 1_000_000  # activations converted to float64 at a time


class Increments(Accumulator):
    """Increments d_t = a_{t+1} - a_t along paths, and the total variance of the points on them.

    Only S = sum_t d_t d_t^T, counts, and the mean and variance of the points are kept; S as the
    increments themselves while these are not more than the width, as in `Covariance`. Any batch
    size, order of rows and merge tree gives the same numbers to about 1e-12 of their scale.

    Along "position" each row of the batch is a path, and an increment needs both of its positions
    unmasked. Along "rows" successive rows of the data (by `Activations.rows`) follow one another,
    and a row that is masked or missing ends a path. Rows that came without a number (in somebody
    else's forward passes) follow one another in order of arrival; those of two accumulators that
    are merged are different paths.

    Args:
        path: "position" or "rows"; None takes the positions where a site has them and they are
            samples, and the rows otherwise. (The patches of a vision transformer are positions:
            for its path along images say "rows".)
        positions: along rows, "features" (the default) makes a row one point of channels x
            positions; "samples" makes every position a path of its own with as many features as
            there are channels. Along positions they are samples.
        precision: of the products, see `Covariance`; with "float32" the differences of inputs of
            lower precision than float64 are rounded to it too.
    """

    name = "increments"

    def __init__(
        self,
        path: Along | None = None,
        positions: Positions | None = None,
        precision: Precision = "float64",
    ) -> None:
        if path is not None and path not in get_args(Along):
            raise DataError(f"path is 'position', 'rows' or None, not {path!r}")
        if positions is not None and positions not in get_args(Positions):
            raise DataError(f"positions is 'samples', 'features' or None, not {positions!r}")
        if path == "position" and positions == "features":
            raise DataError(
                "positions='features' makes one point of all positions, so there is no path along "
                "them; use path='rows' or positions='samples'"
            )
        self._asked, self._positions = path, positions
        self.precision = precision
        self.path: Along | None = path
        self._steps = Covariance("samples", precision)
        self._points = Spread()
        # Along positions sum_t ||d_t||^2 of each path, as vectors [1].
        self._energies = Spread()
        self._runs = Runs()
        self._next: int | None = None  # number of the next row that has none of its own

    def options(self) -> dict[str, Any]:
        """The settings that define the statistic."""
        return {"path": self._asked, "positions": self._positions, "precision": self.precision}

    @property
    def positions(self) -> Positions:
        """Whether positions are "samples" or "features", once `path` is known."""
        return self._positions or _positions_on(self.path)

    @property
    def n_samples(self) -> int:
        """Points taken in so far, on paths of any length."""
        return self._points.count

    @property
    def n_steps(self) -> int:
        """Increments so far."""
        return self._steps.n_samples

    @property
    def n_paths(self) -> int:
        """Paths of at least two points so far."""
        return self._energies.count if self.path != "rows" else self._runs.n_paths

    @property
    def width(self) -> int | None:
        """Features per point, None before the first batch."""
        return None if self._points.mean is None else self._points.mean.shape[0]

    def memory(self, batch: Activations, rows: int | None) -> Memory:
        """That of the increments' covariance; see `Accumulator.memory`."""
        return Covariance(self.positions, self.precision).memory(batch, rows)

    # -- gathering -------------------------------------------------------------------------------

    def update(self, activations: Activations) -> None:
        """Take in one batch.

        Raises:
            DataError: for axes without the path asked for, another width than before, a row that
                came before, and rows whose neighbours stay away for so long that the rows kept for
                them exceed their limit.
        """
        if not activations.values.numel():
            return
        path, points, mask = lay_out(activations, self._asked, self._positions)
        if self.path is not None and path != self.path:
            raise DataError(f"a path along {path} follows ones along {self.path}; keep the layout")
        self.path = path
        self._check_width(points.shape[2])
        if path == "position":
            together = _together(activations)
            start = 0
            for rows, kept in _parts(points, mask):
                stop = start + rows.shape[0]
                self._along_positions(
                    rows, kept, None if together is None else together[start:stop]
                )
                start = stop
        else:
            self._along_rows(points, mask, activations.rows)

    def _along_positions(
        self,
        points: Float[Tensor, "row position width"],
        mask: Bool[Tensor, "row _"] | None,
        together: Bool[Tensor, "row step"] | None = None,
    ) -> None:
        """Points of which every row is a path.

        `together` is False where one document ends in a row and another begins.
        """
        if mask is None:
            mask = torch.ones(points.shape[:2], dtype=torch.bool)
        mask = mask.expand(points.shape[:2])
        self._points.take(_lines(points, mask))
        both = mask[:, 1:] & mask[:, :-1]
        if together is not None:
            both = both & together
        steps = self._difference(points[:, 1:], points[:, :-1])
        squares = steps.double().square().sum(dim=2)
        along = torch.where(moved(both, squares.device), squares, 0.0).sum(dim=1)
        self._energies.take(_lines(along, both.any(dim=1))[:, None])
        self._take_steps(_lines(steps, both))

    def _along_rows(
        self,
        points: Float[Tensor, "row lane width"],
        mask: Bool[Tensor, "row _"] | None,
        rows: Int64[Tensor, " row"] | None,
    ) -> None:
        """Row after row along each lane."""
        numbers = self._numbers(points.shape[0], rows)
        kept = list(range(points.shape[0]))
        if mask is not None:
            whole = mask.all(dim=1)
            if not bool((whole == mask.any(dim=1)).all()):
                raise DataError(
                    "a path along rows needs every position of a row, and some rows are partly "
                    "masked; use path='position' or data without padding"
                )
            kept = whole.nonzero().flatten().tolist()
        for start, stop in consecutive([numbers[i] for i in kept]):
            block = points[kept[start] : kept[stop - 1] + 1]
            first, last = numbers[kept[start]], numbers[kept[stop - 1]]
            head = block[0].clone()
            tail = block[-1].clone() if last > first else head
            before, after = self._runs.join(first, last, head, tail)
            self._bridge(before, block[0])
            for part, _ in _parts(block, None, overlap=1):
                steps = self._difference(part[1:], part[:-1])
                self._take_steps(rearrange(steps, "step lane width -> (step lane) width"))
            for part, _ in _parts(block, None):
                self._points.take(rearrange(part, "row lane width -> (row lane) width"))
            self._bridge(block[-1], after)
        self._runs.check_size()

    def _numbers(self, count: int, rows: Tensor | None) -> list[int]:
        unnumbered = self._next is not None
        mixed = unnumbered if rows is not None else self.n_samples > 0 and not unnumbered
        if mixed:
            raise DataError(
                "rows with and without a number came from one site, so their order is unknown; "
                "number all of them or none"
            )
        if rows is not None:
            return [int(i) for i in rows]
        start = self._next or 0
        self._next = start + count
        return list(range(start, start + count))

    def _bridge(self, before: Tensor | None, after: Tensor | None) -> None:
        """Count in the increment between two rows [lanes, width], if both are there."""
        if before is not None and after is not None:
            self._take_steps(self._difference(after, before.to(after.device)))

    def _difference(self, after: Tensor, before: Tensor) -> Tensor:
        lower = torch.promote_types(after.dtype, torch.float32)
        dtype = torch.float64 if self.precision == "float64" else lower
        return after.to(dtype) - before.to(dtype)

    def _take_steps(self, steps: Tensor) -> None:
        if steps.shape[0]:
            self._steps.update(Activations(steps, ("batch", "feature")))

    def merge(self, other: Self) -> None:
        """Take in everything `other` has seen; runs of rows that become neighbours are joined."""
        if other.key() != self.key():
            raise StateError(f"{other.key()} cannot be merged into {self.key()}")
        if other.width is None:
            return
        if self.width is not None:
            if other.path != self.path:
                raise DataError(f"paths along {other.path} cannot be merged with {self.path}")
            if (other._next is None) != (self._next is None):
                raise DataError(
                    "rows with and without a number cannot be merged: their order is unknown"
                )
        self._check_width(other.width)
        self.path = other.path
        offset = 0
        if other._next is not None:
            # A number is left out in between, so that the two never become neighbours.
            offset = 0 if self._next is None else self._next + 1
            self._next = offset + other._next
        self._points.merge(other._points)
        self._energies.merge(other._energies)
        self._steps.merge(other._steps)
        for first, last, head, tail in list(other._runs):
            before, after = self._runs.join(first + offset, last + offset, head, tail)
            self._bridge(before, head)
            self._bridge(tail, after)
        self._runs.check_size()

    # -- reading ---------------------------------------------------------------------------------

    def total_variance(self) -> float:
        """Sum over features of the variance of the points (over n_samples - 1); 0 below two."""
        return self._points.variance()

    def mean(self) -> Tensor:
        """float64 [width], of the points."""
        if self._points.mean is None:
            raise DataError("a mean needs at least one point and none came")
        return self._points.mean.cpu().clone()

    def path_energies(self) -> tuple[int, float, float]:
        """Number of paths, mean and sample variance over them of sum_t ||d_t||^2.

        Along positions only, where paths are never in parts; (0, 0, 0) along rows.
        """
        energies = self._energies
        mean = 0.0 if energies.mean is None else float(energies.mean)
        return energies.count, mean, energies.variance()

    def second_moment(self) -> Tensor:
        """S = sum_t d_t d_t^T, float64 [width, width]."""
        n, width = self._require_steps()
        if n <= width:
            rows = self._kept_steps().double()
            return torch.mm(rows.T, rows)
        mean = self._steps.mean()
        # The increments are gathered centred, which loses no digits; S is about zero.
        moment = self._steps.covariance().mul_(n - 1)
        return moment.addr_(mean, mean, alpha=n)

    def eigenvalues(self) -> Tensor:
        """Those of S, float64 [min(n_steps, width)], descending, never negative.

        With fewer steps than features they come from the Gram matrix d_s . d_t, so that no matrix
        of width x width is made.
        """
        n, width = self._require_steps()
        if n > width:
            return _eigenvalues(self.second_moment())
        gram = torch.zeros(n, n, dtype=torch.float64)
        for part in torch.split(self._kept_steps(), max(1, BLOCK_VALUES // n), dim=1):
            panel = part.double()
            gram.addmm_(panel, panel.T)
        return _eigenvalues(gram)

    def _kept_steps(self) -> Tensor:
        return self._steps.state()["rows"]  # Covariance keeps rows up to its width at least

    def _require_steps(self) -> tuple[int, int]:
        n, width = self.n_steps, self._steps.width
        if width is None:
            raise DataError(
                f"no two successive points are among the {self.n_samples} that came, so there is "
                "no path; give at least two unmasked positions, or rows that follow one another (a "
                "shard of every n-th row holds none: use one process, or torchrun, which merges)"
            )
        return n, width

    # -- state -----------------------------------------------------------------------------------

    def state(self) -> dict[str, Tensor]:
        """Counts, mean and spread of the points, edge rows of the runs, and S."""
        state = {f"steps.{name}": tensor for name, tensor in self._steps.state().items()}
        if self._points.mean is None or self.path is None:
            return state
        along = get_args(Along).index(self.path)
        paths, energy, _ = self.path_energies()
        following = -1 if self._next is None else self._next
        state["counts"] = torch.tensor([along, self.n_samples, paths, following])
        state["sums"] = torch.tensor(
            [float(self._points.sum), energy, float(self._energies.sum)], dtype=torch.float64
        )
        state["mean"] = self._points.mean.cpu().clone()
        return state | self._runs.state()

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Replace what has been seen by `state`."""
        fresh = self.fresh()
        prefix = "steps."
        fresh._steps.load_state(
            {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
        )
        try:
            if "counts" in state:
                along, points, paths, following = (int(c) for c in state["counts"])
                spread, energy, energy_spread = state["sums"].double().clone()
                fresh.path = get_args(Along)[along]
                fresh._next = None if following < 0 else following
                fresh._points = Spread(points, state["mean"].double().clone(), spread)
                if paths:
                    fresh._energies = Spread(paths, energy[None].clone(), energy_spread)
                fresh._runs = Runs.from_state(state)
            elif fresh._steps.n_samples:
                raise StateError("the saved increments have no points")
            if fresh._steps.width not in (None, fresh.width):
                raise StateError("the saved increments differ in width from their points")
        except (KeyError, ValueError, IndexError, RuntimeError) as error:
            raise StateError(f"the saved increments are damaged: {error}") from error
        self.__dict__.update(fresh.__dict__)

    def _check_width(self, width: int) -> None:
        if self.width not in (None, width):
            raise DataError(
                f"points of width {width} follow ones of width {self.width}; a site must keep its "
                "width (inputs of one size, or positions='samples')"
            )


def _together(activations: Activations) -> Tensor | None:
    """bool [rows, positions - 1] on the CPU, whether neighbours are of one document; None where
    rows are."""
    documents = activations.documents
    if documents is None or documents.dim() == 1:
        return None
    documents = documents.cpu()
    return documents[:, 1:] == documents[:, :-1]


def lay_out(
    activations: Activations, path: Along | None, positions: Positions | None
) -> tuple[Along, Tensor, Tensor | None]:
    """The direction of the paths, points [rows, places, width], mask [rows, places or 1] or None.

    The mask is on the CPU.
    `path` and `positions` are those asked for, see `Increments`.

    Raises:
        DataError: for axes without the path asked for.
    """
    axes = activations.axes
    if path is None:
        path = "position" if positions != "features" and "position" in axes else "rows"
    places = [axis for axis in axes if axis in POSITION_AXES]
    if path == "position" and places != ["position"]:
        raise DataError(
            f"a path along positions needs one position axis, and the axes are {', '.join(axes)}; "
            "use path='rows'"
        )
    # Masked values may be anything, NaN too: they are left out only after the layout.
    whole = replace(activations, mask=None).matrix(positions or _positions_on(path))
    batch = activations.values.shape[0]
    points = rearrange(whole, "(batch place) width -> batch place width", batch=batch).detach()
    mask = activations.mask
    if mask is not None:
        mask = rearrange(mask.cpu(), "batch ... -> batch (...)")
    return path, points, mask


def _lines(values: Tensor, chosen: Tensor) -> Tensor:
    """values[chosen], for a mask on the CPU of the first axes."""
    at = chosen.flatten().nonzero().flatten()
    return values.flatten(0, chosen.dim() - 1).index_select(0, moved(at, values.device))


def _positions_on(path: Along | None) -> Positions:
    return "features" if path == "rows" else "samples"


def _eigenvalues(symmetric: Tensor) -> Tensor:
    values, _ = eigen(symmetric, vectors=False)
    return descending(values, len(values))


def _parts(
    points: Tensor, mask: Tensor | None, *, overlap: int = 0
) -> Iterator[tuple[Tensor, Tensor | None]]:
    """Rows of `points` [rows, ...] and of its mask in parts of bounded size.

    With `overlap` each part begins with the last rows of the one before it.
    """
    size = max(1, BLOCK_VALUES // max(1, points[0].numel()))
    for start in range(0, points.shape[0] - overlap, size):
        stop = start + size + overlap
        yield points[start:stop], None if mask is None else mask[start:stop]


def consecutive(numbers: list[int]) -> Iterator[tuple[int, int]]:
    """Slices (start, stop) of `numbers` within which each is one more than the one before."""
    start = 0
    for at in range(1, len(numbers) + 1):
        if at == len(numbers) or numbers[at] != numbers[at - 1] + 1:
            yield start, at
            start = at
