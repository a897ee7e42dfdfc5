"""How far measures of a spectrum are from the population's, and whether rows that rule are found.

    python benchmarks/effective_dimensions.py [--quick] [--seeds N] [--write FILE]

Rows are Gaussian with a planted population spectrum at width 200, independent or correlated within
documents or not Gaussian as a table says. Every draw has another seed.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from polycode_plugins.activations import Activations
from polycode_plugins.metrics import Covariance
from polycode_plugins.metrics.spectrum.effective_dimensions import Estimate, effective_dimensions
from polycode_plugins.metrics.spectrum.first_direction import first_direction
from polycode_plugins.metrics.spectrum.priority_sample import PrioritySample
from polycode_plugins.metrics.spectrum.row_spread import spread_of_kept
from polycode_plugins.metrics.spectrum.rows.correlation import INDEPENDENT
from polycode_plugins.metrics.spectrum.rows.groups import RowGroups

Array = NDArray[np.float64]
WIDTH = 200
RATIOS = (0.25, 0.5, 1.0, 4.0)
AXES = ("batch", "position", "feature")


def populations(width: int) -> dict[str, Array]:
    """Spectra by name."""
    ranks = np.arange(1.0, width + 1)
    flat = np.ones(width)
    flat[:5] = [200, 100, 50, 25, 12]
    return {
        "i^-0.5": ranks**-0.5,
        "i^-1": ranks**-1.0,
        "i^-1.5": ranks**-1.5,
        "flat with 5 spikes": flat,
        "exp(-8 i / width)": np.exp(-8 * ranks / width),
        "i^-1.2 + 0.01": ranks**-1.2 + 0.01,
    }


def truths(population: Array) -> dict[str, float]:
    """The measures of a population."""
    p = population / population.sum()
    roots = np.sqrt(population) / np.sqrt(population).sum()
    shares = np.cumsum(p)
    return {
        "participation_ratio": 1 / float(np.sum(p**2)),
        "effective_rank": float(np.exp(-np.sum(roots * np.log(roots)))),
        "stable_rank": 1 / float(p[0]),
        "spectral_entropy": -float(np.sum(p * np.log(p))),
        "matrix_entropy": -float(np.log2(np.sum(p**2))),
        **{f"rank_{q}": 1.0 + int(np.searchsorted(shares, q / 100 - 1e-12)) for q in (90, 95, 99)},
    }


def eigenvalues(rows: Array) -> Array:
    """Of the centred covariance, without those that must be zero."""
    n, width = rows.shape
    rows = rows - rows.mean(axis=0)
    square = rows.T @ rows if n > width else rows @ rows.T
    return np.maximum(np.linalg.eigvalsh(square)[::-1][: min(width, n - 1)] / (n - 1), 0)


def cells(found: list[Estimate], truth: float) -> str:
    """Truth, the sample's mean, and of the corrected: mean, bias, sd, coverage, how often given."""
    given = [one.value for one in found if one.value is not None]
    inside = [one.interval[0] <= truth <= one.interval[1] for one in found if one.interval]
    naive = float(np.mean([one.naive for one in found]))
    if not given:
        return f"{truth:.4g} | {naive:.4g} | - | - | - | - | 0%"
    covered = f"{np.mean(inside):.1%}" if inside else "-"
    return (
        f"{truth:.4g} | {naive:.4g} | {np.mean(given):.4g} | {np.mean(given) / truth - 1:+.1%} | "
        f"{np.std(given) / truth:.1%} | {covered} | {len(given) / len(found):.0%}"
    )


HEAD = "truth | of the sample | corrected | bias | sd | covered | given |"


def independent(seeds: int) -> Iterator[str]:
    """Tables of all measures over populations and numbers of samples."""
    found: dict[str, list[str]] = {}
    for name, population in populations(WIDTH).items():
        truth = truths(population)
        for ratio in RATIOS:
            n = int(ratio * WIDTH)
            drawn = []
            for seed in range(seeds):
                rng = np.random.default_rng([1, seed, n])
                rows = rng.standard_normal((n, WIDTH)) * np.sqrt(population)
                drawn.append(effective_dimensions(eigenvalues(rows), n, width=WIDTH).named())
            for measure, value in truth.items():
                if measure == "matrix_entropy":  # the logarithm of the participation ratio
                    continue
                line = cells([one[measure] for one in drawn], value)
                found.setdefault(measure, []).append(f"| {name} | {n} | {line} |")
    for measure, lines in found.items():
        yield f"### {measure.replace('_', ' ').capitalize()}, width {WIDTH}, {seeds} draws each\n"
        yield f"| population | samples | {HEAD}\n|{' --- |' * 9}"
        yield "\n".join(lines) + "\n"


def autoregression(rng: np.random.Generator, shape: tuple[int, int, int], lag: Array) -> Array:
    """[documents, tokens, width], each feature with its own correlation of neighbours."""
    fresh = rng.standard_normal(shape)
    rows = fresh.copy()
    for token in range(1, shape[1]):
        rows[:, token] = lag * rows[:, token - 1] + np.sqrt(1 - lag**2) * fresh[:, token]
    return rows


def correlated(seeds: int) -> Iterator[str]:
    """A table of tokens that depend on one another within documents."""
    width = 100
    law = np.arange(1.0, width + 1) ** -1.0
    truth = truths(law)
    kinds: dict[str, Callable[[np.random.Generator], Array]] = {
        "autoregression .5, 40 x 20": lambda g: autoregression(
            g, (40, 20, width), np.full(width, 0.5)
        ),
        "autoregression .9, 40 x 50": lambda g: autoregression(
            g, (40, 50, width), np.full(width, 0.9)
        ),
        "rows repeated 4 times, 40 x 20": lambda g: np.repeat(
            g.standard_normal((40, 5, width)), 4, axis=1
        ),
        "autoregression .42 to .13 with rank, 60 x 64": lambda g: autoregression(
            g, (60, 64, width), np.linspace(0.42, 0.13, width)
        ),
        "document means, a quarter of the variance, 60 x 50": lambda g: (
            0.75**0.5 * g.standard_normal((60, 50, width)) + 0.5 * g.standard_normal((60, 1, width))
        ),
        "autoregression .95 to 0 with rank, 40 x 50": lambda g: autoregression(
            g, (40, 50, width), np.linspace(0.95, 0, width)
        ),
    }
    yield f"### Tokens that depend on one another, i^-1, width {width}, {seeds} draws each\n"
    yield f"| rows | measure | {HEAD}\n|{' --- |' * 9}"
    for name, draw in kinds.items():
        drawn = []
        for seed in range(seeds):
            rows = draw(np.random.default_rng([2, seed])) * np.sqrt(law)
            numbers = torch.arange(len(rows))
            batch = Activations(torch.from_numpy(rows), AXES, rows=numbers, documents=numbers)
            groups, covariance = RowGroups(), Covariance()
            for one in (groups, covariance):
                one.update(batch)
            flat = rows.reshape(-1, width)
            correlation = groups.dependence(covariance).correlation
            drawn.append(
                effective_dimensions(
                    eigenvalues(flat), len(flat), width=width, rows=correlation
                ).named()
            )
        for measure in ("participation_ratio", "effective_rank", "stable_rank", "spectral_entropy"):
            line = cells([one[measure] for one in drawn], truth[measure])
            yield f"| {name} | {measure.replace('_', ' ')} | {line} |"
    yield ""


def uneven(seeds: int) -> Iterator[str]:
    """A table of rows whose features are not Gaussian, with their spread and without."""
    width = 40
    law = np.arange(1.0, width + 1) ** -1.0
    truth = truths(law)
    silent = np.maximum(np.random.default_rng(0).standard_normal(10**6) - 1, 0).std()
    kinds: dict[str, Callable[[np.random.Generator, int], Array]] = {
        "Gaussian": lambda g, n: g.standard_normal((n, width)),
        "Laplace": lambda g, n: g.laplace(size=(n, width)) / 2**0.5,
        "ReLU, silent in 84%": lambda g, n: (
            np.maximum(g.standard_normal((n, width)) - 1, 0) / silent
        ),
    }
    yield f"### Features that are not Gaussian, i^-1, width {width}, {seeds} draws each\n"
    yield (
        "Independent features along the principal directions. Covered as Gaussian: the same "
        "without `row_spread`.\n"
    )
    yield f"| features | samples | measure | {HEAD} covered as Gaussian |\n|{' --- |' * 11}"
    names = "participation_ratio", "effective_rank", "stable_rank", "spectral_entropy"
    for kind, draw in kinds.items():
        for n in (200, 400, 1500):
            found: dict[bool, list[dict[str, Estimate]]] = {True: [], False: []}
            for seed in range(seeds):
                rows = torch.from_numpy(draw(np.random.default_rng([7, seed, n]), n) * law**0.5)
                covariance, sample = Covariance(), PrioritySample()
                batch = Activations(rows, ("batch", "feature"), rows=torch.arange(n))
                covariance.update(batch)
                sample.update(batch)
                values = covariance.eigenvalues().numpy()
                spread = spread_of_kept(covariance, sample, INDEPENDENT)
                for counted, of in found.items():
                    one = effective_dimensions(
                        values, n, width=width, spread=spread if counted else 1.0
                    )
                    of.append(one.named())
            for name in names:
                lines = [cells([d[name] for d in found[c]], truth[name]) for c in (True, False)]
                before = lines[1].split(" | ")[5]
                yield f"| {kind} | {n} | {name.replace('_', ' ')} | {lines[0]} | {before} |"
    yield ""


def ruled(seeds: int) -> Iterator[str]:
    """Planted rows far out along one direction, in streams of many batches."""
    law = np.arange(1.0, WIDTH + 1) ** -1.0
    own = truths(law)["participation_ratio"]
    yield f"### Rows that rule, planted in i^-1, width {WIDTH}, batches of 500\n"
    yield (
        "| rows | far rows | share of the first direction | true rows for half | found | rules | "
        "left out | participation ratio with | without | of the others |\n" + "|" + " --- |" * 10
    )
    for n, far, distance in (
        (4000, 0, 0.0),
        (4000, 1, 60.0),
        (4000, 8, 40.0),
        (4000, 80, 40.0),
        (4000, 400, 20.0),
        (40000, 8, 100.0),
        (40000, 640, 40.0),
    ):
        lines = []
        for seed in range(max(2, seeds // 20)):
            rng = np.random.default_rng([3, seed, n])
            rows = rng.standard_normal((n, WIDTH)) * np.sqrt(law)
            chosen = rng.choice(n, far, replace=False)
            rows[chosen, 7] += distance * rng.uniform(0.7, 1.3, far)
            covariance, sample = Covariance(), PrioritySample()
            for batch in torch.from_numpy(rows).float().split(500):
                for one in (covariance, sample):
                    one.update(Activations(batch, ("batch", "feature")))
            values = covariance.eigenvalues().numpy()
            found = first_direction(covariance, sample, values, rows=INDEPENDENT)
            vector = covariance.leading_direction().numpy()
            along = np.sort(((rows - rows.mean(axis=0)) @ vector) ** 2)[::-1]
            true = 1 + int(np.searchsorted(np.cumsum(along), along.sum() / 2))
            left = found.remainder
            other = None if left is None else left.dimensions.participation_ratio.value
            naive = 1 / float(np.sum((values / values.sum()) ** 2))
            lines.append((found.share, true, found.half_rows, found.rules, left, naive, other))
        share, true, half, rules, left, naive, other = lines[0]
        error = np.mean([abs((one[2] or 0) / one[1] - 1) for one in lines])
        yield (
            f"| {n} | {far} | {share:.2f} | {true} | {half:.0f} ({error:.0%} off on average) | "
            f"{'yes' if rules else 'no'} | {left.n_rows if left else '-'} | {naive:.2f} | "
            f"{'-' if other is None else format(other, '.1f')} | {own:.1f} |"
        )
    yield ""


def cost(seeds: int) -> Iterator[str]:
    """Processor time of gathering, and of the measures."""
    yield "### Processor time, one thread\n"
    yield "| what | width 576 | width 1600 |\n| --- | --- | --- |"
    times: dict[str, list[str]] = {}
    for width in (576, 1600):
        kinds = [Covariance(), RowGroups(), PrioritySample()]
        spent = dict.fromkeys((kind.name for kind in kinds), 0.0)
        batches = 40 if seeds > 20 else 6
        for number in range(batches):
            values = torch.randn(16, 64, width, generator=torch.Generator().manual_seed(number))
            rows = torch.arange(16 * number, 16 * number + 16)
            batch = Activations(values, AXES, rows=rows)
            for kind in kinds:
                start = time.process_time()
                kind.update(batch)
                spent[kind.name] += time.process_time() - start
        for name, seconds in spent.items():
            what = f"{name}, a batch of 1,024 tokens [ms]"
            times.setdefault(what, []).append(f"{seconds / batches * 1e3:.2f}")
        covariance = kinds[0]
        assert isinstance(covariance, Covariance)
        found = covariance.eigenvalues().numpy()
        start = time.process_time()
        effective_dimensions(found, covariance.n_samples, width=width)
        times.setdefault("all measures of one spectrum [ms]", []).append(
            f"{(time.process_time() - start) * 1e3:.0f}"
        )
        start = time.process_time()
        sample = kinds[2]
        assert isinstance(sample, PrioritySample)
        first_direction(covariance, sample, found, rows=INDEPENDENT)
        times.setdefault("first direction [ms]", []).append(
            f"{(time.process_time() - start) * 1e3:.0f}"
        )
    for what, values in times.items():
        yield f"| {what} | {' | '.join(values)} |"
    yield ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--quick", action="store_true", help="20 draws")
    parser.add_argument("--seeds", type=int, default=200)
    parser.add_argument("--write", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    seeds = 20 if options.quick else options.seeds
    lines = []
    for table in (ruled, cost, correlated, uneven, independent):
        for line in table(seeds):
            print(line, flush=True)
            lines.append(line)
    if options.write:
        options.write.write_text("\n".join(lines), encoding="utf-8")


if __name__ == "__main__":
    main()
