"""One pass over texts that leaves, for thousands of units at a time, the records of each.

The pass keeps tensors alone: per unit its best texts, per site a pool of random ones, and the
tokens of what is kept. Records are made out of them afterwards, unit by unit, when they are asked
for (`unit_records.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import torch
from einops import rearrange, repeat
from torch import Tensor

from polycode_plugins.activations import FEATURE_AXES, Activations, Site
from polycode_plugins.adapters.base import Adapter, Batch
from polycode_plugins.adapters.undisturbed import undisturbed
from polycode_plugins.data_options import DataOptions
from polycode_plugins.errors import DataError
from polycode_plugins.explainers.records.moments import Moments
from polycode_plugins.explainers.records.random_texts import RandomTexts
from polycode_plugins.explainers.records.repeats import Repeats
from polycode_plugins.explainers.records.token_strings import TokenStrings
from polycode_plugins.explainers.records.top_texts import WAITING, TopTexts
from polycode_plugins.explainers.units.base import Units
from polycode_plugins.metrics.inputs import check_finite

#: "fixed": the sign with the higher explaining records; "positive": as it is; "both": two units.
Signs = Literal["fixed", "positive", "both"]
UnitsOf = Callable[[Site, int], Sequence[Units]]

#: Random texts kept at each site: for random records, quantiles and moments.
POOL = 128
_VALUES_AT_ONCE = 2**23  # of a projected batch: 32 MB


@dataclass(frozen=True, eq=False)
class Derived:
    """Units that read other sites than theirs, through more than a product.

    Attributes:
        inputs: the sites that they read.
        read: gives their values [batch, position, units] of the inputs' [batch, position, width].
        units: the units, as single features of what `read` gives.
    """

    inputs: tuple[Site, ...]
    read: Callable[[Sequence[Tensor]], Tensor]
    units: Units


class Texts:
    """Tokens, masks and documents of the rows that are kept; the others are forgotten."""

    def __init__(self) -> None:
        self._held: dict[int, tuple[list[int], Tensor, int]] = {}
        self._room = 4096

    def add(self, rows: Tensor, tokens: Tensor, mask: Tensor, documents: Tensor) -> None:
        """Take in a batch: rows, documents [batch], tokens and mask [batch, position]."""
        for i, row in enumerate(rows.tolist()):
            self._held[row] = (tokens[i].tolist(), mask[i], int(documents[i]))

    def forget(self, in_use: Callable[[], set[int]]) -> None:
        """Drop the rows nobody uses, now and then."""
        if len(self._held) > self._room:
            keep = in_use()
            self._held = {row: held for row, held in self._held.items() if row in keep}
            self._room = 2 * len(self._held) + 4096

    def __getitem__(self, row: int) -> tuple[list[int], Tensor]:
        """The ids of the tokens of a row that count, and the mask that says which."""
        tokens, mask, _ = self._held[row]
        return [t for t, counts in zip(tokens, mask.tolist(), strict=True) if counts], mask

    def __len__(self) -> int:
        return len(self._held)


class SiteCollector:
    """What the pass keeps at one site."""

    def __init__(
        self, site: Site, units_of: UnitsOf, n_top: int, signs: Signs, pool: int, seed: int
    ) -> None:
        self.site = site
        self.units: list[Units] = []
        self.tops: list[dict[int, TopTexts]] = []
        self.moments: list[Moments] = []
        self.pool = RandomTexts(pool, seed)
        self.width = 0
        self._units_of = units_of
        self._n_top = n_top
        self._signs = (1,) if signs == "positive" else (1, -1)
        self._last_document = -1

    def receive(self, activations: Activations, repeated: Tensor | None = None) -> None:
        """Take in one batch of the site, but for the rows that are `repeated`, int64."""
        values, mask, rows, documents = _by_position(activations, self.site.name)
        if not self.units:
            self._begin(values)
        if not len(rows):
            return
        if repeated is not None and len(repeated):
            new = ~torch.isin(rows, repeated.to(rows.device))
            values, mask, rows, documents = values[new], mask[new], rows[new], documents[new]
            if not len(rows):
                return
        # A text that came before stands under the number of its first time.
        if int(documents[0]) < self._last_document or bool((documents.diff() < 0).any()):
            raise DataError("the documents come out of order; sort the data by document")
        self._last_document = int(documents[-1])
        self.pool.update(values, mask, rows, documents)
        whole = bool(mask.all())
        if not whole:
            # A position that does not count reads what the first one does: no maximum changes.
            counting = values[torch.arange(len(rows)), mask.long().argmax(dim=1)]
            values = torch.where(mask[:, :, None], values, counting[:, None, :])
        for units, tops, moments in zip(self.units, self.tops, self.moments, strict=True):
            moments.count(mask)
            step = max(1, _VALUES_AT_ONCE // (values.shape[1] * len(units)))
            for i in range(0, len(rows), step):
                part = slice(i, i + step)
                counts = None if whole else mask[part]
                for first, read in units.by_unit(values[part]):
                    moments.update(first, read, counts)
                    tops[1].look(first, read.amax(dim=2), read, rows[part], documents[part])
                    if -1 in tops:  # two reductions: torch's aminmax takes longer than both
                        low = -read.amin(dim=2)
                        tops[-1].look(first, low, read, rows[part], documents[part])
                for top in tops.values():
                    top.settle(at_least=WAITING * len(units))

    def _begin(self, values: Tensor) -> None:
        width = self.width = values.shape[-1]
        self.units = list(self._units_of(self.site, width))
        for units in self.units:
            if units.width != width:
                raise DataError(
                    f"site {self.site.name!r} is {width} wide and the {units.kind} units read "
                    f"{units.width} features; make them for this site"
                )
        self.moments = [Moments(len(units), values.device) for units in self.units]
        self.tops = [
            {
                sign: TopTexts(len(units), self._n_top, values.device)
                for sign in (self._signs[:1] if units.one_sided else self._signs)
            }
            for units in self.units
        ]

    def rows_in_use(self) -> set[int]:
        """Rows that something here refers to."""
        rows = set(self.pool.rows)
        for tops in self.tops:
            for top in tops.values():
                rows |= set(torch.unique(top.rows).tolist())
        return rows


class _DerivedCollector:
    """Puts together what a derived site needs of each batch, and collects what comes of it."""

    def __init__(self, derived: Derived, collector: SiteCollector) -> None:
        self.collector = collector
        self._derived = derived
        self._held: dict[str, Activations] = {}

    def offer(self, name: str, values: Activations, repeated: Tensor) -> None:
        """Take in one of the inputs; what must wait for another is copied."""
        names = [site.name for site in self._derived.inputs]
        last = len(self._held) == len(names) - 1
        self._held[name] = values if last else values.clone()
        if not last:
            return
        held, self._held = [self._held[n] for n in names], {}
        flat = [rearrange(h.values, "batch position ... -> batch position (...)") for h in held]
        made = replace(
            values, values=self._derived.read(flat), axes=("batch", "position", "feature")
        )
        self.collector.receive(made, repeated)


def run_pass(
    adapter: Adapter,
    data: Any,
    sites: Sequence[str] | str | None,
    units_of: UnitsOf,
    *,
    derived: Mapping[str, Derived] | None = None,
    options: DataOptions,
    n_top: int = 20,
    signs: Signs = "fixed",
    pool: int = POOL,
    seed: int = 0,
    tokenizer: Any = None,
    watch: Callable[[Iterable[Batch]], Iterable[Batch]] = iter,
) -> tuple[list[SiteCollector], Texts, TokenStrings]:
    """Stream texts through a model once and keep what records are made of.

    Of a text that occurs several times the first is kept alone: no unit is shown it and scored on
    it, and none has fewer records for it.

    Args:
        adapter: of the model.
        data: texts or tokens, as the adapter reads them.
        sites: names or globs; the adapter's default when None.
        units_of: gives the units of a site, told the site and its width.
        derived: by site those of its units that read other sites; each is collected beside it.
        options: how the data is read.
        n_top: documents kept for each unit and sign.
        signs: see `Signs`.
        pool: random texts kept at each site.
        seed: of the random texts.
        tokenizer: names the tokens; the adapter's own by default.
        watch: sees every batch go by (progress, digests).

    Raises:
        DataError: for a site without positions, inputs without tokens, or no data.
    """
    collectors: dict[str, SiteCollector] = {}
    beside: list[_DerivedCollector] = []
    readers: dict[str, list[_DerivedCollector]] = {}
    captured: list[Site] = []
    texts, repeats = Texts(), Repeats()
    with undisturbed(adapter.model):
        for batch in watch(adapter.batches(data, options)):
            if not collectors:
                captured = adapter.resolve(sites, batch)
                for site in captured:
                    made = SiteCollector(site, units_of, n_top, signs, pool, seed)
                    collectors[site.name] = made
                    if of := (derived or {}).get(site.name):
                        own = SiteCollector(
                            site, partial(_given, [of.units]), n_top, signs, pool, seed
                        )
                        beside.append(_DerivedCollector(of, own))
                        for read in of.inputs:
                            readers.setdefault(read.name, []).append(beside[-1])
                also = {s.name: s for of in (derived or {}).values() for s in of.inputs}
                every = {site.name: site for site in captured} | also
                captured = sorted(every.values(), key=lambda site: site.depth)
            tokens = tokens_of(batch)
            mask = batch.mask if batch.mask is not None else torch.ones_like(tokens).bool()
            documents = batch.documents if batch.documents is not None else batch.rows
            texts.add(batch.rows, tokens, mask.cpu(), documents)
            again = repeats.among(batch.rows, tokens, mask.cpu())

            def receive(name: str, values: Activations, again: Tensor = again) -> None:
                if name in collectors:
                    collectors[name].receive(values, again)
                for reader in readers.get(name, ()):
                    reader.offer(name, values, again)

            adapter.run(batch, captured, receive, seed=options.seed)
            texts.forget(partial(_in_use, [*collectors.values(), *(b.collector for b in beside)]))
    if not collectors:
        raise DataError("the data holds no text; check the path and the limit")
    tokenizer = tokenizer if tokenizer is not None else getattr(adapter, "tokenizer", None)
    return [*collectors.values(), *(b.collector for b in beside)], texts, TokenStrings(tokenizer)


def _given(units: Sequence[Units], site: Site, width: int) -> Sequence[Units]:
    return units


def _in_use(collectors: Sequence[SiteCollector]) -> set[int]:
    return set().union(*(c.rows_in_use() for c in collectors))


def tokens_of(batch: Batch) -> Tensor:
    """int64 [batch, position]: the tokens a batch is made of, on the CPU.

    Raises:
        DataError: for inputs that are no tokens.
    """
    inputs = batch.inputs
    tokens = inputs.get("input_ids") if isinstance(inputs, Mapping) else inputs
    tokens = tokens[0] if isinstance(tokens, tuple) and len(tokens) == 1 else tokens
    if not isinstance(tokens, Tensor) or tokens.dim() != 2 or tokens.is_floating_point():
        raise DataError(
            "explaining a unit needs texts, and this model's inputs are no tokens "
            "[rows, position]; give a language model and texts"
        )
    return tokens.cpu()


def _by_position(activations: Activations, site: str) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """values [batch, position, width], mask, rows, documents of rows where something counts."""
    axes = activations.axes
    if axes[:2] != ("batch", "position") or any(a not in FEATURE_AXES for a in axes[2:]):
        raise DataError(
            f"site {site!r} has axes {', '.join(axes)}; units are explained by tokens, so give a "
            "site with positions and features, for example a block's output"
        )
    if activations.rows is None:
        raise DataError(f"site {site!r} regroups the rows of a batch, so its texts are not known")
    check_finite(activations, site)
    values = rearrange(activations.values, "batch position ... -> batch position (...)")
    mask, rows = activations.mask, activations.rows.to(values.device)
    documents = rows if activations.documents is None else activations.documents.to(values.device)
    if mask is None:
        mask = torch.ones(values.shape[:2], dtype=torch.bool, device=values.device)
    elif mask.dim() == 1:
        mask = repeat(mask, "batch -> batch position", position=values.shape[1])
    mask = mask.to(values.device)
    counts = mask.any(dim=1)
    if not bool(counts.all()):
        values, mask, rows, documents = (
            values[counts],
            mask[counts],
            rows[counts],
            documents[counts],
        )
    return values, mask, rows, documents
