"""The accumulators of every site, shared between the metrics that need the same ones.

This is the sink of a capture: `analyze`, `attach` and `measure` differ only in who runs the model.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor

from polycode_plugins.activations import Activations, Site
from polycode_plugins.devices import on_host
from polycode_plugins.errors import DataError, PolycodeError, StateError
from polycode_plugins.files import guards
from polycode_plugins.files.tensors import Lazy
from polycode_plugins.metrics.base import Accumulator, Memory, Metric, Result
from polycode_plugins.metrics.inputs import FiniteCheck
from polycode_plugins.metrics.pairs import PairMetric, result_at, results_together
from polycode_plugins.precision import full_precision

Results = dict[str, dict[str, Result]]  # by site, then by the metric's label

NAMED = 5  # sites that a message about many of them names
_LARGE = 2**22  # bytes of a tensor that is not kept while others are written


class Statistics:
    """What a set of metrics needs to know about a set of sites.

    Args:
        metrics: the metrics; those that name the same accumulator share it.
        sites: the sites whose activations will come.

    Attributes:
        batches: that have come.
        left_out: {site: {why: positions}} that a mask has left out.
        narrow: {site: why} of sites that can have no result and that nobody has named.
        finite: whether what came was finite.
    """

    @on_host()
    def __init__(self, metrics: Sequence[Metric], sites: Sequence[Site]) -> None:
        self.metrics = list(metrics)
        self.sites = {site.name: site for site in sites}
        self.batches = 0
        self.left_out: dict[str, dict[str, int]] = {}
        self.narrow: dict[str, str] = {}
        self.devices: set[torch.device] = set()  # where activations have come from
        self.finite = FiniteCheck()
        self._admitted: set[str] = set()
        self._refused: list[tuple[str, Metric, PolycodeError]] = []
        self._first: dict[str, Activations] = {}  # of each site, on the meta device
        # Where each metric finds its accumulators: [site][label][name] -> key in _held[site].
        self._keys: dict[str, dict[str, dict[str, str]]] = {}
        self._held: dict[str, dict[str, Accumulator]] = {}
        for site in sites:
            held = self._held.setdefault(site.name, {})
            keys = self._keys.setdefault(site.name, {})
            for metric in self.metrics:
                if isinstance(metric, PairMetric):
                    metric.partners_of(site, sites)  # refuses a missing one before data is read
                keys[metric.label] = {}
                for name, accumulator in metric.accumulators().items():
                    held.setdefault(accumulator.key(), accumulator)
                    keys[metric.label][name] = accumulator.key()

    def begin(self, labels: Tensor | None, inputs: Tensor | None = None) -> None:
        """Tell the accumulators of a batch to come; see `Accumulator.begin`."""
        for held in self._held.values():
            for accumulator in held.values():
                accumulator.begin(labels, inputs)

    def receive(self, site: str, activations: Activations) -> None:
        """Take in one batch of one site; the sink of a capture."""
        if activations.values.is_meta:
            raise DataError(
                f"the activations of site {site!r} are on the meta device, so they have no values; "
                "load the model's weights first"
            )
        if site in self.narrow:
            return  # left out, in a pass that goes on
        self.finite.note(activations, site, self.batches)
        if self.sites[site].axes != activations.axes:
            known = self.sites[site]
            if known.axes and self.n_samples(site):
                raise DataError(
                    f"the axes of site {site!r} changed from {known.axes} to {activations.axes}; "
                    "a site must keep its layout"
                )
            self.sites[site] = Site(
                known.name, known.depth, activations.axes, known.width, known.source
            )
        try:
            with full_precision():
                for accumulator in self._held[site].values():
                    accumulator.update(activations)
        except PolycodeError as error:
            self.finite.look()
            cause = self.finite.errors.get(site)  # which this may come of
            raise cause or type(error)(f"site {site!r}: {error}") from error
        self.finite.look(FiniteCheck.LOOK * len(self.sites))
        if site not in self._admitted:
            self._admit(site, activations)
            shape = torch.empty_like(activations.values, device="meta")
            self._first[site] = Activations(shape, activations.axes)
            self.devices.add(activations.values.device)

    def require_finite(self) -> None:
        """Refuse a state that NaN or infinite values have entered, which on a GPU is seen late.

        Raises:
            DataError: as `check_finite`.
        """
        self.finite.look()
        self.finite.refuse()

    def not_finite(self) -> dict[str, DataError]:
        """What `require_finite` would raise, by site; these sites forget what they have seen."""
        self.finite.look()
        found, self.finite.errors = self.finite.errors, {}
        for site in found.keys() & self._held.keys():
            self._held[site] = {key: one.fresh() for key, one in self._held[site].items()}
        return found

    def _admit(self, site: str, activations: Activations) -> None:
        self._admitted.add(site)
        for metric in self.metrics:
            try:
                metric.admit_site(self.sites[site], activations)
            except PolycodeError as error:
                self._refused.append((site, metric, error))

    def check_sites(self) -> None:
        """Refuse sites that have fired and can have no result, all of them in one message.

        To be called when all sites have fired once.

        Raises:
            PolycodeError: with the sites, and how to leave them out.
        """
        if not self._refused:
            return
        order = list(self.sites)
        refused = sorted(self._refused, key=lambda one: order.index(one[0]))
        site, metric, error = refused[0]
        sites = list(dict.fromkeys(name for name, _, _ in refused))
        more = f" (and more at {listed(sites[1:])})" if sites[1:] else ""
        out = " and ".join(repr(f"!{glob}") for glob in _globs(sites, self.sites))
        raise type(error)(
            f"{metric.label} of site {site!r} can have no result: {error}; leave it out, with "
            f"{out} among the sites{more}"
        ) from error

    def leave_out(self, tallies: Mapping[str, Mapping[str, int]]) -> None:
        """Note positions that a mask has left out, {site: {why: positions}}."""
        for site, tally in tallies.items():
            for why, count in tally.items():
                own = self.left_out.setdefault(site, {})
                own[why] = own.get(why, 0) + count

    def drop_refused(self) -> None:
        """Leave out the sites that can have no result, where nobody asked for them by name.

        To be called when all sites have fired once, before `check_sites`, which raises where no
        site would be left.
        """
        refused: dict[str, str] = {}
        for site, metric, error in self._refused:
            refused.setdefault(site, f"{metric.label}: {error}")
        if len(refused) < len(self.sites):
            self.drop(refused)

    def drop(self, refused: Mapping[str, str]) -> None:
        """Gather no more at the sites {site: why}, and forget what they have seen.

        Raises:
            SiteError: for a site that a metric needs at another one.
        """
        if not refused:
            return
        self.narrow |= refused
        for site in refused:
            for held in (self.sites, self._held, self._keys, self._first, self.left_out):
                held.pop(site, None)
        self._refused = [one for one in self._refused if one[0] not in refused]
        left = list(self.sites.values())
        for metric in self.metrics:
            if isinstance(metric, PairMetric):
                for one in left:
                    metric.partners_of(one, left)

    def n_samples(self, site: str) -> int:
        """Samples a site has seen."""
        return max((a.n_samples for a in self._held[site].values()), default=0)

    def memory(self, rows: int | None) -> dict[str, Memory]:
        """What each site that has fired takes, and takes at most once `rows` rows have come."""
        found = {}
        for site, batch in self._first.items():
            needs = [a.memory(batch, rows) for a in self._held[site].values()]
            found[site] = Memory(sum(n.held for n in needs), max(n.computing for n in needs))
        pairs = [m for m in self.metrics if isinstance(m, PairMetric)]
        together = max((m.working_memory(self._first, rows) for m in pairs), default=0)
        return {
            site: Memory(need.held, max(need.computing, together)) for site, need in found.items()
        }

    def accumulators(self, site: str, label: str) -> dict[str, Accumulator]:
        """The accumulators of one metric at one site, under the metric's own names."""
        return {n: self._held[site][key] for n, key in self._keys[site][label].items()}

    def compute(self, site: str, metric: Metric) -> Result:
        """The result of one metric at one site.

        Raises:
            DataError: where it is undefined; the message names the site.
        """
        self.require_finite()
        try:
            with full_precision():
                return result_at(
                    metric,
                    self.sites[site],
                    list(self.sites.values()),
                    lambda name: self.accumulators(name, metric.label),
                )
        except PolycodeError as error:
            raise type(error)(f"{metric.label} of site {site!r}: {error}") from error

    def compute_all(self, metric: Metric) -> Mapping[str, Result] | None:
        """The results of a metric at all sites, where it works them out together; None otherwise.

        Raises:
            DataError: where one is undefined.
        """
        self.require_finite()
        try:
            with full_precision():
                return results_together(
                    metric,
                    list(self.sites.values()),
                    lambda name: self.accumulators(name, metric.label),
                )
        except PolycodeError as error:
            raise type(error)(f"{metric.label}: {error}") from error

    @on_host()
    def merge(self, other: Statistics) -> None:
        """Take in everything another set of statistics has seen; sites and metrics must agree."""
        self.require_finite()
        other.require_finite()
        if list(self.sites) != list(other.sites):
            raise StateError("the sites differ, so the statistics cannot be merged")
        for site, held in self._held.items():
            if held.keys() != other._held[site].keys():
                raise StateError("the metrics differ, so the statistics cannot be merged")
            if not self.n_samples(site):
                self.sites[site] = other.sites[site]
            for key, accumulator in held.items():
                accumulator.merge(other._held[site][key])
        self.batches += other.batches
        self.leave_out(other.left_out)
        self.narrow |= other.narrow

    def state(self) -> dict[str, Tensor]:
        """All accumulators as flat tensors, keyed "site index/accumulator key/tensor".

        Raises:
            DataError: see `require_finite`.
        """
        self.require_finite()
        return {
            f"{index}/{key}/{name}": tensor
            for index, held in enumerate(self._held.values())
            for key, accumulator in held.items()
            for name, tensor in accumulator.state().items()
        }

    def saved_state(self) -> dict[str, Tensor | Lazy]:
        """`state`, where large tensors are made again while they are written, one at a time."""
        self.require_finite()
        found: dict[str, Tensor | Lazy] = {}
        for index, held in enumerate(self._held.values()):
            for key, accumulator in held.items():
                for name, tensor in accumulator.state().items():
                    found[f"{index}/{key}/{name}"] = (
                        _lazy(accumulator, name, tensor) if tensor.nbytes > _LARGE else tensor
                    )
        return found

    @on_host()
    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        """Replace everything seen by what `state` returned; each tensor is read once, in turn.

        Raises:
            StateError: for tensors of something else, or damaged ones.
        """
        grouped: dict[tuple[int, str], dict[str, str]] = {}
        for path in tensors:
            index, _, rest = path.partition("/")
            key, _, name = rest.rpartition("/")
            if not index.isdecimal() or not index.isascii():
                raise StateError(f"the saved statistics hold {path!r}, which is of no site")
            grouped.setdefault((int(index), key), {})[name] = path
        expected = {
            (i, k): accumulator
            for i, held in enumerate(self._held.values())
            for k, accumulator in held.items()
        }
        missing = {place for place in expected if place not in grouped}
        if not set(grouped) <= set(expected) or not all(expected[m].optional for m in missing):
            raise StateError("the saved statistics are of other sites or metrics")
        for i, held in enumerate(self._held.values()):
            for key, accumulator in held.items():
                paths = grouped.get((i, key), {})
                state = {name: _sound(tensors, path) for name, path in paths.items()}
                try:
                    accumulator.load_state(state if paths else accumulator.fresh().state())
                    counted = accumulator.n_samples
                except Exception as error:  # somebody's accumulator, and a file of somebody's
                    what = f"the saved statistics of {key!r} cannot be used"
                    raise StateError(guards.made_from(what, error)) from error
                if counted < 0:
                    raise StateError(f"the saved statistics of {key!r} count {counted} samples")


def _lazy(accumulator: Accumulator, name: str, tensor: Tensor) -> Lazy:
    return Lazy(tensor.dtype, tuple(tensor.shape), lambda: accumulator.state()[name])


def _sound(tensors: Mapping[str, Tensor], path: str) -> Tensor:
    """A tensor of a saved state.

    Raises:
        StateError: for numbers that no statistic has.
    """
    tensor = tensors[path]
    if tensor.is_complex():
        raise StateError(f"the saved statistics hold complex numbers in {path!r}")
    if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
        raise StateError(f"the saved statistics hold NaN or infinity in {path!r}")
    return tensor


def listed(sites: Sequence[str]) -> str:
    """The names of sites for a message: the first ones of many."""
    rest = f", {len(sites) - NAMED} others" if len(sites) > NAMED else ""
    return f"{', '.join(sites[:NAMED])}{rest}"


def _globs(unwanted: Sequence[str], sites: Iterable[str]) -> list[str]:
    """What names just the unwanted ones of `sites`: globs of last parts if these are theirs alone.

    Where these are many, the first ones.
    """
    others = {name.rpartition(".")[2] for name in sites if name not in unwanted}
    found = {
        name if "." not in name or last in others else f"**.{last}": None
        for name in unwanted
        for last in [name.rpartition(".")[2]]
    }
    return list(found)[:NAMED]
