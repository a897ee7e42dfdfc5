"""What tells how many independent samples a stream of correlated ones is worth.

The tokens of a text are correlated, those of different documents are not. So documents are dealt
into groups, and a sketch of the activations, their projection to a few random directions, gets a
mean and a scatter matrix for each group, of which `dependence` makes sense. Beside them stand
groups into which the samples are dealt one by one. All of it takes up to 4 MB for each site.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from polycode_plugins.activations import Activations, Positions
from polycode_plugins.devices import HOST, moved
from polycode_plugins.errors import DataError, StateError
from polycode_plugins.metrics.accumulators import Covariance
from polycode_plugins.metrics.base import Accumulator
from polycode_plugins.metrics.spectrum.rows.correlation import GROUPS, INDEPENDENT
from polycode_plugins.metrics.spectrum.rows.dependence import (
    Array,
    RowDependence,
    dependence,
    divided,
)
from polycode_plugins.metrics.spectrum.rows.sketch import SKETCH, basis_of, steep, sums_by_group
from polycode_plugins.row_names import content, mixed

PENDING_NAMES = ("rows", "row_documents", "row_singles")
PENDING = 8192  # samples of the sketch kept before they are dealt out
STEP = 29  # no simple fraction of GROUPS
MOST_KNOWN = 2**16  # rows without a number that are known again
AGAIN = 0x9E3779B97F4A7C1  # tells the times of a row apart
EXACT = 1700  # width to which all eigenvectors take less time, and no more memory than a fold
LANCZOS = 32  # nodes by which the spectral measure of a direction is known


Pending = tuple[Tensor, Tensor, Tensor]


class RowGroups(Accumulator):
    """Means and scatter matrices of a sketch of the activations, by groups of documents.

    A sample belongs to its document (`Activations.documents`), else to its row, which then is a
    document. Rows without a number are known by their values: in whatever batches, accumulators
    and processes they come, they fall into the same groups. A row that comes again is one document
    with the first, and other samples of it, as far as its first `MOST_KNOWN` rows tell; of rows
    that are repeated in two accumulators that are merged that is not known.

    Args:
        positions: whether positions are "samples" or "features", as for `Covariance`.
    """

    name = "row-groups"

    def __init__(self, positions: Positions = "samples") -> None:
        self.positions = positions
        self._basis: Tensor | None = None  # [width, sketch]
        # First the groups of documents, then those of single samples.
        self._counts = torch.zeros(2 * GROUPS, dtype=torch.int64)
        self._means = torch.zeros(2 * GROUPS, 0, dtype=torch.float64)
        self._scatters = torch.zeros(2 * GROUPS, 0, 0, dtype=torch.float64)
        self._width: int | None = None
        # Sketch, where the activations are, and both groups, on the CPU.
        self._pending: list[Pending] = []
        self._n_pending = 0
        self._known: tuple[bool, RowDependence] | None = None  # what the groups say, once asked for
        # Of rows without a number: their names, ascending, and how often each has come.
        self._names = torch.zeros(0, dtype=torch.int64)
        self._times = torch.zeros(0, dtype=torch.int64)

    def options(self) -> dict[str, Any]:
        """The settings that define the statistic."""
        return {"positions": self.positions}

    @property
    def n_samples(self) -> int:
        """Samples taken in so far."""
        return int(self._counts[:GROUPS].sum()) + self._n_pending

    def update(self, activations: Activations) -> None:
        """Take in one batch [.., features]; masked samples are left out."""
        rows = activations.matrix(self.positions).detach()
        if rows.shape[0] == 0:
            return
        self._begin(rows.shape[1])
        self._known = None
        # The samples' dependence is known to a percent at best: float32 is enough for it.
        rows = rows if rows.dtype == torch.float64 else rows.float()
        basis = self._basis
        if basis is None or basis.device != rows.device or basis.dtype != rows.dtype:
            basis = self._basis = basis_of(rows.shape[1]).to(rows)
        if activations.rows is None:  # by their values
            groups = self._groups(activations)
        else:
            name = f"groups of {self.positions}"
            groups = activations.once(name, partial(self._groups, activations))
        self._follow(rows.device)
        self._pending.append((rows @ basis, *groups))
        self._n_pending += rows.shape[0]
        if self._n_pending > PENDING:
            self._fold()

    def _follow(self, device: torch.device) -> None:
        """Go where the rows are: a state that was loaded is on the CPU."""
        if self._means.device != device:
            self._means, self._scatters = (moved(t, device) for t in (self._means, self._scatters))
            self._pending = _moved(self._pending, device)

    def _fold(self) -> None:
        """Move the pending samples into the groups: many at a time, since there are many groups."""
        if not self._pending:
            return
        values, documents, single = (torch.cat(part) for part in zip(*self._pending, strict=True))
        self._pending, self._n_pending = [], 0
        origin = values.mean(dim=0)
        values -= origin
        low, high = values.aminmax()
        scale = torch.maximum(-low, high).double()
        ordinary = (scale > 1e-12) & (scale < 1e12) | (scale == 0)
        scale = scale.masked_fill(ordinary, 1.0)
        values /= scale  # float32 has no room for very large or small squares
        groups = torch.cat([documents, single])
        if values.device.type != "cpu":
            values = values.double()  # dearer, and less so than to wait for what `steep` says
        counts, sums, products = sums_by_group(values, groups)
        if values.dtype != torch.float64 and steep(products[:GROUPS].sum(dim=0)):
            values = values.double()
            counts, sums, products = sums_by_group(values, groups)
        many = moved(counts, values.device)
        means = sums / many.clamp_min(1)[:, None]
        products.baddbmm_(means[:, :, None], sums[:, None, :], alpha=-1)
        self._add(counts, means * scale + origin, products.mul_(scale**2))

    def _folded(self) -> Self:
        """Self with everything dealt out, without dealing in self: reading changes no state."""
        if not self._pending:
            return self
        total = self.fresh()
        total._width = self._width
        total._counts, total._means = self._counts.clone(), self._means.clone()
        total._scatters = self._scatters.clone()
        total._pending, total._n_pending = list(self._pending), self._n_pending
        total._fold()
        return total

    def merge(self, other: Self) -> None:
        """Take in everything `other` has seen."""
        if other.key() != self.key():
            raise StateError(f"{other.key()} cannot be merged into {self.key()}")
        if other._width is None:
            return
        self._begin(other._width)
        self._known = None
        device = self._means.device
        self._pending += _moved(other._pending, device)
        self._n_pending += other._n_pending
        self._add(other._counts, moved(other._means, device), moved(other._scatters, device))
        self._note(other._names, other._times)
        if self._n_pending > PENDING:
            self._fold()

    def dependence(self, covariance: Covariance | None = None) -> RowDependence:
        """What the groups say; for what it takes to be measured see `divided`.

        covariance: of the same samples, to find the ranks of the sketch's directions. Without it
        the correlation is taken to be alike in all directions.
        """
        if self._known is not None and self._known[0] == (covariance is None):
            return self._known[1]
        found = self._dependence(covariance)
        self._known = covariance is None, found
        return found

    def _dependence(self, covariance: Covariance | None) -> RowDependence:
        total = self._folded()
        groups = int((total._counts[:GROUPS] > 0).sum())
        held = tuple(t.cpu().numpy() for t in (total._counts, total._means, total._scatters))
        documents = divided(*(values[:GROUPS] for values in held))
        if documents is None:
            return RowDependence(INDEPENDENT, INDEPENDENT, None, None, None, groups)
        singles = divided(*(values[GROUPS:] for values in held))
        ranks = None
        if covariance is not None and self._width is not None:
            basis = basis_of(self._width)

            def ranks(directions: Array) -> tuple[Array, Array]:
                turned = basis[:, : len(directions)] @ torch.from_numpy(directions)
                return ranks_of(covariance, turned)

        return dependence(documents, singles, ranks)

    def state(self) -> dict[str, Tensor]:
        """Counts of all groups, means and scatter matrices of those that have samples, and the
        samples not yet dealt out."""
        state = {"counts": self._counts.clone()}
        if self._width is not None:
            kept = self._counts > 0
            lower = torch.tril_indices(*self._scatters.shape[1:])
            state["means"] = self._means.cpu()[kept]
            state["scatters"] = self._scatters.cpu()[kept][:, lower[0], lower[1]]
            state["width"] = torch.tensor(self._width)
        if self._pending:
            for name, parts in zip(PENDING_NAMES, zip(*self._pending, strict=True), strict=True):
                state[name] = torch.cat(parts).cpu()
        if len(self._names):
            state["names"] = torch.stack([self._names, self._times])
        return state

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Replace what has been seen by `state`."""
        fresh = self.fresh()
        try:
            counts = state["counts"].clone()
            if counts.shape != (2 * GROUPS,):
                raise StateError(f"the saved row groups are not {2 * GROUPS} groups")
            if "width" in state:
                fresh._begin(int(state["width"]))
                lower = torch.tril_indices(*fresh._scatters.shape[1:])
                kept = counts.nonzero().flatten()
                fresh._means[kept] = state["means"].double()
                packed = state["scatters"].double()
                fresh._scatters[kept[:, None], lower[0], lower[1]] = packed
                fresh._scatters[kept[:, None], lower[1], lower[0]] = packed
            elif bool(counts.any()):
                raise StateError("the saved row groups count samples and have no width")
            fresh._counts = counts
            if PENDING_NAMES[0] in state:
                values, documents, single = (state[name].clone() for name in PENDING_NAMES)
                if values.shape != (len(documents), fresh._means.shape[1]):
                    raise StateError("the saved row groups do not fit their width")
                fresh._pending, fresh._n_pending = [(values, documents, single)], len(values)
            if "names" in state:
                fresh._names, fresh._times = state["names"].clone().to(torch.int64).unbind()
        except (KeyError, ValueError, IndexError, RuntimeError) as error:
            raise StateError(f"the saved row groups are damaged: {error}") from error
        self.__dict__.update(fresh.__dict__)

    def _begin(self, width: int) -> None:
        if self._width is None:
            size = min(SKETCH, width)
            self._width = width
            self._means = torch.zeros(2 * GROUPS, size, dtype=torch.float64)
            self._scatters = torch.zeros(2 * GROUPS, size, size, dtype=torch.float64)
        elif self._width != width:
            raise DataError(
                f"activations of width {width} follow ones of width {self._width}; a site must "
                "keep its width (inputs of one size, or positions='samples')"
            )

    def _groups(self, activations: Activations) -> tuple[Tensor, Tensor]:
        """int32 [samples] twice, on the CPU: the group by document and by sample of every line of
        the matrix."""
        size = activations.values.shape[0]
        known = activations.rows
        if known is None:
            known = content(activations.values.detach().reshape(size, -1))
            names = mixed(known, GROUPS)
            # A repeated sample is another one, of the same document.
            rows = mixed(known + self._again(known) * AGAIN, GROUPS)
        else:
            names = rows = mixed(known.cpu().to(torch.int64), GROUPS)
        documents = activations.documents
        if documents is not None:
            # A row that is one sample of several documents is named by the first.
            names = documents if documents.dim() == 1 else documents[:, 0]
            names = mixed(names.cpu().to(torch.int64), GROUPS)
        if self.positions == "samples":
            of = activations.sample_rows(HOST)
        else:
            mask = activations.mask
            whole = torch.ones(size, dtype=torch.bool) if mask is None else mask.cpu()
            of = whole.reshape(size, -1).all(dim=1).nonzero().flatten()
        held = torch.bincount(of, minlength=size)
        place = torch.arange(len(of)) - (held.cumsum(0) - held)[of]
        # Each row is dealt round, from where its document is, so that a row with one sample is
        # dealt alike both ways and cannot seem correlated; a step aside after each round, for
        # images.
        single = (rows[of] + place + place // GROUPS * STEP) % GROUPS
        groups = names[of]
        if documents is not None and documents.dim() > 1 and self.positions == "samples":
            several = activations.sample_documents(HOST)
            assert several is not None
            groups = mixed(several.to(torch.int64), GROUPS)
        return groups.to(torch.int32), (GROUPS + single).to(torch.int32)

    def _again(self, names: Tensor) -> Tensor:
        """int64 [rows]: how often each of these rows has come before."""
        order = names.argsort(stable=True)
        unique, counts = torch.unique(names, return_counts=True)
        before = torch.zeros_like(unique)
        if len(self._names):
            place = torch.searchsorted(self._names, unique).clamp_max(len(self._names) - 1)
            before = torch.where(self._names[place] == unique, self._times[place], 0)
        first = counts.cumsum(0) - counts
        within = torch.arange(len(names)) - first.repeat_interleave(counts)
        found = torch.empty_like(names)
        found[order] = within + before.repeat_interleave(counts)
        self._note(unique, counts)
        return found

    def _note(self, names: Tensor, times: Tensor) -> None:
        """Count rows of these names, ascending, as far as there is room for new ones."""
        if not len(names):
            return
        place = torch.searchsorted(self._names, names)
        held = torch.zeros_like(names, dtype=torch.bool)
        if len(self._names):
            held = self._names[place.clamp_max(len(self._names) - 1)] == names
        self._times = self._times.index_add(0, place[held], times[held])
        new = (~held).nonzero().flatten()[: max(0, MOST_KNOWN - len(self._names))]
        if len(new):
            self._names, order = torch.cat([self._names, names[new]]).sort()
            self._times = torch.cat([self._times, times[new]])[order]

    def _add(self, counts: Tensor, means: Tensor, scatters: Tensor) -> None:
        """Chan's merge of the moments of all groups."""
        total = self._counts + counts
        share = counts / total.clamp_min(1)
        weight = moved(self._counts * share, means.device)
        delta = means - self._means
        self._scatters += scatters
        self._scatters.baddbmm_((delta * weight[:, None])[:, :, None], delta[:, None])
        self._means += delta * moved(share, means.device)[:, None]
        self._counts = total


def _moved(pending: list[Pending], device: torch.device) -> list[Pending]:
    return [(moved(values, device), documents, single) for values, documents, single in pending]


def ranks_of(covariance: Covariance, directions: Tensor) -> tuple[Array, Array]:
    """Where the variance of combinations of features comes from, among the ranks of the spectrum.

    The spectral measure of each direction: by all eigenvectors up to a width of 1700, which takes
    less time, and above by Gaussian quadrature from Lanczos steps (Golub & Meurant 1994).

    directions: [width, k]. Returns ranks [k, nodes], from 1 and not whole ([1, nodes] where all
    have the same), and the shares of the direction's variance [k, nodes].
    """
    directions = directions / directions.norm(dim=0)
    if len(directions) <= EXACT:
        found, vectors = covariance.eigenvectors()
        shares = (vectors.cpu() @ directions).T.square() * found.cpu().clamp_min(0)
        weights = (shares / shares.sum(dim=1, keepdim=True)).numpy()
        return np.arange(1.0, len(found) + 1)[None], weights
    values = covariance.eigenvalues().cpu().numpy()
    values = values[values > values[0] * 1e-14]
    times, now = covariance.multiplier(), directions
    size = torch.zeros(now.shape[1], dtype=now.dtype)
    diagonal, beside, basis = [], [], []
    for _ in range(min(LANCZOS, len(values))):
        basis.append(now)
        image = times(now)
        diagonal.append((image * now).sum(dim=0))
        # Against all of them: a vector that leans on an earlier one doubles nodes by the chance of
        # rounding, and with them the ranks of all that is solved for.
        for earlier in basis:
            image -= earlier * (image * earlier).sum(dim=0)
        size = image.norm(dim=0)
        beside.append(size)
        now = image / size.clamp_min(1e-300)
    steps, count = len(diagonal), directions.shape[1]
    matrix = torch.zeros(count, steps, steps, dtype=torch.float64)
    for k in range(steps):
        matrix[:, k, k] = diagonal[k]
        if k + 1 < steps:
            matrix[:, k, k + 1] = matrix[:, k + 1, k] = beside[k]
    nodes, vectors = (part.numpy() for part in torch.linalg.eigh(matrix))
    nodes = np.maximum(nodes, 0.0)
    weights = vectors[:, 0] ** 2 * nodes
    logs = np.log(np.clip(nodes, values[-1], values[0]))
    ranks = np.interp(-logs, -np.log(values), np.log(np.arange(1.0, len(values) + 1)))
    return np.exp(ranks), weights / weights.sum(axis=1, keepdims=True)
