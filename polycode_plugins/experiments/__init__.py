"""The figures of the two papers, each with the claims it bears on.

    reproduce("superposition-ratio", scale="laptop") -> Reproduction: numbers, figure, verdicts

`polycode reproduce` is the command for it. Each experiment is one module with an `EXPERIMENT`, a
plugin of the group `polycode_plugins.experiments`, in which other packages register theirs.
"""

from __future__ import annotations

from polycode_plugins import plugins
from polycode_plugins.errors import PluginError, near
from polycode_plugins.experiments.base import SCALES, Experiment, Scale
from polycode_plugins.experiments.claims import (
    CannotJudge,
    Claim,
    Criterion,
    Effect,
    Verdict,
    at_least,
    at_most,
    bootstrap_effect,
    mean_effect,
    share_effect,
)
from polycode_plugins.experiments.reproducing import Reproduction, finished, reproduce

#: The built-in ones, in the order of the papers.
PAPERS = (
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
    "SCALES",
    "CannotJudge",
    "Claim",
    "Criterion",
    "Effect",
    "Experiment",
    "Reproduction",
    "Scale",
    "Verdict",
    "at_least",
    "at_most",
    "available",
    "bootstrap_effect",
    "finished",
    "get",
    "mean_effect",
    "reproduce",
    "share_effect",
]


def available() -> list[str]:
    """The names of all experiments: those of the papers in their order, then other packages'."""
    found = [plugin.reference for plugin in plugins.find("experiments")]
    return sorted(found, key=lambda name: PAPERS.index(name) if name in PAPERS else len(PAPERS))


def get(name: str) -> Experiment:
    """The experiment of that name.

    Raises:
        PluginError: for an unknown one, one that does not import, or something else.
    """
    known = available()
    if name not in known:
        raise PluginError(
            f"no experiment is called {name!r}{near(name, known)}; 'polycode reproduce --list' "
            "shows them"
        )
    experiment = plugins.load("experiments", name)
    if not isinstance(experiment, Experiment):
        raise PluginError(
            f"the plugin {name!r} is a {type(experiment).__name__} and no experiment; its entry "
            "point has to name an object of polycode_plugins.experiments.Experiment"
        )
    return experiment
