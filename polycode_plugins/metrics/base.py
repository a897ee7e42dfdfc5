"""The contract of a metric: which sufficient statistics it needs, and what it makes of them.

A metric never sees the data. It names accumulators (mergeable sufficient statistics), the analysis
fills one of each kind per site, and metrics that name the same one share it.
"""

from __future__ import annotations

import dataclasses
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Self

import numpy as np
from torch import Tensor

from polycode_plugins.activations import Activations, Arrivals, Site
from polycode_plugins.devices import on_host
from polycode_plugins.errors import DataError, SiteError, StateError
from polycode_plugins.files import guards
from polycode_plugins.metrics.influences import Influences
from polycode_plugins.metrics.inputs import as_activations, check_finite
from polycode_plugins.precision import full_precision

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from polycode_plugins.metrics.chapter import View
    from polycode_plugins.metrics.hook import MetricHook
    from polycode_plugins.pages.pages import Part


class Memory(NamedTuple):
    """Bytes that an accumulator takes.

    Attributes:
        held: that it keeps, at most.
        computing: more, for a moment, while a result is made of it.
    """

    held: int
    computing: int = 0


class Accumulator(ABC):
    """A mergeable sufficient statistic of a stream of activations.

    `merge` is associative and commutative up to rounding, and a fresh accumulator is its identity,
    so batches, shards, processes and machines are the same thing. Two accumulators with the same
    `key()` gather the same statistic and may stand for each other.
    """

    #: Stable name of the statistic, written into saved state.
    name: ClassVar[str]
    #: Whether states saved before the metric gathered it are read without it: it then has seen
    #: nothing, fewer samples than its neighbours, which the metric has to notice.
    optional: ClassVar[bool] = False

    @abstractmethod
    def options(self) -> dict[str, Any]:
        """The settings that define the statistic, as JSON values: the arguments to make it with."""

    def begin(self, labels: Tensor | None, inputs: Tensor | None = None) -> None:
        """Told of each batch before its activations come.

        Args:
            labels: int64 [batch], where the data has some.
            inputs: [batch, ..], where the model is called with one tensor of floats.
        """
        return

    @abstractmethod
    def update(self, activations: Activations) -> None:
        """Take in one batch. Nothing of it is kept by reference."""

    @abstractmethod
    def merge(self, other: Self) -> None:
        """Take in everything `other` has seen; `other` stays as it was."""

    @abstractmethod
    def state(self) -> dict[str, Tensor]:
        """Everything seen so far, as tensors on the CPU (what safetensors can hold)."""

    @abstractmethod
    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Replace what has been seen by what `state()` returned.

        Raises:
            StateError: for tensors that are missing or of impossible shape.
        """

    @property
    @abstractmethod
    def n_samples(self) -> int:
        """Samples taken in so far."""

    def memory(self, batch: Activations, rows: int | None) -> Memory:
        """What the statistic will take, so that a run can say so before hours are spent.

        By default what it takes now, which is right for those whose size does not grow.

        Args:
            batch: of the site's activations, without values (on the meta device) and mask.
            rows: rows of the data that will come at most; None where nobody knows.
        """
        return Memory(sum(tensor.nbytes for tensor in self.state().values()))

    def key(self) -> str:
        """Equal for accumulators that gather the same statistic."""
        options = ",".join(f"{k}={v!r}" for k, v in sorted(self.options().items()))
        return f"{self.name}({options})"

    def fresh(self) -> Self:
        """An empty accumulator of the same statistic."""
        return type(self)(**self.options())


class Grave(str):
    """A warning after which the first number of a result is not to be read at all.

    Other warnings are plain strings: their numbers are to be read with care.
    """

    __slots__ = ()


class _NoWarnings:
    """The warnings of a result that has none: its class may make them a field or a property."""

    def __get__(self, result: object, kind: type) -> tuple[str, ...]:
        if result is None:  # so that a field of that name has no default
            raise AttributeError("warnings")
        return ()


@dataclasses.dataclass(frozen=True, eq=False)
class Result:
    """Base of all results: frozen, with `to_dict`, `plot`, `warnings`, and scalars for tables."""

    #: One plain sentence on how to read the result, shown in reports.
    reading: ClassVar[str] = ""
    #: What a report calls it; the metric's label unless given.
    title: ClassVar[str] = ""
    #: The scalars that say most, in order: what a terminal shows, and the first one in a report's
    #: chart by depth. All of them when empty.
    headline: ClassVar[tuple[str, ...]] = ()
    #: Units of fields of `scalars()`.
    units: ClassVar[Mapping[str, str]] = {}
    #: What reports call fields of `scalars()` whose own names, with spaces, do not say it.
    names: ClassVar[Mapping[str, str]] = {}
    #: One plain sentence on how to read what `plot` draws, shown above the plots.
    picture: ClassVar[str] = ""
    #: Fields of `scalars()` in the picture over layers that the report begins with; the first
    #: number of `headline` unless given.
    mapped: ClassVar[tuple[str, ...]] = ()
    #: The paragraph of the documentation on it: "page.html#paragraph", or a whole address.
    documentation: ClassVar[str] = ""
    #: Fields of `scalars()` that a comparison sets beside how well a layer's units are explained.
    related: ClassVar[tuple[str, ...]] = ()

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        # Before `dataclass` gives the class one that prints whole arrays.
        if "__repr__" not in vars(cls):
            cls.__repr__ = Result.__repr__  # type: ignore[method-assign]

    def __repr__(self) -> str:
        from polycode_plugins.metrics.result_card import result_card

        return result_card(self, drawn=False).text()

    def _repr_html_(self) -> str:
        from polycode_plugins.metrics.result_card import result_card

        return result_card(self, drawn=True).html()

    if TYPE_CHECKING:

        @property
        def warnings(self) -> tuple[str, ...]:
            """Sentences on what keeps the numbers from meaning what they seem to; () is good.

            A field or a property of that name. Whatever shows the result shows them: begin each in
            lower case, since it stands after the site's name. `Grave` ones come first.
            """
    else:
        warnings = _NoWarnings()

    def to_dict(self) -> dict[str, Any]:
        """All fields as JSON values; arrays become lists, undefined numbers become None."""
        return {
            f.name: _to_json(getattr(self, f.name))
            for f in dataclasses.fields(self)
            if f.metadata.get("saved", True)
        }

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Self:
        """The result whose `to_dict` gave `fields`: by the annotations of its fields lists become
        tuples and arrays, and mappings dataclasses."""
        made: Self = guards.restored(cls, fields)
        return made

    def scalars(self) -> dict[str, float | int | str | bool | None]:
        """The fields that fit into one cell of a table."""
        return {
            k: v
            for k, v in self.to_dict().items()
            if v is None or isinstance(v, float | int | str | bool)
        }

    def intervals(self) -> Mapping[str, tuple[float, float]]:
        """The 95% interval of each field of `scalars()` that has one, as (low, high).

        By default `interval`, where the result has one, which is of the first number among them.
        """
        interval = getattr(self, "interval", None)
        if not isinstance(interval, tuple | list) or len(interval) != 2:
            return {}
        if not all(isinstance(end, float | int) and math.isfinite(end) for end in interval):
            return {}
        numbers = [
            k
            for k, v in self.scalars().items()
            if isinstance(v, float | int) and not isinstance(v, bool)
        ]
        return {numbers[0]: (float(interval[0]), float(interval[1]))} if numbers else {}

    @classmethod
    def findings(cls, view: View) -> Sequence[str]:
        """What was found, in a sentence or two with their uncertainty: the report begins with them.

        By default from where to where the first number of the headline runs.

        Args:
            view: the results of all sites, in depth order.
        """
        from polycode_plugins.metrics.chapter import generic_findings

        return generic_findings(view)

    @classmethod
    def chapter(cls, view: View) -> Sequence[Part]:
        """What the report says of a metric with such results, one for each site.

        By default how to read it, the first of its headline by depth, a table of all scalars, and
        the plots. `polycode_plugins.pages` has what chapters are built of.

        Args:
            view: the results of all sites, in depth order.
        """
        from polycode_plugins.metrics.chapter import generic_parts

        return generic_parts(view)

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw the result into `ax`, or into a new figure, and return the axes."""
        raise NotImplementedError(f"{type(self).__name__} has no plot")


@dataclasses.dataclass(frozen=True)
class Metric(ABC):
    """A quantity computed from accumulators. Subclasses are frozen dataclasses of their settings.

    Attributes:
        label: keys the results; the metric's name unless given.
    """

    #: The name of the entry point.
    name: ClassVar[str]
    result: ClassVar[type[Result]]
    #: Whether results of several sites may be computed at the same time, by threads of one process:
    #: `compute` draws no numbers from a generator that others share, and needs no partner.
    side_by_side: ClassVar[bool] = False

    label: str = dataclasses.field(default="", kw_only=True)

    def __post_init__(self) -> None:
        if not self.label:
            object.__setattr__(self, "label", self.name)
        guards.check_choices(self)

    @abstractmethod
    def accumulators(self) -> Mapping[str, Accumulator]:
        """Fresh accumulators this metric needs, under names of its own choosing."""

    @abstractmethod
    def compute(self, accumulators: Mapping[str, Accumulator], site: Site) -> Result:
        """The result at one site.

        Raises:
            DataError: where the quantity is undefined (too few samples, a constant layer).
        """

    def influences(
        self, accumulators: Mapping[str, Accumulator], result: Result, samples: Tensor
    ) -> Influences:
        """What each of some samples adds to the errors of the result's numbers, to first order.

        `polycode diff` pairs the intervals of two runs on the same rows by it. By default none:
        differences of the result's numbers then have intervals as of independent runs.

        Args:
            accumulators: that the result was computed from.
            result: the result. samples: float32 [samples, width], some of those of the site.

        Raises:
            DataError: where these samples say nothing of it, with what to do.
        """
        return Influences({})

    def admit(self, model: Any, *, train_mode: bool) -> None:
        """Refuse, before any data is read, a model about which the question has no answer.

        Args:
            model: the live model that will run.
            train_mode: whether it runs in the mode it is in, not in evaluation mode.

        Raises:
            DataError: saying why, and what to do.
        """
        return

    def admit_site(self, site: Site, batch: Activations) -> None:
        """Refuse a site where there can be no result whatever data comes: one that is too narrow.

        Asked once for each site, with its first batch, so that such a site ends a run at its
        beginning. What may still change with more data is for `compute` to refuse.

        Args:
            site: the site, its axes known.
            batch: the first activations that came.

        Raises:
            DataError: saying why. How to leave the site out is added to it.
        """
        return

    def options(self) -> dict[str, Any]:
        """The settings as JSON values."""
        return {f.name: _to_json(getattr(self, f.name)) for f in dataclasses.fields(self)}

    @classmethod
    def from_options(cls, options: Mapping[str, Any]) -> Self:
        """The metric whose `options()` were given; lists become tuples again.

        Raises:
            StateError: for settings this version does not have, or that it does not take.
        """
        known = {f.name for f in dataclasses.fields(cls)}
        unknown = sorted(set(options) - known)
        if unknown:
            raise StateError(
                f"the metric {cls.name!r} has no setting {unknown[0]!r} in this version; "
                f"its settings are {', '.join(sorted(known))}"
            )
        values: dict[str, Any] = {
            k: tuple(v) if isinstance(v, list) else v for k, v in options.items()
        }
        try:
            made = cls(**values)
            guards.check_fields(made, saved=False)
            return made
        except (DataError, SiteError) as error:
            raise type(error)(f"the metric {cls.name!r}: {error}") from error
        except Exception as error:  # a constructor may raise anything at values it does not expect
            given = ", ".join(f"{k}={v!r}" for k, v in values.items()) or "none"
            what = f"the metric {cls.name!r} does not take these settings ({given})"
            raise StateError(guards.made_from(what, error)) from error

    @on_host()
    def measure(
        self,
        values: Tensor | np.ndarray[Any, Any] | Activations,
        *,
        axes: tuple[str, ...] | None = None,
        mask: Tensor | None = None,
        name: str = "values",
    ) -> Any:
        """The result for one array of activations.

        Args:
            values: [samples, features], or any tensor whose axes are usual or named by `axes`.
            axes: names of the axes, see `activations.AXES`.
            mask: bool [batch] or [batch, positions]; False is left out.
            name: what errors call the array.
        """
        batch = Arrivals().numbered(name, as_activations(values, axes=axes, mask=mask))
        check_finite(batch, name)
        accumulators = self.accumulators()
        with full_precision():
            for accumulator in accumulators.values():
                accumulator.update(batch)
            return self.compute(accumulators, Site(name, axes=batch.axes))

    def as_hook(self, *, mask: Tensor | None = None) -> MetricHook:
        """A hook function for TransformerLens's `fwd_hooks`; read it with `hook.compute()`.

        Every position counts unless `mask` [batch, position] says otherwise, the beginning-of-text
        token too: `pc.attach` and `pc.analyze` leave padding and special tokens out by themselves.
        """
        from polycode_plugins.metrics.hook import MetricHook

        return MetricHook(self, mask)


def _to_json(value: Any) -> Any:
    if isinstance(value, Tensor):
        value = value.detach().cpu().numpy()
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, tuple | list):
        return [_to_json(v) for v in value]
    if isinstance(value, Mapping):
        return {str(k): _to_json(v) for k, v in value.items()}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: _to_json(getattr(value, f.name)) for f in dataclasses.fields(value)}
    return value
