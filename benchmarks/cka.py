"""How far debiased CKA is from the population's, and how often its interval holds the truth.

    python benchmarks/cka.py [--quick] [--seeds N] [--write FILE]

Codes are Gaussian with a power law as spectrum. y is x mixed with an independent code of the same
spectrum, turned by a rotation: where the share r of the variance comes from x, the population's CKA
is r. Rows are independent, or depend on one another within documents. Every draw has another seed.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from polycode_plugins.metrics import CKA
from polycode_plugins.metrics.cka.alignment import align

Array = NDArray[np.float64]
Rows = Callable[[np.random.Generator, NDArray[np.int64], int], Array]


def alone(rng: np.random.Generator, of: NDArray[np.int64], width: int) -> Array:
    """Independent rows."""
    return rng.standard_normal((len(of), width))


def means(rng: np.random.Generator, of: NDArray[np.int64], width: int) -> Array:
    """A quarter of the variance is the document's mean."""
    common = rng.standard_normal((of.max() + 1, width))
    return 0.75**0.5 * rng.standard_normal((len(of), width)) + 0.5 * common[of]


def falling(rng: np.random.Generator, of: NDArray[np.int64], width: int) -> Array:
    """Autoregression within documents that falls with rank from .9 to 0."""
    lag = np.linspace(0.9, 0, width)
    fresh = rng.standard_normal((len(of), width))
    rows = fresh.copy()
    for i in range(1, len(of)):
        if of[i] == of[i - 1]:
            rows[i] = lag * rows[i - 1] + np.sqrt(1 - lag**2) * fresh[i]
    return rows


def heavy(rng: np.random.Generator, of: NDArray[np.int64], width: int) -> Array:
    """Independent rows of Student's t with 5 degrees of freedom and unit variance."""
    scale = np.sqrt(3 / rng.chisquare(5, len(of)))
    return rng.standard_normal((len(of), width)) * scale[:, None]


def equal(documents: int, tokens: int) -> NDArray[np.int64]:
    """The document of each row, all of one length."""
    return np.repeat(np.arange(documents), tokens)


def unequal(documents: int, tokens: int) -> NDArray[np.int64]:
    """Documents whose lengths differ by a factor of 30, `tokens` on average."""
    lengths = np.exp(np.linspace(0, np.log(30), documents))
    lengths = np.maximum(1, np.round(lengths * tokens / lengths.mean())).astype(int)
    return np.repeat(np.arange(documents), lengths)


CASES: tuple[tuple[str, Rows, NDArray[np.int64], int, float], ...] = (
    # name, rows, document of each, width, exponent
    ("independent rows, 100", alone, equal(100, 1), 500, 0.5),
    ("independent rows, 1000", alone, equal(1000, 1), 200, 1.0),
    ("independent rows, Student 5, 1000", heavy, equal(1000, 1), 100, 1.0),
    ("document means, 20 documents of 50", means, equal(20, 50), 100, 1.0),
    ("document means, 60 of 20", means, equal(60, 20), 100, 0.5),
    ("document means, 300 of 4", means, equal(300, 4), 200, 0.5),
    ("document means, 60, lengths unequal", means, unequal(60, 20), 100, 0.5),
    ("autoregression .9 to 0, 60 of 20", falling, equal(60, 20), 100, 1.0),
)
SHARES = (0.0, 0.3, 0.95)


def tables(seeds: int) -> Iterator[str]:
    """Bias, spread and coverage for every kind of rows and likeness."""
    yield (
        "| rows | width | truth | of the samples | unbiased for independent tokens | here | bias | "
        "sd | covered |\n|" + " --- |" * 9
    )
    for name, rows, of, width, exponent in CASES:
        law = np.arange(1.0, width + 1) ** (-exponent / 2)
        turn = np.linalg.qr(np.random.default_rng(width).standard_normal((width, width)))[0]
        for share in SHARES:
            found, apart, naive, inside = [], [], [], []
            for seed in range(seeds):
                rng = np.random.default_rng([5, seed, width, int(100 * share)])
                x = rows(rng, of, width) * law
                y = np.sqrt(share) * x + np.sqrt(1 - share) * rows(rng, of, width) * law
                result = CKA().measure(x, y @ turn, groups=of)
                found.append(float(result.cka[0]))
                naive.append(float(result.naive[0]))
                inside.append(result.low[0] <= share <= result.high[0])
                if seed < 10:
                    pair = [torch.from_numpy(side).float() for side in (x, y)]
                    dealt = np.random.default_rng(seed).permutation(len(of)) % 64
                    apart.append(float(align(pair, dealt).values[0, 1]))
            yield (
                f"| {name} | {width} | {share:g} | {np.mean(naive):.3f} | {np.mean(apart):.3f} | "
                f"{np.mean(found):.4f} | {np.mean(found) - share:+.4f} | {np.std(found):.4f} | "
                f"{np.mean(inside):.1%} |"
            )
    yield ""


def processor_time() -> Iterator[str]:
    """Seconds for all pairs of sites."""
    yield "### Processor time for all pairs, one thread\n"
    yield "| sites | width | samples kept | seconds |\n| --- | --- | --- | --- |"
    for sites, width in ((12, 768), (30, 576), (48, 1600)):
        drawn = torch.randn(2048, width, generator=torch.Generator().manual_seed(0))
        codes = [drawn.roll(i, 1) for i in range(sites)]
        before = time.process_time()
        align(codes, np.arange(2048) % 64)
        yield f"| {sites} | {width} | 2,048 | {time.process_time() - before:.1f} |"
    yield ""


def main() -> None:
    """Print the tables, and write them where asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a tenth of the draws")
    parser.add_argument("--seeds", type=int, default=200)
    parser.add_argument("--write", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    seeds = max(2, options.seeds // 10) if options.quick else options.seeds
    lines = [
        f"Gaussian codes of which a share is common, {seeds} draws each "
        f"(`benchmarks/cka.py --seeds {seeds}`).\n"
    ]
    for part in (tables(seeds), processor_time()):
        for line in part:
            print(line, flush=True)
            lines.append(line)
    if options.write is not None:
        options.write.write_text("\n".join(lines), encoding="utf-8")


if __name__ == "__main__":
    main()
