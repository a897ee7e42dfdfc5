"""What collecting the records of 5,000 units of one layer costs beside the bare forward pass.

    python benchmarks/collection.py [--quick]

Every batch is run twice, once with a capture that keeps nothing and once with the collector, so
that a busy machine slows both alike. Seconds are of this process's CPU time on one thread. Texts
are random tokens: the cost does not depend on what they say. Memory is what the pass keeps: 20
texts for each unit and sign, and 128 random texts. The goal is 50% for a layer of GPT-2's size; the
tiny model is here to show the worst case, in which 5,000 units dwarf the model.
"""

from __future__ import annotations

import argparse
import time

import torch
from transformers import GPT2Config, GPT2Model

import polycode_plugins as pc
from polycode_plugins.adapters.base import Adapter, DataOptions
from polycode_plugins.adapters.undisturbed import undisturbed
from polycode_plugins.explainers.collect import SiteCollector
from polycode_plugins.explainers.units import Units, neurons, projections

SHAPES = {
    "tiny-gpt2 (128 wide, 6 layers)": (128, 6, 4),
    "medium (512 wide, 8 layers)": (512, 8, 8),
    "GPT-2 (768 wide, 12 layers)": (768, 12, 12),
}


ENDS = {"bos_token_id": 0, "eos_token_id": 0}


class Bare(torch.nn.Module):
    """A GPT-2 without its head, which the last layer's units do not need."""

    def __init__(self, width: int, layers: int, heads: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        config = GPT2Config(n_embd=width, n_layer=layers, n_head=heads, vocab_size=4096, **ENDS)
        self.body = GPT2Model(config)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.body(tokens).last_hidden_state


def measure(
    adapter: Adapter, site: str, units: str, n: int, signs: str, batches: int
) -> tuple[float, float, float]:
    """CPU seconds of the bare passes and of those with the collector, and megabytes kept."""

    def units_of(_: pc.Site, width: int) -> list[Units]:
        return [neurons(width, n) if units == "neurons" else projections(width, n)]

    tokens = torch.randint(0, 4096, (16 * batches, 64), generator=torch.Generator().manual_seed(1))
    bare = collecting = 0.0
    collector = None
    with undisturbed(adapter.model):
        for i, batch in enumerate(adapter.batches(tokens, DataOptions(batch_size=16))):
            if collector is None:
                (where,) = adapter.resolve(site, batch)
                collector = SiteCollector(where, units_of, 20, signs, 128, 0)
                adapter.run(batch, [where], lambda *_: None)  # warm
            keep = lambda _, values, c=collector: c.receive(values)  # noqa: E731
            for what in (0, 1) if i % 2 else (1, 0):
                start = time.process_time()
                adapter.run(batch, [where], keep if what else lambda *_: None)
                took = time.process_time() - start
                bare, collecting = bare + took * (1 - what), collecting + took * what
    held = [
        t
        for tops in collector.tops
        for top in tops.values()
        for t in (top.values, top.rows, top.documents, top.activations)
    ] + collector.pool.activations
    return bare, collecting, sum(t.numel() * t.element_size() for t in held) / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="fewer texts, no GPT-2")
    parser.add_argument("--units", type=int, default=5000)
    options = parser.parse_args()
    torch.set_num_threads(1)
    print("| model | units | signs | texts | bare s | with s | overhead | kept MB |")
    print("|---|---|---|---|---|---|---|---|")
    for name, shape in SHAPES.items():
        batches = {128: 125, 512: 30, 768: 8}[shape[0]]
        if options.quick:
            if shape[0] == 768:
                continue
            batches //= 5
        adapter = pc.load(Bare(*shape))
        for units, signs in (("projections", "positive"), ("projections", "fixed")):
            site = f"body.h.{shape[1] - 1}.mlp"
            bare, with_, kept = measure(adapter, site, units, options.units, signs, batches)
            print(
                f"| {name} | {options.units} {units} | {signs} | {16 * batches} | {bare:.2f} | "
                f"{with_:.2f} | {100 * (with_ / bare - 1):.0f}% | {kept:.0f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
