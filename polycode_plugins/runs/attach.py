"""`attach`: metrics on somebody else's forward passes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING, Any

from torch import Tensor

from polycode_plugins.activations import Activations, Arrivals
from polycode_plugins.adapters.base import Adapter, Capture
from polycode_plugins.adapters.engine import EngineCapture
from polycode_plugins.adapters.evidence.masks import Mask
from polycode_plugins.adapters.patterns import Sites, by_default
from polycode_plugins.devices import on_host
from polycode_plugins.errors import DataError, PolycodeError, SiteError
from polycode_plugins.files.provenance import Rows, environment
from polycode_plugins.files.weights import identified
from polycode_plugins.loading import load
from polycode_plugins.metrics.base import Metric
from polycode_plugins.metrics.names import make_metrics
from polycode_plugins.pages.cards import Card
from polycode_plugins.runs.analysis import Analysis, finish, record
from polycode_plugins.runs.elsewhere import Elsewhere, gathered_elsewhere, require_whole
from polycode_plugins.runs.gathering import Statistics, listed

if TYPE_CHECKING:
    import pandas as pd

#: What a record holds of an engine's work: requests, steps, tokens that were computed again.
_SCHEDULE = ("texts", "steps", "repeated", "under_way")
_SHOWN = 4  # sites that a notebook lists


class Probe:
    """Metrics gathering while somebody else runs the model; read it with `compute()`."""

    def __init__(
        self,
        adapter: Adapter,
        statistics: Statistics,
        capture: Capture,
        elsewhere: Elsewhere | None = None,
        *,
        lenient: bool = False,
    ) -> None:
        self._adapter = adapter
        self._statistics = statistics
        self._capture = capture
        self._elsewhere = elsewhere  # where an engine's workers gather
        self._lenient = lenient  # nobody has named the sites

    def _fetch(self) -> None:
        """Take in what an engine's workers have gathered; after its end that was done last."""
        if self._elsewhere is not None:
            self._statistics = self._elsewhere.fetch()

    def _end(self) -> None:
        self._fetch()
        self._elsewhere = None

    @property
    def n_samples(self) -> dict[str, int]:
        """Samples seen so far at each site."""
        self._fetch()
        return {name: self._statistics.n_samples(name) for name in self._statistics.sites}

    @property
    def left_out(self) -> dict[str, dict[str, int]]:
        """{site: {why: positions}} that a mask has left out so far."""
        if self._elsewhere is not None:
            self._elsewhere.capture.refresh()
        return {name: dict(tally) for name, tally in self._capture.left_out.items()}

    def __repr__(self) -> str:
        seen = sum(n > 0 for n in self.n_samples.values())
        parts = [f"{seen} of {len(self._statistics.sites)} sites have fired", *self._remarks()]
        return f"Probe({'; '.join(parts)})"

    def _repr_html_(self) -> str:
        seen = self.n_samples
        said = [f"{n:,} samples at {site}" for site, n in list(seen.items())[:_SHOWN]]
        if len(seen) > _SHOWN:
            said.append(f"and so on at {len(seen) - _SHOWN} more sites")
        title = f"Probe of {len(seen)} sites; probe.compute() gives the analysis"
        return Card(title, said, self._remarks(), "repr(probe)").html()

    def to_dataframe(self) -> pd.DataFrame:
        """`compute().to_dataframe()`: one row per site.

        Raises:
            SiteError: see `compute`.
        """
        return self.compute().to_dataframe()

    if not TYPE_CHECKING:  # a type checker shall find no attribute here

        def __getattr__(self, name):
            if not name.startswith("_") and hasattr(Analysis, name):
                raise AttributeError(
                    f"a probe gathers and has no {name!r}; write probe.compute().{name}"
                )
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def _remarks(self) -> list[str]:
        remarks = [f"cannot be read: {name}" for name in self._capture.problems]
        return remarks + [
            f"left out at {name}: {count} by {why}"
            for name, tally in self._capture.left_out.items()
            for why, count in tally.items()
        ]

    @on_host()
    def compute(self) -> Analysis:
        """The results of everything seen so far; gathering goes on while the context is open.

        Raises:
            SiteError: when a site has not fired, or what it holds could not be read.
            DataError: where a result is undefined.
        """
        self._fetch()
        self._capture.settle()
        for site, error in self._statistics.not_finite().items():
            self._capture.problems.setdefault(site, error)
        self._refuse_problems()
        if isinstance(self._capture, EngineCapture):
            require_whole(self._capture)
        silent = [n for n in self._statistics.sites if not self._capture.fired[n]]
        if silent:
            raise SiteError(
                f"site {silent[0]!r} did not fire: run the model inside the 'with' block, and "
                "through this site"
            )
        if self._lenient:
            self._statistics.drop_refused()
        self._statistics.check_sites()
        said = getattr(self._capture, "report", {})
        engine = {"engine": {key: said[key] for key in _SCHEDULE}} if said else {}
        run = record(
            self._statistics,
            **environment(),
            model=identified(self._adapter.describe(), self._adapter.model),
            data="attached",
            seed=None,
            options={},
            rows=Rows().to_json(),
            complete=True,
            left_out={n: t for n, t in self.left_out.items() if n in self._statistics.sites},
            documents=dict(self._capture.unclear),
            narrow=dict(self._statistics.narrow),
            **engine,
        )
        return finish(self._statistics, run)

    def _refuse_problems(self) -> None:
        """Raise what went wrong in the passes, which went on."""
        problems = self._capture.problems
        if not problems:
            return
        name, error = next(iter(problems.items()))
        kind = type(error) if isinstance(error, PolycodeError) else SiteError
        others = [other for other in problems if other != name]
        said = str(error) if repr(name) in str(error) else f"{name!r} could not be read: {error}"
        more = f" (and more at {listed(others)})" if others else ""
        out = (
            f"; or leave it out, with '!{name}' among the sites"
            if len(self._statistics.sites) > (len(problems))
            else ""
        )
        raise kind(f"{said}{out}{more}") from error


class Attachment(AbstractContextManager["Probe"]):
    """What `attach` returns: to be opened by a `with` statement, which gives the `Probe`."""

    def __init__(self, opened: AbstractContextManager[Probe]) -> None:
        self._opened = opened

    def __enter__(self) -> Probe:
        return self._opened.__enter__()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool | None:
        return self._opened.__exit__(kind, error, trace)

    if not TYPE_CHECKING:  # a type checker shall find no attribute here

        def __getattr__(self, name):
            if name.startswith("_"):
                raise AttributeError(name)
            raise PolycodeError(
                f"nothing was attached, so there is no {name!r}: use it in a with statement, "
                "'with pc.attach(...) as probe:', and run the model inside"
            )


def attach(
    model: Any,
    sites: Sites = None,
    metrics: Iterable[str | Metric] | str | Metric = ("spectrum",),
    *,
    adapter: str | type[Adapter] | None = None,
    mask: Mask = "given",
    **options: Any,
) -> Attachment:
    """Gather metrics during any forward passes of a live model.

    The passes are the caller's: their mode, gradients, dropout and hooks stay as they are, outputs
    are bit-equal, nothing of ours is raised out of them, and nothing stays behind. (What was
    compiled with torch.compile runs as it was written meanwhile, since a compiled module fires no
    hooks.) What cannot be read is an error of `compute()`.

    Positions that the model is given as padding are left out: by the mask of the stream that a site
    belongs to (encoder, decoder), wherever the model is called with it. Adapters that know the
    tokenizer leave special tokens out as well. `compute().run["left_out"]` says what was.

    Args:
        model: a live model.
        sites: names or globs, "all", or a function of a name that says whether it is meant.
            By default those of the adapter, less the ones that are too narrow for a metric, which
            `compute().run["narrow"]` names.
        metrics: names or metric objects.
        adapter: the adapter's name; by default the one that claims the model.
        mask: what counts, instead: bool [batch] or [batch, position], a function that returns such
            a mask for the arguments of a call by their names, or None to count everything.
        options: passed to the adapter.

    Example:
        with pc.attach(model, "blocks.*.hook_resid_post", ["spectrum"]) as probe:
            model.generate(...)
        print(probe.compute().to_dataframe())
    """
    return Attachment(_attached(model, sites, metrics, adapter, mask, options))


@contextmanager
def _attached(
    model: Any,
    sites: Sites,
    metrics: Iterable[str | Metric] | str | Metric,
    adapter: str | type[Adapter] | None,
    mask: Mask,
    options: dict[str, Any],
) -> Iterator[Probe]:
    source = load(model, adapter, **options)
    _check_mask(mask, source)
    made = make_metrics(metrics)
    for metric in made:
        metric.admit(source.model, train_mode=True)
    statistics = Statistics(made, source.resolve(sites, None))
    if source.gathers:
        with _in_engine(source, statistics, mask) as probe:
            yield probe
        return
    arrivals = Arrivals()

    def receive(site: str, activations: Activations) -> None:
        if (mask is None or isinstance(mask, Tensor)) and not source.finds_masks:
            activations = replace(activations, mask=mask)
        statistics.receive(site, arrivals.numbered(site, activations))

    before, source.mask = source.mask, mask
    try:
        with source.capture(list(statistics.sites.values()), receive) as capture:
            yield Probe(source, statistics, capture, lenient=by_default(sites))
    finally:
        source.mask = before


@contextmanager
def _in_engine(source: Adapter, statistics: Statistics, mask: Mask) -> Iterator[Probe]:
    """Statistics that an engine's workers gather while open."""
    sites = list(statistics.sites.values())
    before, source.mask = source.mask, mask
    try:
        with gathered_elsewhere(source, statistics.metrics, sites) as elsewhere:
            probe = Probe(source, statistics, elsewhere.capture, elsewhere)
            yield probe
            probe._end()
    finally:
        source.mask = before


def _check_mask(mask: Mask, source: Adapter) -> None:
    if mask is None or (isinstance(mask, str) and mask == "given"):
        return
    if source.gathers:
        raise DataError(
            "mask= of an engine's requests is 'given' (special tokens are left out) or None (every "
            "token counts): an engine packs rows as it likes, so a tensor or a function has none "
            "to fit"
        )
    if isinstance(mask, Tensor) and mask.dim() in (1, 2):
        return
    if callable(mask) and source.finds_masks:
        return
    if callable(mask):
        raise DataError(
            f"the adapter {source.name!r} takes no function as mask=; give a bool tensor [batch, "
            "position], or None to count everything"
        )
    what = f"a tensor {tuple(mask.shape)}" if isinstance(mask, Tensor) else repr(mask)
    raise DataError(
        f"mask= is a bool tensor [batch] or [batch, position], a function of a call's arguments, "
        f"None to count everything, or 'given', and this is {what}"
    )
