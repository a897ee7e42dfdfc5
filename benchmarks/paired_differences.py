"""How often paired intervals of differences hold the truth, and how much narrower they are.

    python benchmarks/paired_differences.py [--quick] [--seeds N] [--only KIND ..]
                                            [--records FOLDER] [--write FILE]

Run A is a Gaussian code with the power law i^-1 as spectrum. Run B, on the same rows, is the same
code; one whose law was changed to i^-1.03; one of which a tenth or half of the variance was
replaced by an independent code; one whose errors go against those of A; or one that is independent
of A, as runs on other rows are, whose intervals are those called unpaired. Rows are independent, or
depend on one another within documents. Every draw has another seed.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from polycode_plugins.activations import Activations, Site
from polycode_plugins.errors import DataError
from polycode_plugins.metrics import Spectrum, SpectrumResult
from polycode_plugins.metrics.error_correlation import (
    ErrorCorrelation,
    KeptDocuments,
    error_correlation,
)
from polycode_plugins.metrics.influences import Influences
from polycode_plugins.runs.difference.interval import Ends, between, paired

Array = NDArray[np.float64]
Rows = Callable[[np.random.Generator, int, int, int], Array]

AXES = ("batch", "position", "feature")
CHANGED = 1.03
LEAST = 10  # draws
FIELDS = ("exponent", "effective_rank", "participation_ratio", "stable_rank", "spectral_entropy")


def alone(rng: np.random.Generator, documents: int, tokens: int, width: int) -> Array:
    """Independent rows."""
    return rng.standard_normal((documents, tokens, width))


def means(rng: np.random.Generator, documents: int, tokens: int, width: int) -> Array:
    """A quarter of the variance is the document's mean."""
    common = rng.standard_normal((documents, 1, width))
    return np.asarray(0.75**0.5 * alone(rng, documents, tokens, width) + 0.5 * common)


def falling(rng: np.random.Generator, documents: int, tokens: int, width: int) -> Array:
    """Autoregression within documents that falls with rank from .8 to .2."""
    lag = np.linspace(0.8, 0.2, width)
    rows = alone(rng, documents, tokens, width)
    for at in range(1, tokens):
        rows[:, at] = lag * rows[:, at - 1] + np.sqrt(1 - lag**2) * rows[:, at]
    return rows


def heavy(rng: np.random.Generator, documents: int, tokens: int, width: int) -> Array:
    """Independent rows of Student's t with 8 degrees of freedom and unit variance."""
    scale = np.sqrt(6 / rng.chisquare(8, (documents, tokens, 1)))
    return np.asarray(alone(rng, documents, tokens, width) * scale)


@dataclass(frozen=True)
class Case:
    """Rows of one kind: documents x tokens x width, of which `kept` tokens of each are kept."""

    name: str
    rows: Rows
    documents: int
    tokens: int
    width: int
    kept: int | None = None

    @property
    def slug(self) -> str:
        """A name for files."""
        return f"{self.rows.__name__}-{self.documents}-{self.tokens}-{self.width}-{self.kept}"


CASES = (
    Case("independent", alone, 100, 10, 50),
    Case("independent", alone, 40, 20, 300),
    Case("independent", alone, 200, 10, 200),
    Case("document means", means, 40, 20, 50),
    Case("document means", means, 60, 40, 100),
    Case("document means, 10 of 40 tokens kept", means, 200, 40, 50, 10),
    Case("autoregression .8 to .2", falling, 100, 20, 100),
    Case("autoregression .8 to .2", falling, 200, 20, 50),
    Case("Student 8", heavy, 100, 10, 50),
)


def partners(case: Case, z: Array, rng: np.random.Generator) -> Iterator[tuple[str, Array, float]]:
    """Name, code and exponent of every run B."""
    size = case.documents, case.tokens, case.width
    other = case.rows(rng, *size)
    yield "the same", z, 1.0
    yield f"law changed to {CHANGED}", z, CHANGED
    for share in (0.1, 0.5):
        yield f"{share:g} replaced", np.sqrt(1 - share) * z + np.sqrt(share) * other, 1.0
    if case.rows is alone:
        yield "opposed", opposed(z, rng), 1.0
    yield "independent", other, 1.0


def opposed(z: Array, rng: np.random.Generator) -> Array:
    """Gaussian numbers that are large where those of `z` are small."""
    from scipy.special import ndtr, ndtri

    size = np.abs(ndtri(ndtr(-np.abs(z)) + 0.5))
    return np.asarray(np.where(rng.random(z.shape) < 0.5, -size, size))


@dataclass(frozen=True, eq=False)
class Run:
    """A result, and the influences of the samples that were kept."""

    result: SpectrumResult
    influences: Influences


def run(code: Array, exponent: float, places: NDArray[np.int64]) -> Run:
    """A run on a code of the law i^-exponent, in a basis of its own."""
    width = code.shape[-1]
    values = torch.from_numpy(code * np.arange(1.0, width + 1) ** (-exponent / 2))
    numbers = torch.arange(len(code))
    batch = Activations(values, AXES, documents=numbers, rows=numbers)
    metric = Spectrum()
    accumulators = metric.accumulators()
    for accumulator in accumulators.values():
        accumulator.update(batch)
    result = metric.compute(accumulators, Site("a", axes=AXES))
    kept = values[numbers[:, None], torch.from_numpy(places)]
    samples = kept.flatten(0, 1).float()
    return Run(result, metric.influences(accumulators, result, samples))


def truths(width: int, exponent: float) -> dict[str, float]:
    """The population's numbers."""
    law = np.arange(1.0, width + 1) ** -exponent
    p, roots = law / law.sum(), np.sqrt(law) / np.sqrt(law).sum()
    return {
        "exponent": exponent,
        "participation_ratio": float(1 / np.square(p).sum()),
        "effective_rank": float(np.exp(-roots @ np.log(roots))),
        "stable_rank": float(law.sum()),
        "spectral_entropy": float(-p @ np.log(p)),
    }


@dataclass(frozen=True)
class Draw:
    """One number of both runs, in one draw.

    values, truths: of A and B. ends: their intervals. errors: how they go together; None where that
    was not to be said, or a number has no interval.
    """

    values: tuple[float, float]
    truths: tuple[float, float]
    ends: tuple[Ends, Ends] | None
    errors: ErrorCorrelation | None


def draws(case: Case, seeds: Iterable[int]) -> Iterator[tuple[str, str, Draw]]:
    """Run B, number, and what was drawn."""
    size = case.documents, case.tokens, case.width
    kept = case.tokens if case.kept is None else case.kept
    numbers = np.repeat(np.arange(case.documents), kept)
    documents = KeptDocuments.of(numbers, numbers, case.documents * case.tokens, case.documents)
    for seed in seeds:
        rng = np.random.default_rng([7, seed, *size])
        z = case.rows(rng, *size)
        places = rng.permuted(np.tile(np.arange(case.tokens), (case.documents, 1)), axis=1)
        places = places[:, :kept]
        first = run(z, 1.0, places)
        for name, code, exponent in partners(case, z, rng):
            second = first if name == "the same" else run(code, exponent, places)
            for number in FIELDS:
                yield name, number, drawn(number, case.width, documents, first, second, exponent)


def drawn(
    number: str, width: int, documents: KeptDocuments, first: Run, second: Run, exponent: float
) -> Draw:
    """One number of two runs."""
    both = first, second
    values = [float(one.result.scalars()[number] or np.nan) for one in both]
    true = truths(width, 1.0)[number], truths(width, exponent)[number]
    errors = ends = None
    if all(number in one.result.intervals() for one in both):
        ends = first.result.intervals()[number], second.result.intervals()[number]
        with suppress(DataError):
            errors = error_correlation(
                documents,
                *(one.influences.values[number] for one in both),
                independent=all(one.influences.independent for one in both),
            )
    return Draw((values[0], values[1]), true, ends, errors)


@dataclass(frozen=True)
class Quality:
    """What the draws of one kind come to, for one number.

    correlation: of both errors. estimated, counted: means over draws. alone, paired: how often
    intervals hold the truth. width: median of paired over unpaired. draws: how many count.
    """

    correlation: float
    estimated: float
    counted: float
    alone: float
    paired: float
    width: float
    draws: int

    @classmethod
    def of(cls, found: Sequence[Draw]) -> Quality | None:
        """Of those that both gave an interval; None for fewer than ten."""
        held = [d for d in found if d.errors is not None and d.ends is not None]
        if len(held) < LEAST:
            return None
        counted, apart, together, widths = [], [], [], []
        for d in held:
            assert d.errors is not None
            assert d.ends is not None
            truth = d.truths[1] - d.truths[0]
            numbers = d.values[0], d.ends[0], d.values[1], d.ends[1]
            one = between(*numbers)
            two, correlation = paired(*numbers, d.errors)
            counted.append(correlation)
            apart.append(one[0] <= truth <= one[1])
            together.append(two[0] <= truth <= two[1])
            widths.append((two[1] - two[0]) / (one[1] - one[0]))
        off = np.array([np.subtract(d.values, d.truths) for d in held])
        return cls(
            correlation=float(np.corrcoef(off.T)[0, 1]),
            estimated=float(np.mean([d.errors.estimate for d in held if d.errors is not None])),
            counted=float(np.mean(counted)),
            alone=float(np.mean(apart)),
            paired=float(np.mean(together)),
            width=float(np.median(widths)),
            draws=len(held),
        )


Found = dict[str, dict[str, list[Draw]]]  # by run B, by number
HEAD = (
    "rows", "documents x tokens", "width", "run B", "draws", "correlation of exponents",
    "estimated", "counted on", "holds, unpaired", "holds, paired", "width, paired / unpaired",
    "measures hold, paired", "width, paired / unpaired",
)  # fmt: skip
POOLED = (
    "rows", "run B", "draws", "exponent holds, unpaired", "paired", "width, paired / unpaired",
    "measures hold, unpaired", "paired", "width, paired / unpaired",
)  # fmt: skip


def gathered(
    cases: Sequence[Case], seeds: int, records: Path | None, *, recorded: bool
) -> Iterator[tuple[Case, Found]]:
    """All draws of each case."""
    for case in cases:
        made: Found = {}
        for seed in range(seeds):
            if recorded and records is not None and not path_of(case, seed, records).exists():
                continue
            for partner, number, draw in known(case, seed, records):
                made.setdefault(partner, {}).setdefault(number, []).append(draw)
        yield case, made


def lines(case: Case, made: Found) -> Iterator[str]:
    """Lines of the table of one case."""
    for partner, numbers in made.items():
        found = {name: Quality.of(held) for name, held in numbers.items()}
        exponent = found.pop(FIELDS[0])
        rest = [one for one in found.values() if one is not None]
        if exponent is None or not rest:
            continue
        yield (
            f"| {case.name} | {case.documents} x {case.tokens} | {case.width} | {partner} | "
            f"{exponent.draws} | {exponent.correlation:.3f} | {exponent.estimated:.3f} | "
            f"{exponent.counted:.3f} | {exponent.alone:.1%} | {exponent.paired:.1%} | "
            f"{exponent.width:.3f} | {span([one.paired for one in rest], '.1%')} | "
            f"{span([one.width for one in rest], '.3f')} |"
        )


def pooled(found: Sequence[tuple[Case, Found]]) -> Iterator[str]:
    """The table of all cases, those of independent rows and those of documents."""
    yield f"| {' | '.join(POOLED)} |"
    yield "|---" * len(POOLED) + "|"
    for name, kinds in (("independent", (alone, heavy)), ("of documents", (means, falling))):
        held: Found = {}
        for case, made in found:
            for partner, numbers in made.items() if case.rows in kinds else ():
                for number, some in numbers.items():
                    held.setdefault(partner, {}).setdefault(number, []).extend(some)
        for partner, numbers in held.items():
            exponent = Quality.of(numbers[FIELDS[0]])
            rest = Quality.of([d for n in FIELDS[1:] for d in numbers[n]])
            if exponent is not None and rest is not None:
                cells = (
                    f"{one.alone:.1%} | {one.paired:.1%} | {one.width:.3f}"
                    for one in (exponent, rest)
                )
                yield f"| {name} | {partner} | {exponent.draws} | {' | '.join(cells)} |"


def span(values: Sequence[float], form: str) -> str:
    """The least and the most of some numbers."""
    low, high = (format(v, form) for v in (min(values), max(values)))
    return low if low == high else f"{low} to {high}"


def path_of(case: Case, seed: int, records: Path) -> Path:
    """The file that keeps the draws of one seed."""
    return records / f"{case.slug}-{seed}.json"


def known(case: Case, seed: int, records: Path | None) -> list[tuple[str, str, Draw]]:
    """The draws of one seed, from the folder of records where they are there."""
    if records is None:
        return list(draws(case, [seed]))
    path = path_of(case, seed, records)
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        made = [(name, number, asdict(draw)) for name, number, draw in draws(case, [seed])]
        path.write_text(json.dumps(made), encoding="utf-8")
    found = json.loads(path.read_text(encoding="utf-8"))
    return [(name, number, restored(fields)) for name, number, fields in found]


def restored(fields: dict[str, Any]) -> Draw:
    """A draw that was kept."""
    errors = fields.pop("errors")
    return Draw(**fields, errors=None if errors is None else ErrorCorrelation(**errors))


def main() -> None:
    """Print the table, and write it where asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a tenth of the draws")
    parser.add_argument("--seeds", type=int, default=200)
    parser.add_argument("--only", type=int, nargs="*", help="numbers of the kinds of rows, from 0")
    parser.add_argument("--records", type=Path, help="folder that keeps draws between runs")
    parser.add_argument("--recorded", action="store_true", help="of the records, and no more")
    parser.add_argument("--write", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    seeds = max(2, options.seeds // 10) if options.quick else options.seeds
    cases = [case for i, case in enumerate(CASES) if options.only is None or i in options.only]
    found = list(gathered(cases, seeds, options.records, recorded=options.recorded))
    made = [
        "The measures are participation ratio, effective rank, stable rank and spectral entropy "
        f"(`benchmarks/paired_differences.py --seeds {seeds}`).\n",
        *pooled(found),
        "\nEach kind of rows; of the measures the least and the most, where ten draws gave an "
        "interval.\n",
        f"| {' | '.join(HEAD)} |",
        "|---" * len(HEAD) + "|",
        *(line for case, draws_of in found for line in lines(case, draws_of)),
    ]
    print("\n".join(made))
    if options.write is not None:
        options.write.write_text("\n".join([*made, ""]), encoding="utf-8")


if __name__ == "__main__":
    main()
