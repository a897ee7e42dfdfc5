"""Stream and results of a whole analysis apart, beside what one writes by hand.

Per network, in one run: the bare forward passes; `pc.analyze` with the spectrum at the residual
stream after every block, its stream and its results apart; and by hand: the hidden states kept,
`torch.cov` in float64 for each site, eigenvalues and a straight line through their logarithms
(which has neither correction nor interval nor test). Clock and processor time.

    python benchmarks/answer.py [SHAPES ..] [--cache FOLDER]

SmolLM2 is the trained one of `make real`; GPT-2's shapes have random weights.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

import polycode_plugins as pc
from polycode_plugins.runs import passes

#: Shapes of GPT-2: (width, blocks, heads, rows of a batch, batches); texts are of 128 tokens.
SHAPES = {"gpt2": (768, 12, 12, 8, 10), "gpt2-xl": (1600, 48, 25, 8, 10)}
LENGTH, VOCABULARY = 128, 8192
SMOLLM2 = "smollm2"


class Watch:
    """Seconds of the clock and of the processor since it was made, with processes that ended."""

    def __init__(self) -> None:
        self.began = time.perf_counter(), _work()

    def read(self) -> tuple[float, float]:
        return time.perf_counter() - self.began[0], _work() - self.began[1]


def _work() -> float:
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def of_shape(name: str) -> tuple[Any, torch.Tensor]:
    """A random model without a head, and token rows [row, position]."""
    from transformers import GPT2Config, GPT2Model

    width, blocks, heads, size, batches = SHAPES[name]
    torch.manual_seed(0)
    config = GPT2Config(
        n_embd=width, n_layer=blocks, n_head=heads, n_positions=LENGTH, vocab_size=VOCABULARY
    )
    return GPT2Model(config).eval(), torch.randint(1, VOCABULARY, (size * batches, LENGTH))


def trained(cache: Path) -> tuple[Any, torch.Tensor]:
    """SmolLM2 and 6,500 tokens of natural text, in rows of 64."""
    from transformers import AutoModel, AutoTokenizer

    model = AutoModel.from_pretrained(cache / SMOLLM2, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(cache / SMOLLM2)
    lines = (cache / "texts" / "texts.jsonl").read_text(encoding="utf-8").splitlines()
    ids = [tokenizer(json.loads(line)["text"])["input_ids"] for line in lines[:2000]]
    rows = [one[:64] for one in ids if len(one) >= 64]
    assert len(rows) >= 102, "too few texts"
    return model, torch.tensor(rows[:102])


def bare(model: Any, rows: torch.Tensor, size: int) -> tuple[float, float]:
    watch = Watch()
    with torch.no_grad():
        for batch in rows.split(size):
            model(batch, use_cache=False)
    return watch.read()


def ours(model: Any, rows: torch.Tensor, size: int, sites: str) -> list[tuple[float, float]]:
    """Stream, results."""
    read: list[tuple[float, float]] = []
    finish: Callable[..., pc.Analysis] = passes.finish
    watch = Watch()

    def finished(*given: Any, **named: Any) -> pc.Analysis:
        read.append(watch.read())
        made = finish(*given, **named)
        read.append(watch.read())
        return made

    passes.finish = finished
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of rows that rule
            adapter = pc.load(model, "transformers")
            pc.analyze(adapter, rows, ["spectrum"], sites, batch_size=size, progress=False)
    finally:
        passes.finish = finish
    (a, b), (c, d) = read
    return [(a, b), (c - a, d - b)]


def by_hand(model: Any, rows: torch.Tensor, size: int) -> list[tuple[float, float]]:
    """Stream, results."""
    kept: list[list[torch.Tensor]] = []
    watch = Watch()
    with torch.no_grad():
        for batch in rows.split(size):
            states = model(batch, use_cache=False, output_hidden_states=True).hidden_states[1:]
            kept = kept or [[] for _ in states]
            for of_site, state in zip(kept, states, strict=True):
                of_site.append(state.flatten(0, 1))
    a, b = watch.read()
    for of_site in kept:
        values = torch.linalg.eigvalsh(torch.cov(torch.cat(of_site).double().T)).flip(0).numpy()
        ranks = np.arange(11, min(500, len(values)) + 1)
        np.polyfit(np.log(ranks), np.log(np.maximum(values[ranks - 1], 1e-30)), 1)
    c, d = watch.read()
    return [(a, b), (c - a, d - b)]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("shapes", nargs="*", metavar="SHAPES", help="default: smollm2 gpt2")
    parser.add_argument(
        "--cache", type=Path, default=Path(os.environ.get("POLYCODE_CACHE", "build/real"))
    )
    options = parser.parse_args()
    threads = torch.get_num_threads()
    print(
        f"torch {torch.__version__}, {threads} threads; seconds of the clock (of the processor)\n"
    )
    heads = ("network", "tokens", "sites", "bare", "stream", "results", "results / stream",
             "by hand: stream", "by hand: results")  # fmt: skip
    print(f"| {' | '.join(heads)} |\n|{'---|' * len(heads)}")
    for name in options.shapes or [SMOLLM2, "gpt2"]:
        if name == SMOLLM2 and not (options.cache / SMOLLM2).is_dir():
            print(f"{SMOLLM2} is not in {options.cache} and is left out; make real gets it")
            continue
        model, rows = trained(options.cache) if name == SMOLLM2 else of_shape(name)
        size = 16 if name == SMOLLM2 else SHAPES[name][3]
        sites = "layers.*" if name == SMOLLM2 else "h.*"
        with torch.no_grad():
            model(rows[:size], use_cache=False)  # code is loaded, memory is allocated
        found = bare(model, rows, size)
        stream, results = ours(model, rows, size, sites)
        kept, fitted = by_hand(model, rows, size)
        cells = [f"{clock:.1f} ({work:.1f})" for clock, work in (found, stream, results)]
        cells.append(f"{results[0] / stream[0]:.2f} ({results[1] / stream[1]:.2f})")
        cells += [f"{clock:.1f} ({work:.1f})" for clock, work in (kept, fitted)]
        blocks = model.config.num_hidden_layers
        print(f"| {name} | {rows.numel():,} | {blocks} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
