"""The outcome of a comparison: each unit with its records, explanation and scores; contrasts."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from polycode_plugins.errors import DataError, near
from polycode_plugins.explainers.base import direction_of
from polycode_plugins.explainers.comparison.contrasts import Contrast, Sample, contrasts
from polycode_plugins.explainers.costs import Cost
from polycode_plugins.explainers.records.unit_records import Shape
from polycode_plugins.explainers.scoring.evaluation import Evaluation
from polycode_plugins.explainers.scoring.scores import SCORES
from polycode_plugins.explainers.units.base import Units

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

    from polycode_plugins.runs.analysis import Analysis

#: Of the network as it is, or of the control whose weights are in random order.
TRAINED, RANDOM = "trained", "random"


@dataclass(frozen=True, eq=False)
class ComparedUnit:
    """One unit of a comparison.

    Attributes:
        depth: order of its site in the forward pass.
        weights: "trained", or "random" in the control.
        evaluation: its records, explanation, simulations and scores.
        shape: of its activations on random texts.
    """

    depth: int
    weights: str
    evaluation: Evaluation
    shape: Shape

    @property
    def site(self) -> str:
        """Where it reads."""
        return self.evaluation.records.site

    @property
    def kind(self) -> str:
        """Its kind, see `UnitRecords`."""
        return self.evaluation.records.kind

    @property
    def name(self) -> str:
        """Its name, unique within a site."""
        return self.evaluation.records.unit

    def score(self, name: str) -> float | None:
        """One of its scores."""
        return self.evaluation.scores.values[name]

    @property
    def no_score(self) -> str:
        """Why it has no explanation or no correlation; "" where it has both."""
        made = self.evaluation
        return made.explanation.reason or made.scores.reasons.get("correlation", "")


@dataclass(frozen=True, eq=False)
class Comparison:
    """Units of several kinds, explained and scored in one way. Made by `pc.compare`.

    Attributes:
        units: in the order of sites, kinds and numbers.
        run: JSON values: model, data, protocol, explainer, simulator, seed, versions; "warnings"
            where not all could be done as asked, and "spent" where answers are paid for.
        directions: the units' directions by (site, kind, weights).
    """

    units: tuple[ComparedUnit, ...]
    run: Mapping[str, Any]
    directions: Mapping[tuple[str, str, str], Units] = field(default_factory=dict)

    def __iter__(self) -> Iterator[ComparedUnit]:
        return iter(self.units)

    def __len__(self) -> int:
        return len(self.units)

    def __repr__(self) -> str:
        return (
            f"Comparison({len(self.units)} units of {len(self.sites)} sites, "
            f"kinds: {', '.join(self.kinds)}, explainer: {self.run['explainer']['explainer']})"
        )

    @property
    def sites(self) -> list[str]:
        """Names of the sites, in the order of depth."""
        return list(dict.fromkeys(u.site for u in self.units))

    @property
    def kinds(self) -> list[str]:
        """Kinds of units, in the order they were asked for."""
        return list(dict.fromkeys(u.kind for u in self.units))

    @property
    def weights(self) -> list[str]:
        """ "trained", and "random" with the control."""
        return list(dict.fromkeys(u.weights for u in self.units))

    @property
    def cost(self) -> Cost:
        """What all answers took, floors left out."""
        return sum((u.evaluation.cost for u in self.units), Cost())

    @property
    def failures(self) -> dict[str, int]:
        """How many units have no explanation, by reason."""
        found: dict[str, int] = {}
        for unit in self.units:
            explanation = unit.evaluation.explanation
            if explanation.state != "ok":
                found[explanation.reason] = found.get(explanation.reason, 0) + 1
        return found

    @cached_property
    def contrasts(self) -> list[Contrast]:
        """The first kind less each other, by correlation; see `contrast`."""
        first, *others = self.kinds
        return [c for other in others for c in self.contrast(first, other)]

    def contrast(
        self,
        first: str = "neuron",
        second: str = "projection",
        score: str = "correlation",
        *,
        weights: str = TRAINED,
    ) -> list[Contrast]:
        """How much higher one kind scores than another: one entry for each site, last over all.

        The covariates of `adjusted` are log kurtosis and sparsity.

        Raises:
            DataError: for a kind or score that is not there.
        """
        for kind in (first, second):
            if kind not in self.kinds:
                raise DataError(f"there are no {kind} units here, only {', '.join(self.kinds)}")
        check_score(score)
        pairs = {
            site: (
                self._sample(site, first, score, weights),
                self._sample(site, second, score, weights),
            )
            for site in self.sites
        }
        return contrasts(pairs, first, second, score, seed=int(self.run["seed"]))

    def _sample(self, site: str, kind: str, score: str, weights: str) -> Sample:
        units = [u for u in self.units if (u.site, u.kind, u.weights) == (site, kind, weights)]
        scores = [u.score(score) for u in units]
        kurtosis = [u.shape.kurtosis for u in units]
        return Sample(
            np.array([math.nan if s is None else s for s in scores]),
            np.array(
                [
                    [math.nan if k is None else math.log(k), u.shape.sparsity]
                    for k, u in zip(kurtosis, units, strict=True)
                ]
            ).reshape(len(units), 2),
            tuple(direction_of(u.evaluation.records) for u in units),
        )

    def relation(self, analysis: Analysis, score: str = "correlation") -> pd.DataFrame:
        """How the scores go with each layer's spectrum and action: Spearman's rho over sites.

        One row for each kind of units and each scalar called exponent, participation_ratio,
        expected or normalised (the last two of an action) in `analysis`: rho, the number of sites,
        and of those left out, which lack a score or whose scalar is not finite. rho is None with
        fewer than four sites, or where either side is constant. Where the analysis has none of
        these sites, a layer is known by its number: `blocks.3.mlp.hook_post` goes with
        `blocks.3.hook_resid_post` if that is the only site analysed there.

        Raises:
            DataError: where the analysis is of other layers.
        """
        from polycode_plugins.explainers.comparison.relation import relation

        check_score(score)
        return relation(self, analysis, score)

    def to_dataframe(self) -> pd.DataFrame:
        """One row per unit: what it is, its explanation, each score, and `floor.<name>` of each.

        Undefined scores are missing values; `reason` says why the correlation is one.
        """
        from polycode_plugins.explainers.comparison.table import frame_of

        return frame_of(self)

    def plot(self, ax: Axes | None = None, score: str = "correlation") -> Axes:
        """Neuron or projection, layer by layer: every unit, each kind's mean with its interval."""
        from polycode_plugins.explainers.comparison.plot import plot

        check_score(score)
        return plot(self, ax, score)

    def save(self, folder: str | Path) -> Path:
        """Write comparison.json, units.parquet and records.safetensors; each whole or not at all.

        Raises:
            StateError: where the folder cannot be written or holds something else.
        """
        from polycode_plugins.explainers.comparison.files import save

        return save(self, Path(folder))

    @classmethod
    def load(cls, folder: str | Path) -> Comparison:
        """Read what `save` wrote. The model and the texts are not needed.

        Raises:
            StateError: for a folder that is missing, damaged, or of a newer format.
        """
        from polycode_plugins.explainers.comparison.files import load

        return load(Path(folder))

    def report(self, path: str | Path, analysis: Analysis | None = None) -> Path:
        """Write the comparison as one self-contained HTML file, below an analysis if one is given.

        Args:
            path: of the file.
            analysis: of the same model; its sections come first, and the scores are related to its
                exponents and actions.

        Raises:
            PluginError: when the report extra is not installed.
        """
        from polycode_plugins.report.comparison_page import write

        return write(self, Path(path), analysis)

    def export(self, path: str | Path, *, model_id: str | None = None) -> Path:
        """Write the explanations as JSON lines in the manner of Neuronpedia; see `neuronpedia`."""
        from polycode_plugins.explainers.comparison.neuronpedia import export

        return export(self, Path(path), model_id)

    def export_features(self, path: str | Path, **names: str | None) -> Path:
        """Write bodies for Neuronpedia's upload, one a line; see `neuronpedia.export_features`."""
        from polycode_plugins.explainers.comparison.neuronpedia import export_features

        return export_features(self, Path(path), **names)


def check_score(score: str) -> None:
    """Raise DataError unless there is a score of this name."""
    if score not in SCORES:
        raise DataError(
            f"no score is called {score!r}{near(score, SCORES)} (known: {', '.join(SCORES)})"
        )
