"""Adapters that each break one promise: (check that has to fail, how)."""

from __future__ import annotations

import random
from contextlib import contextmanager
from dataclasses import replace

import torch

from polycode_plugins.activations import Activations, Site
from polycode_plugins.adapters.base import Capture
from polycode_plugins.adapters.module import ModuleAdapter


class TwiceNamed(ModuleAdapter):
    def resolve(self, patterns, example):
        return super().resolve(patterns, example)[:1] * 2


class Wrong(ModuleAdapter):
    @contextmanager
    def capture(self, sites, sink):
        def scaled(name, a):
            sink(name, replace(a, values=a.values * 1.01))

        with super().capture(sites, scaled) as live:
            yield live


class Changing(ModuleAdapter):
    """Its hook returns something."""

    @contextmanager
    def capture(self, sites, sink):
        handle = self.model.register_forward_hook(lambda m, a, out: out + 1e-6)
        try:
            with super().capture(sites, sink) as live:
                yield live
        finally:
            handle.remove()


class Leaving(ModuleAdapter):
    """Removes its hook after success only."""

    @contextmanager
    def capture(self, sites, sink):
        handle = self.model.register_forward_hook(lambda *_: None)
        with super().capture(sites, sink) as live:
            yield live
        handle.remove()


class Late(ModuleAdapter):
    """Keeps references and hands them out when the pass is over."""

    @contextmanager
    def capture(self, sites, sink):
        held = []
        handle = self.model.register_forward_hook(
            lambda *_: [sink(name, a) for name, a in held] and None
        )
        try:
            with super().capture(sites, lambda name, a: held.append((name, a))) as live:
                yield live
        finally:
            handle.remove()

    def forward(self, batch, stop_after=None):
        super().forward(batch)


class Reusing(ModuleAdapter):
    """Streams one buffer again and again."""

    def stream(self, *args, **kwargs):
        kept = {}
        for gathered in super().stream(*args, **kwargs):
            for name, a in gathered.items():
                kept.setdefault(name, a).values[: len(a.values)] = a.values
            yield dict(kept)


class FirstCallOnly(ModuleAdapter):
    def capture(self, sites, sink):
        seen = {}

        def first(name, activations):
            sink(name, seen.setdefault(name.partition(":")[0], activations.clone()))

        return super().capture(sites, first)


class Evaluating(ModuleAdapter):
    def sites(self, example=None):
        self.model.eval()
        return super().sites(example)


class NeedingGradients(ModuleAdapter):
    def sites(self, example=None):
        self.model.requires_grad_(True)
        return super().sites(example)


class Training(ModuleAdapter):
    def sites(self, example=None):
        with torch.no_grad():
            next(self.model.parameters()).add_(0.1)
        return super().sites(example)


class Drawing(ModuleAdapter):
    def sites(self, example=None):
        random.random()
        return super().sites(example)


class BatchNormalising(ModuleAdapter):
    @contextmanager
    def capture(self, sites, sink):
        def centred(name, a):
            sink(name, replace(a, values=a.values - a.values.mean(dim=0)))

        with super().capture(sites, centred) as live:
            yield live


class Unmasked(ModuleAdapter):
    @contextmanager
    def capture(self, sites, sink):
        with super().capture(sites, lambda n, a: sink(n, replace(a, mask=None))) as live:
            yield live


class Inventing(ModuleAdapter):
    def resolve(self, patterns, example):
        known = {s.name for s in self.sites(example)}
        wanted = [patterns] if isinstance(patterns, str) else patterns
        if wanted is not None and not set(wanted) & known:
            return [Site(n) for n in wanted]
        return super().resolve(patterns, example)


class Content(ModuleAdapter):
    """Never minds a site that is silent."""

    @contextmanager
    def capture(self, sites, sink):
        class Mild(Capture):
            def require_fired(self):
                return

        with super().capture(sites, sink) as live:
            live.__class__ = Mild
            yield live


class Halving(ModuleAdapter):
    """What it stops after comes out otherwise."""

    def run(self, batch, sites, sink, *, seed=0):
        def keep(name, a):
            last = name == sites[-1].name
            sink(name, Activations(a.values * 0.5 if last else a.values, a.axes))

        super().run(batch, sites, keep, seed=seed)


class AllShards(ModuleAdapter):
    def batches(self, data, options):
        return super().batches(data, replace(options, shard=(0, 1)))


class Telling(ModuleAdapter):
    def describe(self):
        return {**super().describe(), "model": self.model}


BROKEN = [
    ("sites_have_names", TwiceNamed),
    ("values_are_right", Wrong),
    ("outputs_are_unchanged", Changing),
    ("hooks_are_removed", Leaving),
    ("in_place_operations_are_seen_through", Late),
    ("streamed_values_are_copies", Reusing),
    ("repeated_modules_are_told_apart", FirstCallOnly),
    ("modes_are_restored", Evaluating),
    ("gradient_flags_are_restored", NeedingGradients),
    ("weights_are_unchanged", Training),
    ("random_state_is_restored", Drawing),
    ("batches_do_not_matter", BatchNormalising),
    ("masks_are_respected", Unmasked),
    ("unknown_sites_are_errors", Inventing),
    ("silent_sites_are_errors", Content),
    ("early_stop_changes_nothing", Halving),
    ("shards_part_the_rows", AllShards),
    ("description_is_json", Telling),
]
