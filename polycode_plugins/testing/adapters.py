"""Checks of adapters: what is captured, and that nothing else changes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from polycode_plugins.activations import Activations, Site
from polycode_plugins.adapters.base import Adapter, Batch
from polycode_plugins.adapters.undisturbed import seed_batch, undisturbed
from polycode_plugins.errors import SiteError
from polycode_plugins.testing.cases import AdapterCase
from polycode_plugins.testing.outcome import CheckFailed, fail, require, skip
from polycode_plugins.testing.watching import (
    Condition,
    Interruption,
    as_found,
    failing,
    hooks_on,
    mixed,
    outputs_of,
    same_tensors,
)

Captured = dict[str, Activations]


def sites_have_names(case: AdapterCase) -> None:
    """Sites have one name each, come in the same order each time, and are found by their names."""
    adapter, batch, sites = _begin(case)
    names = [site.name for site in sites]
    require(len(sites) > 0, "no sites were found")
    require(len(set(names)) == len(names), "two sites have one name")
    with undisturbed(adapter.model):
        listed = adapter.sites(batch)
        again = adapter.sites(batch)
        require(
            [s.name for s in listed] == [s.name for s in again],
            "sites() gives other names the second time",
        )
        for site in sites[:: max(1, len(sites) // 3)]:  # each costs a forward pass
            found = [s.name for s in adapter.resolve(site.name, batch)]
            require(found == [site.name], f"asking for {site.name!r} finds {found}")


def values_are_right(case: AdapterCase) -> None:
    """What is captured is what the model computed, by other means than the adapter."""
    if case.truth is None:
        skip("the case gives no truth=")
    adapter, batch, _ = _begin(case)
    with undisturbed(adapter.model):
        truth = case.truth(batch)
        seen = _captured(adapter, batch, adapter.resolve(list(truth), batch))
    for name, values in truth.items():
        _close(seen[name].values, values, case.tolerance, f"site {name!r} is not what it should be")


def outputs_are_unchanged(case: AdapterCase) -> None:
    """The model's outputs are the same to the last bit with and without capture."""
    adapter, batch, sites = _begin(case)
    with undisturbed(adapter.model):
        plain = _outputs(adapter, batch)
        with adapter.capture(sites, _ignore) as live:
            live.batch = batch
            watched = _outputs(adapter, batch)
        after = _outputs(adapter, batch)
    require(same_tensors(plain, watched), "the model's output is another one while capturing")
    require(same_tensors(plain, after), "the model's output is another one after capturing")


def hooks_are_removed(case: AdapterCase) -> None:
    """No hook is left after success, after an error in the model, the sink or the caller's code."""
    adapter, batch, sites = _begin(case)
    before = hooks_on(adapter.model)
    calls: list[str] = []

    def raising(*_: Any) -> None:
        raise Interruption

    with undisturbed(adapter.model):
        with adapter.capture(sites, lambda name, _: calls.append(name)) as live:
            live.batch = batch
            adapter.forward(batch)
        require(bool(calls), "nothing was captured")
        calls.clear()
        adapter.forward(batch)
        require(not calls, f"{calls[:1]} is still captured after the context is closed")
        _none_left(adapter, before, "after success")
        for place, sink in (("the sink", raising), ("the caller's code", _ignore)):
            try:
                with adapter.capture(sites, sink) as live:
                    live.batch = batch
                    adapter.forward(batch)
                    raise Interruption
            except Interruption:
                pass
            _none_left(adapter, before, f"after an error in {place}")
        with failing(adapter.model):
            inside = hooks_on(adapter.model)
            try:
                adapter.run(batch, sites, _ignore)
            except Interruption:
                pass
            else:
                fail("an error in the model was swallowed")
            _none_left(adapter, inside, "after an error in the model")


def in_place_operations_are_seen_through(case: AdapterCase) -> None:
    """A tensor that the model overwrites later is captured as it was when its site fired."""
    if case.in_place is None:
        skip("the case names no in_place= site")
    adapter, batch, sites = _begin(case, case.in_place)
    with undisturbed(adapter.model):
        (site,) = sites
        whole = _captured(adapter, batch, sites, whole_pass=True)[site.name].values
        if case.truth is not None and site.name in (known := case.truth(batch)):
            right = known[site.name]
        else:
            right = _captured(adapter, batch, sites)[site.name].values
    _close(whole, right, case.tolerance, f"site {site.name!r} holds what was written over it")


def streamed_values_are_copies(case: AdapterCase) -> None:
    """Batches that were streamed stay as they were while later ones come and are changed."""
    adapter = case.make()
    kept: list[tuple[Tensor, Tensor]] = []
    for gathered in adapter.stream(case.data, case.sites, options=case.options):
        kept += [(a.values, a.values.clone()) for a in gathered.values()]
    for values, copy in kept:
        require(torch.equal(values, copy), "a batch changed after it was handed out")
        require(not values.requires_grad, "a batch still hangs on the graph of its gradients")


def repeated_modules_are_told_apart(case: AdapterCase) -> None:
    """Each call of a module that is used several times in a pass is a site of its own."""
    if not case.repeated:
        skip("the case names no repeated= sites")
    adapter, batch, sites = _begin(case, list(case.repeated))
    with undisturbed(adapter.model):
        together = _captured(adapter, batch, sites)
        for site in sites:
            alone = _captured(adapter, batch, [site])
            require(
                torch.equal(alone[site.name].values, together[site.name].values),
                f"{site.name!r} alone has other values than beside the other calls",
            )
    values = [together[name].values for name in case.repeated]
    for a, b in pairwise(values):
        same = a.shape == b.shape and torch.equal(a, b)
        require(not same, "two calls of one module have the same values")


def modes_are_restored(case: AdapterCase) -> None:
    """Train and evaluation modes, module by module, are as before."""
    _left_as_found(case, "modes")


def gradient_flags_are_restored(case: AdapterCase) -> None:
    """Gradients, requires_grad flags and the grad mode are as before."""
    _left_as_found(case, "gradients")


def weights_are_unchanged(case: AdapterCase) -> None:
    """Parameters and buffers hold the same values as before."""
    _left_as_found(case, "weights")


def random_state_is_restored(case: AdapterCase) -> None:
    """The random states of Python, NumPy and torch are as before."""
    _left_as_found(case, "random")


def batches_do_not_matter(case: AdapterCase) -> None:
    """Any split of the data into batches gives the same rows and the same activations."""
    whole = _streamed(case, 64)
    for size in (1, 2, 3):
        parts = _streamed(case, size)
        for name, (rows, values) in whole.items():
            require(
                torch.equal(parts[name][0], rows),
                f"site {name!r} sees other rows with batches of {size}",
            )
            what = f"site {name!r} has other values with batches of {size}"
            _close(parts[name][1], values, case.tolerance, what)


def masks_are_respected(case: AdapterCase) -> None:
    """What the batch's mask leaves out reaches no statistic; everything else does."""
    adapter, batch, sites = _begin(case)
    with undisturbed(adapter.model):
        rows = torch.ones(len(batch), dtype=torch.bool)
        # Without a mask in the batch one that the model is called with counts.
        full = _captured(adapter, replace(batch, mask=rows.clone()), sites)
        rows[0] = False
        if len(batch) < 2:
            fail("a batch needs at least two rows to mask one; give the case more data")
        seen = _captured(adapter, replace(batch, mask=rows), sites)
        for name, all_of_it in full.items():
            expected = all_of_it.matrix()[all_of_it.sample_rows() != 0]
            _same_samples(seen[name].matrix(), expected, name)
        lengths = {
            a.values.shape[1] for a in full.values() if a.axes == ("batch", "position", "feature")
        }
        for length in lengths:
            places = torch.arange(length)[None] % (torch.arange(len(batch))[:, None] + 2) != 0
            seen = _captured(adapter, replace(batch, mask=places), sites)
            for name, all_of_it in full.items():
                values = all_of_it.values
                if values.shape[:2] == places.shape and "position" in all_of_it.axes:
                    _same_samples(seen[name].matrix(), values[places], name)


def unknown_sites_are_errors(case: AdapterCase) -> None:
    """A site that does not exist is a SiteError that names it, not an empty result."""
    adapter, batch, _ = _begin(case)
    name = "surely.no.such_site"
    with undisturbed(adapter.model):
        try:
            found = adapter.resolve([name], batch)
        except SiteError as error:
            require(name in str(error), f"the error does not name the site: {error}")
        else:
            fail(f"asking for {name!r} gives {[s.name for s in found]}")


def silent_sites_are_errors(case: AdapterCase) -> None:
    """A site that does not fire is a SiteError, not an empty result."""
    adapter, batch, sites = _begin(case)
    with undisturbed(adapter.model), adapter.capture(sites, _ignore) as live:
        try:
            live.require_fired()
        except SiteError:
            pass
        else:
            fail("require_fired() is content although no forward pass has run")
    if case.silent is None:
        return
    with undisturbed(adapter.model):
        try:
            adapter.run(batch, adapter.resolve(case.silent, batch), _ignore)
        except SiteError:
            return
    fail(f"{case.silent!r} did not fire and nobody said so")


def early_stop_changes_nothing(case: AdapterCase) -> None:
    """Leaving the pass after a site gives the values of a whole pass, and a model that still works.

    The values of a site are also the same whether it is captured alone or with others.
    """
    adapter, batch, sites = _begin(case)
    with undisturbed(adapter.model):
        before = _outputs(adapter, batch)
        whole = _captured(adapter, batch, sites, whole_pass=True)
        for site in dict.fromkeys((sites[0], sites[-1])):
            stopped = _captured(adapter, batch, [site])[site.name].values
            require(
                torch.equal(stopped, whole[site.name].values),
                f"{site.name!r} has other values when the pass ends after it",
            )
        after = _outputs(adapter, batch)
    require(same_tensors(before, after), "the model's output is another one after an early stop")


def shards_part_the_rows(case: AdapterCase) -> None:
    """Shards are disjoint and together the whole; a limit is kept."""
    adapter = case.make()

    def rows(**changes: Any) -> list[int]:
        batches = adapter.batches(case.data, replace(case.options, **changes))
        return [int(i) for batch in batches for i in batch.rows]

    whole = rows(batch_size=1)
    require(whole == sorted(set(whole)), "rows are not numbered once each, in order")
    parts = [i for shard in range(2) for i in rows(batch_size=1, shard=(shard, 2))]
    require(sorted(parts) == whole, "two shards are not the whole: rows are lost or read twice")
    require(len(rows(batch_size=1, limit=2)) <= 2, "more rows are read than limit= allows")


def description_is_json(case: AdapterCase) -> None:
    """`describe` gives JSON values, the same each time: runs are told apart by it."""
    import json

    first, second = (json.dumps(case.make().describe(), sort_keys=True) for _ in range(2))
    require(first == second, "describe() gives other values the second time")


CHECKS = (
    sites_have_names,
    values_are_right,
    outputs_are_unchanged,
    hooks_are_removed,
    in_place_operations_are_seen_through,
    streamed_values_are_copies,
    repeated_modules_are_told_apart,
    modes_are_restored,
    gradient_flags_are_restored,
    weights_are_unchanged,
    random_state_is_restored,
    batches_do_not_matter,
    masks_are_respected,
    unknown_sites_are_errors,
    silent_sites_are_errors,
    early_stop_changes_nothing,
    shards_part_the_rows,
    description_is_json,
)


def _begin(
    case: AdapterCase, wanted: Sequence[str] | str | None = None
) -> tuple[Adapter, Batch, list[Site]]:
    adapter = case.make()
    batch = next(iter(adapter.batches(case.data, case.options)), None)
    if batch is None:
        fail("the case's data gives no batch")
    with undisturbed(adapter.model):
        return adapter, batch, adapter.resolve(case.sites if wanted is None else wanted, batch)


def _captured(
    adapter: Adapter, batch: Batch, sites: Sequence[Site], *, whole_pass: bool = False
) -> Captured:
    """What one pass hands to the sink, copied at once; it ends after the last site by default."""
    seen: Captured = {}

    def keep(name: str, value: Activations) -> None:
        seen[name] = value.clone()

    if not whole_pass:
        adapter.run(batch, sites, keep)
        return seen
    with adapter.capture(sites, keep) as live:
        live.batch = batch
        seed_batch(0, int(batch.rows[0]))
        adapter.forward(batch)
        live.require_fired()
    return seen


def _outputs(adapter: Adapter, batch: Batch) -> list[Tensor]:
    seed_batch(0, int(batch.rows[0]))
    with outputs_of(adapter.model) as found:
        adapter.forward(batch)
    return found


def _streamed(case: AdapterCase, batch_size: int) -> dict[str, tuple[Tensor, Tensor]]:
    """{site: (rows of the samples, samples)} of all the data."""
    parts: dict[str, list[tuple[Tensor, Tensor]]] = {}
    options = replace(case.options, batch_size=batch_size)
    for gathered in case.make().stream(case.data, case.sites, options=options):
        for name, found in gathered.items():
            local = found.sample_rows()
            rows = local if found.rows is None else found.rows.to(local.device)[local]
            parts.setdefault(name, []).append((rows, found.matrix()))
    return {
        name: (torch.cat([r for r, _ in pieces]), torch.cat([v for _, v in pieces]))
        for name, pieces in parts.items()
    }


def _left_as_found(case: AdapterCase, aspect: str) -> None:
    adapter, batch, sites = _begin(case)
    with as_found(adapter.model), mixed(adapter.model):
        before = Condition.of(adapter.model, aspect)
        adapter.sites(batch)
        before.require_same(adapter.model, "after listing the sites")
        for train_mode in (False, True):
            for _ in adapter.stream(
                case.data, case.sites, options=case.options, train_mode=train_mode
            ):
                pass
            before.require_same(adapter.model, "after streaming")
        with adapter.capture(sites, _ignore) as live:
            before.require_same(adapter.model, "while a capture is open")
            live.batch = batch
            with undisturbed(adapter.model):
                adapter.forward(batch)
        before.require_same(adapter.model, "after a forward pass under capture")


def _none_left(adapter: Adapter, before: int, when: str) -> None:
    left = hooks_on(adapter.model) - before
    require(left == 0, f"{left} hooks are left {when}")


def _close(found: Tensor, expected: Tensor, tolerance: float, what: str) -> None:
    if found.shape != expected.shape:
        raise CheckFailed(f"{what}: shape {tuple(found.shape)}, not {tuple(expected.shape)}")
    scale = float(expected.abs().max()) if expected.numel() else 0.0
    error = float((found.double() - expected.double()).abs().max()) if expected.numel() else 0.0
    # Written so that NaN fails.
    require(
        error <= tolerance * scale, f"{what}: off by {error:.3g} where the largest is {scale:.3g}"
    )


def _same_samples(found: Tensor, expected: Tensor, name: str) -> None:
    require(
        found.shape == expected.shape and torch.equal(found, expected),
        f"site {name!r} lets through other samples ({len(found)}) than its mask ({len(expected)})",
    )


def _ignore(_name: str, _value: Activations) -> None:
    return
