"""A reference case: how its arrays are made, the quantity, its truth and how near is near enough.

The cases stand in `cases.json` beside this module, for any program to read.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from polycode_plugins.errors import DataError, near
from polycode_plugins.testing.reference.generators import GENERATORS, Arrays

#: The data file beside this module.
FILE = "cases.json"
#: Relative difference between two machines' arrays that rounding explains.
_SAME = 1e-9


@dataclass(frozen=True)
class Case:
    """One question with a known answer.

    Attributes:
        name: of the case; also of its file when exported.
        quantity: what is asked for, see `measures`.
        generator, seed, parameters: the arrays are
            what `GENERATORS[generator]` makes of NumPy's default generator of that seed and the
            parameters.
        settings: what the quantity needs to know beside the arrays.
        truth: the right answer, a number or a list of them; of the population, not of the sample.
        tolerance: largest absolute difference, of each number, that counts as right: some four
            standard errors of a good estimator at this sample size, plus the bias that estimators
            of the kind are known for.
        source: where the truth comes from.
        fingerprint: {array: [mean, mean square]}, by which other arrays are told.
    """

    name: str
    quantity: str
    generator: str
    seed: int
    parameters: Mapping[str, Any]
    settings: Mapping[str, Any]
    truth: float | list[float]
    tolerance: float
    source: str
    fingerprint: Mapping[str, list[float]]

    def arrays(self) -> Arrays:
        """The arrays of the case, by name.

        Raises:
            DataError: where this NumPy draws other numbers from the seed.
        """
        made = GENERATORS[self.generator](np.random.default_rng(self.seed), **self.parameters)
        for name, expected in self.fingerprint.items():
            if not np.allclose(fingerprint(made[name]), expected, rtol=_SAME, atol=_SAME):
                raise DataError(
                    f"the arrays of {self.name!r} are others than those the truth was checked on, "
                    f"since NumPy {np.__version__} draws other numbers from a seed; export them "
                    "with the NumPy of this package's constraints and use the files"
                )
        return made


@dataclass(frozen=True)
class Verdict:
    """An answer to a case. value: None where there was none, and `reason` says why."""

    case: Case
    value: float | list[float] | None
    reason: str = ""

    @property
    def error(self) -> float | None:
        """Largest absolute difference from the truth; None without an answer of its shape."""
        if self.value is None or np.shape(self.value) != np.shape(self.case.truth):
            return None
        return float(np.abs(np.subtract(self.value, self.case.truth)).max())

    @property
    def ok(self) -> bool:
        """Whether the answer is right, to the case's tolerance."""
        return self.error is not None and self.error <= self.case.tolerance

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "case": self.case.name,
            "quantity": self.case.quantity,
            "truth": self.case.truth,
            "tolerance": self.case.tolerance,
            "value": self.value,
            "error": self.error,
            "ok": self.ok,
            "reason": self.reason,
        }


@cache
def _all() -> tuple[Case, ...]:
    text = files(__package__).joinpath(FILE).read_text(encoding="utf-8")
    return tuple(Case(**fields) for fields in json.loads(text)["cases"])


def cases(patterns: Sequence[str] = ()) -> tuple[Case, ...]:
    """The cases whose name or quantity matches one of `patterns` (with * and ?); all by default.

    Raises:
        DataError: for a pattern that matches none.
    """
    known = _all()
    if not patterns:
        return known

    def matches(case: Case, pattern: str) -> bool:
        return fnmatchcase(case.name, pattern) or fnmatchcase(case.quantity, pattern)

    for pattern in patterns:
        if not any(matches(case, pattern) for case in known):
            names = [case.name for case in known]
            raise DataError(f"no reference case is called {pattern!r}{near(pattern, names)}")
    return tuple(case for case in known if any(matches(case, p) for p in patterns))


def judge(answers: Mapping[str, Any], asked: Sequence[Case]) -> list[Verdict]:
    """Answers {name of the case: number or list} held against the truths of the cases asked.

    Raises:
        DataError: for an answer to no case, or one that is no number.
    """
    unknown = sorted(set(answers) - {case.name for case in _all()})
    if unknown:
        names = [case.name for case in _all()]
        raise DataError(f"there is no reference case {unknown[0]!r}{near(unknown[0], names)}")
    verdicts = []
    for case in asked:
        if case.name not in answers or answers[case.name] is None:
            verdicts.append(Verdict(case, None, "no answer was given"))
            continue
        try:
            value = np.asarray(answers[case.name], dtype=np.float64)
        except (TypeError, ValueError):
            raise DataError(f"the answer to {case.name!r} is no number") from None
        right = np.shape(case.truth)
        reason = "" if value.shape == right else f"has shape {value.shape}, and the truth {right}"
        verdicts.append(Verdict(case, value.tolist(), reason))
    return verdicts


def export(folder: Path, asked: Sequence[Case]) -> list[Path]:
    """Write one NAME.npz with the arrays of each case, and the cases themselves as cases.json.

    Raises:
        DataError: where the folder holds a cases.json already.
    """
    if (folder / FILE).exists():
        raise DataError(f"{str(folder / FILE)!r} exists already; give a new folder")
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for case in asked:
        written.append(folder / f"{case.name}.npz")
        arrays: dict[str, Any] = case.arrays()
        np.savez_compressed(written[-1], **arrays)
    text = json.dumps({"cases": [asdict(case) for case in asked]}, indent=1)
    (folder / FILE).write_text(text + "\n", encoding="utf-8")
    return [*written, folder / FILE]


def fingerprint(array: NDArray[Any]) -> list[float]:
    """Mean and mean square."""
    values = np.asarray(array, dtype=np.float64)
    return [float(values.mean()), float((values**2).mean())]
