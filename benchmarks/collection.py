"""What collecting the records of 5,000 units of one layer costs beside the bare forward pass.

    python benchmarks/collection.py [--quick] [--repeats 3]

Every batch is run three times, in turn: with a capture that keeps nothing, with one that only
computes what the units read (the floor: no collector can do without), and with the collector, so
that a busy machine slows all alike. Seconds are of this process's CPU time on one thread; shares
are medians over the repeats. Texts are random tokens: the cost does not depend on what they say,
but it falls with their number, because fewer and fewer texts are among the best. Memory is what the
pass keeps: 20 texts for each unit and sign, and 128 random texts. The goal is 50%; the tiny model
is the worst case, in which 5,000 units dwarf the model.
"""

from __future__ import annotations

import argparse
import time
from statistics import median

import torch
from transformers import GPT2Config, GPT2Model

import polycode_plugins as pc
from polycode_plugins.adapters.base import Adapter, DataOptions
from polycode_plugins.adapters.undisturbed import undisturbed
from polycode_plugins.explainers.records.one_pass import SiteCollector
from polycode_plugins.explainers.units.base import Units
from polycode_plugins.explainers.units.projections import projections

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
    adapter: Adapter, site: str, units: Units, signs: str, batches: int
) -> tuple[list[float], float]:
    """CPU seconds bare, with what the units read, and with the collector; megabytes kept."""
    tokens = torch.randint(0, 4096, (16 * batches, 64), generator=torch.Generator().manual_seed(1))
    took = [0.0, 0.0, 0.0]
    collector = None
    with undisturbed(adapter.model):
        for i, batch in enumerate(adapter.batches(tokens, DataOptions(batch_size=16))):
            if collector is None:
                (where,) = adapter.resolve(site, batch)
                collector = SiteCollector(where, lambda *_: [units], 20, signs, 128, 0)
                adapter.run(batch, [where], lambda *_: None)  # warm
            keep = (
                lambda *_: None,
                lambda _, found: [None for _ in units.by_unit(found.values)],
                lambda _, found, c=collector: c.receive(found),
            )
            for what in range(i, i + 3):
                start = time.process_time()
                adapter.run(batch, [where], keep[what % 3])
                took[what % 3] += time.process_time() - start
    held = [t for tops in collector.tops for top in tops.values() for t in top.tensors()]
    held += collector.pool.activations
    return took, sum(t.numel() * t.element_size() for t in held) / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="fewer texts, no GPT-2")
    parser.add_argument("--units", type=int, default=5000)
    parser.add_argument("--repeats", type=int, default=None, help="3, and 1 with --quick")
    parser.add_argument("--widths", type=int, nargs="*", help="of the models, all by default")
    options = parser.parse_args()
    torch.set_num_threads(1)
    print("| model | signs | texts | bare s | collecting s | reading alone | overhead | kept MB |")
    print("|---|---|---|---|---|---|---|---|")
    for name, shape in SHAPES.items():
        batches = {128: 125, 512: 30, 768: 8}[shape[0]]
        if shape[0] not in (options.widths or ([128, 512] if options.quick else [128, 512, 768])):
            continue
        batches //= 5 if options.quick else 1
        adapter = pc.load(Bare(*shape))
        units = projections(shape[0], options.units)
        for signs in ("positive", "both"):
            found = [
                measure(adapter, f"body.h.{shape[1] - 1}.mlp", units, signs, batches)
                for _ in range(options.repeats or (1 if options.quick else 3))
            ]
            bare, _, collecting = (median(took[i] for took, _ in found) for i in range(3))
            floor, overhead = (median(took[i] / took[0] - 1 for took, _ in found) for i in (1, 2))
            print(
                f"| {name} | {signs} | {16 * batches} | {bare:.2f} | {collecting:.2f} | "
                f"{floor:.0%} | {overhead:.0%} | {found[0][1]:.0f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
