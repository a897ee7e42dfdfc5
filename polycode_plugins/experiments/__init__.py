"""The figures of the two papers, each with the claims it bears on.

    reproduce("superposition-ratio", scale="laptop") -> Reproduction: numbers, figure, verdicts

`polycode reproduce` is the command for it. Each experiment is one module with an `EXPERIMENT`.
"""

from __future__ import annotations

from importlib import import_module

from polycode_plugins.errors import PolycodeError, near
from polycode_plugins.experiments.base import SCALES, Experiment, Scale
from polycode_plugins.experiments.claims import Claim, Criterion, Effect, Verdict
from polycode_plugins.experiments.reproducing import Reproduction, finished, reproduce

#: In the order of the papers.
NAMES = (
    "superposition-ratio",
    "dropout-codes",
    "autoencoder-spectra",
    "moving-dot",
    "dropout-spectra",
    "language-model-spectra",
    "projection-explanations",
    "error-correction",
    "one-way-code",
    "capacity-allocation",
    "kurtosis-phase",
    "semi-orthogonal-blocks",
)

__all__ = [
    "NAMES",
    "SCALES",
    "Claim",
    "Criterion",
    "Effect",
    "Experiment",
    "Reproduction",
    "Scale",
    "Verdict",
    "finished",
    "get",
    "reproduce",
]


def get(name: str) -> Experiment:
    """The experiment of that name.

    Raises:
        PolycodeError: for an unknown one.
    """
    if name not in NAMES:
        raise PolycodeError(
            f"no experiment is called {name!r}{near(name, NAMES)}; "
            "'polycode reproduce --list' shows them"
        )
    module = import_module(f"{__name__}.{name.replace('-', '_')}")
    experiment: Experiment = module.EXPERIMENT
    return experiment
