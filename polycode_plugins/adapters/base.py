"""The contract of an adapter: name the sites of a model, turn data into batches, capture.

Five members make an adapter: `model`, `sites`, `batches`, `forward` and `capture` (a context in
which every forward pass of the model hands its activations to a sink). All else is built on them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from polycode_plugins.activations import Activations, Site, Tokens
from polycode_plugins.adapters.hooks import own_pass
from polycode_plugins.adapters.patterns import Sites, choose, unknown
from polycode_plugins.adapters.undisturbed import seed_batch, undisturbed
from polycode_plugins.data_options import DataOptions
from polycode_plugins.devices import as_found
from polycode_plugins.errors import SiteError
from polycode_plugins.files.weights import parameter_count

if TYPE_CHECKING:
    from polycode_plugins.adapters.engine import EngineCapture

#: Receives each site's activations as soon as they exist; what it wants to keep it must copy.
Sink = Callable[[str, Activations], None]


@dataclass(frozen=True, eq=False)
class Batch:
    """What one forward pass is called with, and what the statistics must know about it.

    Attributes:
        inputs: a tensor, a tuple of positional arguments, or a dict of keyword arguments.
        rows: int64 [batch], index of each row in the whole data.
        documents: int64 [batch], the document each row was cut from.
        mask: bool [batch] or [batch, position], False where padding or special tokens are.
        labels: int64 [batch], the class of each row, where the data has one.
        tokens: what stands at each row and position, where rows are of tokens.
        repeats: int64 [batch], where rows are documents: the first row that holds the same; None
            where each of them is the first.
    """

    inputs: Any
    rows: Tensor
    documents: Tensor | None = None
    mask: Tensor | None = None
    labels: Tensor | None = None
    tokens: Tokens | None = None
    repeats: Tensor | None = None

    def __len__(self) -> int:
        return int(self.rows.shape[0])

    def known_documents(self) -> Tensor | None:
        """int64 [batch], the document of each row; None where each is one of its own."""
        return self.repeats if self.documents is None else self.documents


class Adapter(ABC):
    """A model and the way to its activations.

    An adapter is made as `factory(model, **options)`, where `model` is a live object, a name, or a
    folder; the factory raises ModelError for what it cannot handle.
    """

    #: The name of the entry point.
    name: ClassVar[str]
    #: Whether it reads models of any library, so that a more special adapter goes first.
    generic: ClassVar[bool] = False
    #: Whether `capture` goes by `mask`; a mask that the user gave is else put on what it passes on.
    finds_masks: ClassVar[bool] = False
    #: Whether activations stay where the model runs (an engine's workers) and statistics are
    #: gathered there: then `gathering` is used in place of `capture`.
    gathers: ClassVar[bool] = False
    #: What counts in somebody else's workflow: "given" for what the model is given.
    mask: Any = "given"

    @classmethod
    def accepts(cls, model: object) -> bool:
        """Whether this adapter is the natural one for a live `model`; asked when none is named."""
        return False

    @property
    @abstractmethod
    def model(self) -> Any:
        """The live model object."""

    @abstractmethod
    def sites(self, example: Batch | None = None) -> list[Site]:
        """All sites, in the order in which they fire.

        Args:
            example: a batch to trace a forward pass with; adapters that know their sites without
                one ignore it, others give more (order, width, repeated calls) with it.
        """

    @abstractmethod
    def batches(self, data: Any, options: DataOptions) -> Iterable[Batch]:
        """Batches of `data` in a fixed order: paths, names, texts or tensors, as documented."""

    @abstractmethod
    def capture(self, sites: Sequence[Site], sink: Sink) -> AbstractContextManager[Capture]:
        """While open, every forward pass of the model calls `sink(site.name, activations)`.

        The context changes nothing else about the model and is removed whatever happens inside.
        """

    @abstractmethod
    def forward(self, batch: Batch, stop_after: Site | None = None) -> None:
        """Run the model on a batch, at least until `stop_after` has fired."""

    def gathering(
        self,
        sites: Sequence[Site],
        metrics: Sequence[Mapping[str, Any]],
        *,
        rows: int | None = None,
        memory: int | None = None,
    ) -> AbstractContextManager[EngineCapture]:
        """While open, the workers that run the model gather statistics of every forward pass.

        Args:
            sites: where.
            metrics: which, as JSON values: {"metric": name, "options": settings} of each.
            rows: of the data that will come at most; None where nobody knows.
            memory: bytes that a worker's process may take; None for what its machine has.
        """
        raise NotImplementedError(f"{type(self).__name__} gathers nothing elsewhere")

    def example(self) -> Batch | None:
        """A small batch of the adapter's embedded data, to list the sites of a model with."""
        return None

    def default_sites(self, sites: Sequence[Site]) -> list[str]:
        """The sites used when none are asked for."""
        return [site.name for site in sites]

    def describe(self) -> dict[str, Any]:
        """JSON values that identify the model: its name, type, modes; recorded with results."""
        model = self.model
        dtype = next((str(p.dtype).removeprefix("torch.") for p in _parameters(model)), None)
        return {
            "adapter": self.name,
            "type": type(model).__name__,
            "parameters": parameter_count(model),
            "dtype": dtype,
        }

    def resolve(self, patterns: Sites, example: Batch | None) -> list[Site]:
        """The sites meant by names and globs, in firing order, each keyed as it was asked for.

        In a glob `*` stays within one dotted part and `**` crosses them; `!glob` leaves sites out
        again. Two names of one tensor that one glob finds count once; names written out are all
        kept. "all" is every site under one name; a function is asked of every name.

        Raises:
            SiteError: for a pattern that finds nothing; near names are suggested.
        """
        available = self.sites(example)
        default = self.default_sites(available)
        wanted = default if patterns is None else patterns
        return choose(wanted, available, default, self._unknown)

    def _unknown(self, pattern: str, available: Sequence[Site]) -> str:
        """Why a pattern finds no site."""
        return (
            f"{unknown(pattern, available)}; list them with 'polycode sites' or load(model).sites()"
        )

    def stream(
        self,
        data: Any,
        sites: Sites = None,
        *,
        options: DataOptions | None = None,
        train_mode: bool = False,
    ) -> Iterator[dict[str, Activations]]:
        """Activations batch by batch, detached copies, keyed by site.

        The statistics of `pc.analyze` do not go through here: they are updated while the forward
        pass runs and copy nothing.
        """
        options = options or DataOptions()
        resolved: list[Site] | None = None
        for batch in self.batches(data, options):
            gathered: dict[str, Activations] = {}
            with undisturbed(self.model, train_mode=train_mode):
                if resolved is None:
                    resolved = self.resolve(sites, batch)
                self.run(batch, resolved, partial(_keep, gathered), seed=options.seed)
            yield gathered

    def run(self, batch: Batch, sites: Sequence[Site], sink: Sink, *, seed: int = 0) -> Any:
        """One forward pass over a batch with every site captured; call inside `undisturbed`.

        Returns:
            The capture, which knows what was left out; None from an adapter that does not say.

        Raises:
            SiteError: for a site that did not fire.
        """
        with own_pass(), self.capture(sites, sink) as live:
            live.batch = batch
            seed_batch(seed, int(batch.rows[0]))
            with as_found():
                self.forward(batch, stop_after=sites[-1])
            live.require_fired()
        return live


def _keep(into: dict[str, Activations], name: str, value: Activations) -> None:
    into[name] = value.clone()


class Capture:
    """An open capture: counts what fired, and knows the batch that is being run.

    In somebody else's workflow nothing is raised out of his forward pass: what cannot be read is
    kept in `problems`, and no more is read at that site.

    Attributes:
        batch: the batch of the forward pass under way; None in somebody else's workflow.
        fired: how often each site has fired.
        problems: the first thing that went wrong at each site, in somebody else's workflow.
        left_out: {site: {why: positions}} that a mask has left out.
        unclear: {why: rows} whose documents are joined to others, or not known.
    """

    def __init__(self, sites: Sequence[Site], sink: Sink) -> None:
        self.sites = list(sites)
        self.sink = sink
        self.batch: Batch | None = None
        self.fired: dict[str, int] = {site.name: 0 for site in sites}
        self.problems: dict[str, Exception] = {}
        self.left_out: dict[str, dict[str, int]] = {}
        self.unclear: dict[str, int] = {}
        self._closing: list[Callable[[], None]] = []
        self._shared: tuple[Batch | None, dict[Any, Any]] = (None, {})  # of the batch under way

    def receive(
        self,
        site: Site,
        values: Tensor,
        axes: tuple[str, ...],
        *,
        mask: Tensor | None = None,
        why: str = "",
        documents: Tensor | None = None,
        per_row: int = 1,
        tokens: Tokens | None = None,
    ) -> None:
        """Pass one tensor on to the sink, with the rows of the batch under way.

        Args:
            site: where it is from.
            values: the tensor, its batch axis first.
            axes: the names of its axes.
            mask: bool [batch] or [batch, position], what counts; None for the mask of the batch
                under way.
            why: where the mask is from.
            documents: int64 [batch] or [batch, position]; None for those of the batch under way.
            per_row: entries of the batch axis for each row, side by side; 0 when unknown.
            tokens: what is read there, where that is known; those of the batch under way come
                first.
        """
        batch, size = self.batch, values.shape[0]
        rows = None
        if batch is not None:
            if mask is None and batch.mask is not None:
                mask, why = batch.mask, "the data"
            tokens = batch.tokens
            # Else the model has regrouped its rows.
            if per_row == 1 and size == len(batch):
                rows = batch.rows
                documents = batch.known_documents() if documents is None else documents
            elif documents is None and per_row > 1 and size == len(batch) * per_row:
                known = batch.known_documents()
                known = batch.rows if known is None else known
                documents = known.repeat_interleave(per_row)
        if mask is not None and mask.dim() == 2 and "position" not in axes:
            # A mask over token positions says nothing about a tensor without them.
            mask = mask.any(dim=1)
        if mask is not None:
            mask = mask.cpu()  # how many count is asked for everywhere, and known here
            missing = int(mask.numel() - mask.sum())
            if missing:
                tally = self.left_out.setdefault(site.name, {})
                tally[why] = tally.get(why, 0) + missing
        if tokens is not None:
            shape = tuple(values.shape[axes.index(a)] for a in ("batch", "position") if a in axes)
            tokens = tokens if shape == tuple(tokens.ids.shape) else None
        self.fired[site.name] += 1
        if self._shared[0] is not batch:
            self._shared = batch, {}
        shared = None if batch is None else self._shared[1]
        read = Activations(values.detach(), axes, mask, rows, documents, tokens, shared)
        self.sink(site.name, read)

    def attempt(self, names: Iterable[str], read: Callable[[], None]) -> None:
        """Read something; an error is raised in a pass of our own and kept in another's.

        Args:
            names: the sites that cannot be read if it fails.
            read: does it.
        """
        if self.batch is not None:
            read()
            return
        try:
            read()
        except Exception as error:  # also ours: his forward pass goes on
            for name in names:
                self.problems.setdefault(name, error)

    def when_closing(self, settle: Callable[[], None]) -> None:
        """Call `settle` before results are computed, while nothing of anybody's is under way."""
        self._closing.append(settle)

    def settle(self) -> None:
        """Read what was held back until more is known."""
        for settle in self._closing:
            settle()

    def require_fired(self) -> None:
        """Raise SiteError for a site that has not fired."""
        silent = [name for name, count in self.fired.items() if count == 0]
        if silent:
            raise SiteError(
                f"site {silent[0]!r} exists and did not fire"
                + (f" (nor did {len(silent) - 1} others)" if len(silent) > 1 else "")
                + "; the model does not pass through it on this input, so leave it out"
            )


def _parameters(model: Any) -> Iterable[Tensor]:
    return model.parameters() if isinstance(model, torch.nn.Module) else ()
