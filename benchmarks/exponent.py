"""How far the exponent of a spectrum is from the population's, and how honest its interval is.

    python benchmarks/exponent.py [--quick] [--seeds N] [--only HEADING] [--cache FOLDER]
                                  [--write FILE]

Rows are Gaussian (or as a table says) with a population spectrum that is exactly i^-exponent at
width 1000, and fits are over ranks 11-500 unless a table says otherwise. The corrected estimator
stands beside the published regressions on the same spectra.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from polycode_plugins.activations import Activations
from polycode_plugins.metrics import Spectrum
from polycode_plugins.metrics.spectrum.law.power_law import PowerLawFit, fit_power_law
from polycode_plugins.metrics.spectrum.summaries import participation_ratio

Array = NDArray[np.float64]
Ends = tuple[float, float]
WIDTH = 1000
EXPONENTS = (0.5, 1.0, 1.5)


def law(exponent: float, width: int = WIDTH) -> Array:
    return np.arange(1.0, width + 1) ** -exponent


def sample(rows: Array) -> Array:
    """Eigenvalues of the centred covariance of rows, without those that must be zero."""
    n, width = rows.shape
    rows = rows - rows.mean(axis=0)
    square = rows.T @ rows if n > width else rows @ rows.T
    return np.asarray(np.linalg.eigvalsh(square)[::-1][: min(width, n - 1)] / (n - 1))


def gaussian(population: Array, n: int, seed: int) -> Array:
    rng = np.random.default_rng([0, seed, n, len(population)])
    return sample(rng.standard_normal((n, len(population))) * np.sqrt(population))


def spectra(exponent: float, n: int, seeds: int, cache: Path | None) -> Array:
    """[seeds, ranks] of exact power laws, kept in a folder between runs where one is named."""
    path = cache / f"gauss_{exponent}_{n}_{WIDTH}.npy" if cache else None
    if path is not None and path.exists() and len(found := np.load(path)) >= seeds:
        return np.asarray(found[:seeds])
    made = np.array([gaussian(law(exponent), n, seed) for seed in range(seeds)])
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, made)
    return made


def quality(fits: Sequence[PowerLawFit], exponent: float) -> str:
    """Cells: bias, sd, half the interval, coverage, share called broken, share irregular."""
    found = np.array([f.exponent for f in fits]) - exponent
    sure = "- | -"
    if given := [f.interval for f in fits if f.interval is not None]:
        low, high = np.array(given).T
        covered = np.mean((low <= exponent) & (exponent <= high))
        sure = f"{np.mean(high - low) / 2:.4f} | {covered:.1%}"
    return (
        f"{found.mean():+.4f} | {found.std():.4f} | {sure} "
        f"| {np.mean([f.broken for f in fits]):.1%} | {np.mean([f.irregular for f in fits]):.1%}"
    )


def table(head: Sequence[str], rows: Sequence[str]) -> str:
    return "\n".join([f"| {' | '.join(head)} |", "|---" * len(head) + "|", *rows])


def corrected(sizes: Sequence[int], seeds: int, cache: Path | None) -> str:
    rows = []
    for n in sizes:
        for exponent in EXPONENTS:
            fits = [fit_power_law(e, n, width=WIDTH) for e in spectra(exponent, n, seeds, cache)]
            rows.append(f"| {n} | {exponent} | {quality(fits, exponent)} |")
    head = "N", "exponent", "bias", "sd", "half interval", "coverage", "broken", "irregular"
    return table(head, rows)


def published(sizes: Sequence[int], seeds: int, cache: Path | None) -> str:
    options: dict[str, dict[str, object]] = {
        "Huber, all ranks": {"fit": "huber", "ranks": (1, None)},
        "Huber 11-500": {"fit": "huber"},
        "Stringer 11-500": {"fit": "stringer"},
        "alpha-ReQ 4-100": {"fit": "alpha-req"},
        "debiased 11-500": {"fit": "debiased"},
    }
    rows = []
    for n in sizes:
        for exponent in EXPONENTS:
            cells = []
            for option in options.values():
                found = [
                    fit_power_law(e, n, width=WIDTH, **option).exponent  # type: ignore[arg-type]
                    for e in spectra(exponent, n, seeds, cache)
                ]
                cells.append(f"{np.mean(found) - exponent:+.3f}")
            rows.append(f"| {n} | {exponent} | {' | '.join(cells)} |")
    return table(("N", "exponent", *options), rows)


def autoregression(rng: np.random.Generator, documents: int, length: int, lag: float) -> Array:
    from scipy.signal import lfilter

    noise = rng.standard_normal((documents, length + 60, WIDTH))
    return np.asarray(lfilter([np.sqrt(1 - lag**2)], [1, -lag], noise, axis=1)[:, 60:])


def by_rank(
    rng: np.random.Generator, lags: Ends, shares: Ends, width: int, documents: int = 60
) -> Array:
    """Rows whose correlation changes evenly with the rank, from its first value to its last.

    lags: of an autoregression of order one; shares: of the variance that all rows of a document
    have in common.
    """
    lag, share = np.linspace(*lags, width), np.linspace(*shares, width)
    rows = rng.standard_normal((documents, 64, width))
    for at in range(1, 64):
        rows[:, at] = lag * rows[:, at - 1] + np.sqrt(1 - lag**2) * rows[:, at]
    common = rng.standard_normal((documents, 1, width))
    return np.asarray(np.sqrt(1 - share) * rows + np.sqrt(share) * common)


def student(rng: np.random.Generator, documents: int, length: int) -> Array:
    norm = np.sqrt(rng.chisquare(8, size=(documents, length, 1)) / 6)
    return np.asarray(rng.standard_normal((documents, length, WIDTH)) / norm)


def sparse(rng: np.random.Generator, documents: int, length: int) -> Array:
    shape = (documents, length, WIDTH)
    return np.asarray(rng.standard_normal(shape) * (rng.random(shape) < 0.1) / np.sqrt(0.1))


KINDS: dict[str, Callable[[np.random.Generator], Array]] = {
    "independent, 50 x 40": lambda g: g.standard_normal((50, 40, WIDTH)),
    "autoregression .5, 40 x 50": lambda g: autoregression(g, 40, 50, 0.5),
    "autoregression .5, 100 x 50": lambda g: autoregression(g, 100, 50, 0.5),
    "autoregression .8, 20 x 100": lambda g: autoregression(g, 20, 100, 0.8),
    "each token 4 times, 50 x 40": lambda g: g.standard_normal((50, 10, WIDTH)).repeat(4, axis=1),
    "Student-t(8) rows, 50 x 40": lambda g: student(g, 50, 40),
    "Laplace features, 50 x 40": lambda g: g.laplace(size=(50, 40, WIDTH)) / np.sqrt(2),
    "features zero in 90%, 50 x 40": lambda g: sparse(g, 50, 40),
}


NONE = (0.0, 0.0)
PROFILES: dict[str, tuple[Ends, Ends]] = {
    "autoregression falls .95 to 0": ((0.95, 0.0), NONE),
    "autoregression rises 0 to .95": ((0.0, 0.95), NONE),
    "document mean falls .5 to 0": (NONE, (0.5, 0.0)),
    "document mean rises 0 to .5": (NONE, (0.0, 0.5)),
    "both fall, .6 to .1 and .3 to .05": ((0.6, 0.1), (0.3, 0.05)),
    "both rise, .1 to .6 and .05 to .3": ((0.1, 0.6), (0.05, 0.3)),
}


def profiles(width: int) -> dict[str, Callable[[np.random.Generator], Array]]:
    """Kinds of rows of this width whose correlation changes with the rank."""
    return {
        f"{name}, width {width}": partial(by_rank, lags=lags, shares=shares, width=width)
        for name, (lags, shares) in PROFILES.items()
    }


def correlated(kinds: Mapping[str, Callable[[np.random.Generator], Array]], seeds: int) -> str:
    """A table of these kinds of rows; each line is printed as soon as its draws are made."""
    rows = []
    axes = ("batch", "position", "feature")
    for name, draw in kinds.items():
        for exponent in EXPONENTS if name.startswith("autoregression .") else (1.0,):
            fits, shares, assumed = [], [], []
            for seed in range(seeds):
                values = draw(np.random.default_rng([1, seed]))
                values = values * np.sqrt(law(exponent, values.shape[-1]))
                documents = torch.arange(len(values))
                batch = Activations(torch.from_numpy(values), axes, documents=documents)
                result = Spectrum().measure(batch)
                fits.append(result.power_law)
                shares.append(result.effective_samples / result.n_samples)
                naive = fit_power_law(result.eigenvalues, result.n_samples, width=result.width)
                assumed.append(naive.exponent)
            untested = np.mean([fit.untested is not None for fit in fits])
            rows.append(
                f"| {name} | {exponent} | {seeds} | {np.mean(shares):.3f} | "
                f"{quality(fits, exponent)} | {untested:.0%} | {np.mean(assumed) - exponent:+.4f} |"
            )
            print(rows[-1], flush=True)
    head = (
        "rows (documents x tokens)", "exponent", "draws", "effective / N", "bias", "sd",
        "half interval", "coverage", "broken", "irregular", "not tested",
        "bias if taken as independent",
    )  # fmt: skip
    return table(head, rows)


def breaks(sizes: Sequence[int], seeds: int) -> str:
    rank = np.arange(1.0, WIDTH + 1)
    populations = {
        "slope -0.8, from rank 50 -1.2": np.minimum(1, rank / 50) ** 0.4 * rank**-1.2,
        "slope -0.5, from rank 100 -1.5": np.minimum(1, rank / 100) * rank**-1.5,
        "slope -1.5, from rank 100 -0.5": np.maximum(1, 100 / rank) * rank**-0.5,
        "exponential, exp(-rank / 100)": np.exp(-rank / 100),
        "steps of 2 in rank and height": np.exp(-np.floor(np.log(rank) / 0.7) * 0.7),
    }
    rows = []
    for name, population in populations.items():
        for n in sizes:
            fits = [
                fit_power_law(gaussian(np.sort(population)[::-1], n, s), n, width=WIDTH)
                for s in range(seeds)
            ]
            at = [f.evidence.rank for f in fits if f.broken and f.evidence is not None]
            rows.append(
                f"| {name} | {n} | {np.mean([f.broken for f in fits]):.0%} | "
                f"{np.mean([f.irregular for f in fits]):.0%} | "
                f"{f'{np.median(at):.0f}' if at else ''} |"
            )
    return table(("population", "N", "called broken", "called irregular", "at rank"), rows)


def dimensions(sizes: Sequence[int], seeds: int, cache: Path | None) -> str:
    rows = []
    for n in sizes:
        for exponent in EXPONENTS:
            ratios = [
                participation_ratio(e, n, width=WIDTH) for e in spectra(exponent, n, seeds, cache)
            ]
            true = law(exponent).sum() ** 2 / np.square(law(exponent)).sum()
            one, two = (
                np.array([getattr(r, k) for r in ratios]) / true for k in ("naive", "corrected")
            )
            rows.append(
                f"| {n} | {exponent} | {true:.1f} | {one.mean():.3f} | {two.mean():.3f} | "
                f"{two.std():.3f} |"
            )
    head = "N", "exponent", "population", "naive / population", "corrected / population", "sd"
    return table(head, rows)


def sections(quick: bool, seeds: int, cache: Path | None) -> dict[str, Callable[[], str]]:
    """What makes the text under each heading; the first has none."""
    sizes = (200, 500) if quick else (200, 500, 2000, 10000)
    few = min(seeds, 5 if quick else 40)
    return {
        "": lambda: (
            f"Population spectra i^-exponent at width {WIDTH}, Gaussian rows, ranks 11-500 (or up "
            f"to N - 1); {seeds} seeds, and {few} in all tables but the first and the last, where "
            "they do not say (`benchmarks/exponent.py`)."
        ),
        "The corrected estimator": lambda: (
            "Coverage is of the 95% interval. `broken` and `irregular` are false alarms here; "
            f"their levels are 5% and 1%.\n\n{corrected(sizes, seeds, cache)}"
        ),
        "Bias of the published regressions on the same spectra": (
            lambda: published(sizes, few, cache)
        ),
        "Rows that are correlated, or not Gaussian": lambda: (
            "N = 2000 or 5000 tokens in documents. The last column is what the corrected estimator "
            f"gives when told that rows are independent.\n\n{correlated(KINDS, few)}"
        ),
        "Rows whose correlation differs by direction": lambda: (
            "60 documents of 64 tokens; the correlation changes evenly with the rank, over all "
            "ranks. At width 100 fits are over ranks 11-100. Where too few rows are left in some "
            "directions, the law is not tested and there is no interval.\n\n"
            f"{correlated(profiles(100), min(seeds, 200))}\n\n"
            f"{correlated(profiles(WIDTH), max(2, few // 8))}"
        ),
        "Spectra that are no single power law": lambda: breaks(sizes[:3], few),
        "Participation ratio": lambda: dimensions(sizes, seeds, cache),
    }


def report(made: Mapping[str, Callable[[], str]], only: str | None, before: str) -> str:
    """The text; sections other than `only` are taken from the text of before."""
    held = {part.split("\n", 1)[0]: part for part in before.split("\n### ")}
    parts = []
    for heading, make in made.items():
        if only is None or only in heading:
            parts.append(f"{heading}\n\n{make()}" if heading else make())
        elif heading in held or not heading:
            parts.append((held[heading] if heading else before.split("\n### ")[0]).strip())
    return "\n\n### ".join(parts) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="N up to 500 and few seeds")
    parser.add_argument("--seeds", type=int, help="default: 50, or 10 with --quick")
    parser.add_argument("--cache", type=Path, help="folder that keeps sample spectra")
    parser.add_argument("--only", help="sections whose heading holds this; others stay in the file")
    parser.add_argument("--write", type=Path, help="also write the tables to this file")
    options = parser.parse_args()
    torch.set_num_threads(1)
    seeds = options.seeds or (10 if options.quick else 50)
    known = options.write is not None and options.write.exists()
    text = report(
        sections(options.quick, seeds, options.cache),
        options.only,
        options.write.read_text(encoding="utf-8") if known else "",
    )
    print(text)
    if options.write:
        options.write.parent.mkdir(parents=True, exist_ok=True)
        options.write.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
