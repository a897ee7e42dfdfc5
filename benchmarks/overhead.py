"""What the statistics cost on top of the forward pass they ride on, and whether memory grows.

Per model, in one run and interleaved: the bare forward pass, the pass with all that the spectrum
needs (covariance, and groups of rows for their dependence) at every residual-stream site, and what
a user would write today (run_with_cache, then torch.cov per site). Random weights: time does not
depend on them.

    python benchmarks/overhead.py [--quick]
"""

from __future__ import annotations

import argparse
import contextlib
import io
import logging
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

from polycode_plugins.adapters.base import Batch, DataOptions
from polycode_plugins.adapters.transformer_lens.adapter import TransformerLensAdapter
from polycode_plugins.adapters.undisturbed import undisturbed
from polycode_plugins.metrics import Spectrum
from polycode_plugins.metrics.base import Accumulator
from polycode_plugins.metrics.inputs import check_finite

SHAPES = {  # name: (width, layers, heads, batch, context, vocabulary)
    "tiny (d=128, 6 layers)": (128, 6, 4, 16, 64, 4096),
    "small (d=768, 12 layers)": (768, 12, 12, 8, 128, 8192),
    "xl-like (d=1600, 4 layers)": (1600, 4, 25, 4, 256, 8192),
}
SITES = {
    "resid_post": "blocks.*.hook_resid_post",
    "pre + mid + post": "blocks.*.hook_resid_*",
}


def build(
    width: int, layers: int, heads: int, context: int, vocabulary: int
) -> TransformerLensAdapter:
    """A random GPT-2 in TransformerLens, through the same folder path as a real one."""
    from tokenizers import Tokenizer, models
    from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

    logging.disable(logging.WARNING)
    torch.manual_seed(0)
    config = GPT2Config(
        n_embd=width, n_layer=layers, n_head=heads, n_positions=context, vocab_size=vocabulary
    )
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stderr(io.StringIO()):
        GPT2LMHeadModel(config).save_pretrained(folder)
        words = Tokenizer(models.WordLevel({"<|endoftext|>": 0, "a": 1}, unk_token="a"))
        PreTrainedTokenizerFast(
            tokenizer_object=words, bos_token="<|endoftext|>", eos_token="<|endoftext|>"
        ).save_pretrained(folder)
        return TransformerLensAdapter(folder)


class Gather:
    """The sink of an analysis with the accumulators of a spectrum per site."""

    def __init__(self, names: list[str], precision: str) -> None:
        metric = Spectrum(precision=precision)
        self.held: dict[str, list[Accumulator]] = {
            n: list(metric.accumulators().values()) for n in names
        }

    def __call__(self, name: str, activations) -> None:
        check_finite(activations, name)
        for accumulator in self.held[name]:
            accumulator.update(activations)


def passes(adapter: TransformerLensAdapter, batches: list[Batch], glob: str) -> dict[str, Callable]:
    sites = adapter.resolve(glob, batches[0])
    last = sites[-1]

    def bare() -> None:
        for batch in batches:
            adapter.forward(batch, stop_after=last)

    def streamed(precision: str) -> Callable[[], None]:
        def run() -> None:
            sink = Gather([s.name for s in sites], precision)
            for batch in batches:
                adapter.run(batch, sites, sink)

        return run

    def by_hand() -> None:
        # One float64 matrix per site, as one writes it: cache, concatenate, torch.cov.
        kept: dict[str, list[torch.Tensor]] = {s.name: [] for s in sites}
        for batch in batches:
            _, cache = adapter.model.run_with_cache(
                batch.inputs, names_filter=lambda n: n in kept, return_type=None
            )
            for name in kept:
                kept[name].append(cache[name].flatten(0, 1))
        for rows in kept.values():
            torch.cov(torch.cat(rows).double().T)

    return {
        "bare": bare,
        "float64": streamed("float64"),
        "float32": streamed("float32"),
        "by hand": by_hand,
    }


def measure(tokens_wanted: int, repeats: int, only: str | None) -> None:
    print("| model | sites | bare [s] | ours float64 | ours float32 | cache + torch.cov |")
    print("|---|---|---|---|---|---|")
    for name, (width, layers, heads, batch, context, vocabulary) in SHAPES.items():
        if only is not None and only not in name:
            continue
        adapter = build(width, layers, heads, context, vocabulary)
        count = max(2, tokens_wanted * 128 // (width * batch * context) + 1)
        tokens = torch.randint(1, vocabulary, (count * batch, context))
        batches = list(adapter.batches(tokens, DataOptions(batch_size=batch)))
        for label, glob in SITES.items():
            todo = passes(adapter, batches, glob)
            times: dict[str, list[float]] = {k: [] for k in todo}
            with undisturbed(adapter.model):
                for kind in todo.values():
                    kind()
                for _ in range(repeats):
                    for kind, run in todo.items():
                        start = time.perf_counter()
                        run()
                        times[kind].append(time.perf_counter() - start)
            bare = statistics.median(times["bare"])
            ratio = {
                k: statistics.median(a / b for a, b in zip(v, times["bare"], strict=True))
                for k, v in times.items()
            }
            print(
                f"| {name} | {label} | {bare:.2f} | {ratio['float64']:.2f}x "
                f"| {ratio['float32']:.2f}x | {ratio['by hand']:.2f}x |",
                flush=True,
            )


def peak(tokens: int) -> None:
    """Print the peak memory [MiB] of streaming `tokens` tokens; run in a process of its own."""
    adapter = build(128, 6, 4, 64, 4096)
    data = torch.randint(1, 4096, (tokens // 64, 64))
    sites = adapter.resolve(SITES["resid_post"], None)
    sink = Gather([s.name for s in sites], "float64")
    base = _peak_memory()
    with undisturbed(adapter.model):
        for batch in adapter.batches(data, DataOptions(batch_size=64)):
            adapter.run(batch, sites, sink)
    print(f"{base:.0f} {_peak_memory():.0f}")


def _peak_memory() -> float:
    """MiB. getrusage would not do: on Linux a child inherits its parent's peak."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def memory(lengths: list[int]) -> None:
    print("\n| tokens | peak before the pass [MiB] | peak after it [MiB] |")
    print("|---|---|---|")
    for tokens in lengths:
        done = subprocess.run(
            [sys.executable, __file__, "--peak", str(tokens)],
            capture_output=True,
            text=True,
            check=True,
        )
        before, after = done.stdout.split()
        print(f"| {tokens} | {before} | {after} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", help="part of a model's name")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--peak", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.peak:
        peak(options.peak)
        return
    print(
        f"torch {torch.__version__}, {Path('/proc/cpuinfo').read_text().count('processor')} "
        f"cores, {torch.get_num_threads()} threads; ratios to the bare pass, median of pairs\n"
    )
    measure(16_000 if options.quick else 120_000, 3 if options.quick else 7, options.only)
    memory([20_000, 80_000] if options.quick else [50_000, 400_000])


if __name__ == "__main__":
    main()
