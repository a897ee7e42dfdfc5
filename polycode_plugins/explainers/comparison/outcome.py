"""The outcome of a comparison: each unit with its records, explanation and scores; contrasts."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from polycode_plugins.errors import DataError, near
from polycode_plugins.explainers.base import direction_of
from polycode_plugins.explainers.comparison.contrasts import Contrast, contrasts
from polycode_plugins.explainers.comparison.statistics.noise import Noise, noise_of
from polycode_plugins.explainers.comparison.statistics.samples import Sample
from polycode_plugins.explainers.costs import Cost
from polycode_plugins.explainers.records.unit_records import Shape
from polycode_plugins.explainers.scoring.evaluation import Evaluation
from polycode_plugins.explainers.scoring.scores import SCORES
from polycode_plugins.explainers.units.base import Units
from polycode_plugins.files.paths import given

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

    from polycode_plugins.explainers.comparison.decisions import Decision
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

    def floor(self, name: str, score: str = "correlation") -> float | None:
        """What a floor scores; None where the unit has no score: means are of the same units."""
        found = self.evaluation.floors.get(name)
        return None if found is None or self.score(score) is None else found.values.get(score)

    @property
    def no_score(self) -> str:
        """Why it has no explanation or no correlation; "" where it has both."""
        return self.why("correlation")

    def why(self, score: str) -> str:
        """Why it has no explanation or no score of this name; "" where it has both."""
        made = self.evaluation
        return made.explanation.reason or made.scores.reasons.get(score, "")


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
        from polycode_plugins.explainers.comparison.answer import card

        return card(self, drawn=False).text()

    def _repr_html_(self) -> str:
        from polycode_plugins.explainers.comparison.answer import card

        return card(self, drawn=True).html()

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
    def floors(self) -> list[str]:
        """Names of the floors, and the ceiling, beside the scores."""
        return list(dict.fromkeys(name for u in self.units for name in u.evaluation.floors))

    @property
    def headline_scores(self) -> list[str]:
        """The scores by which it is told which kind is explained better, the fairest first.

        The correlation on random texts, where at least half of the units of every kind have one,
        and the published one: top texts were chosen for being high, which flatters. Of units that
        were judged alone, detection and fuzzing.
        """
        told = [u for u in self.units if u.weights == TRAINED]
        groups = [[u for u in told if u.kind == kind] for kind in self.kinds]

        def mostly(score: str) -> bool:
            known = [[u.score(score) is not None for u in group] for group in groups]
            return all(2 * sum(of) >= len(of) > 0 for of in known)

        def ever(score: str) -> bool:
            return any(u.score(score) is not None for u in told)

        if not ever("correlation") and (ever("detection") or ever("fuzzing")):
            return [score for score in ("detection", "fuzzing") if ever(score)]
        return [*(["correlation_random"] if mostly("correlation_random") else []), "correlation"]

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
        floor: str | None = None,
    ) -> list[Contrast]:
        """How much higher one kind scores than another: one entry for each site, last over all.

        The covariates of `adjusted` are log kurtosis and sparsity. Kinds of which each unit was
        made for one of the other ("rotated", "matched") are compared pair by pair.

        Args:
            first: a kind of units.
            second: another.
            score: one of `scoring.scores.SCORES`.
            weights: "trained", or "random" for those of the control.
            floor: of this floor's scores in place of the explanations', over the same units.

        Raises:
            DataError: for a kind, score or floor that is not there.
        """
        for kind in (first, second):
            if kind not in self.kinds:
                raise DataError(f"there are no {kind} units here, only {', '.join(self.kinds)}")
        check_score(score)
        if floor is not None and floor not in self.floors:
            raise DataError(
                f"there is no floor {floor!r} here, only {', '.join(self.floors) or 'none'}"
            )
        key = (first, second, score, weights, floor)
        if key in self._made:
            return list(self._made[key])
        samples = {}
        for site in self.sites:
            pairs = self._pairs(site, first, second, weights)
            samples[site] = (
                self._sample(site, first, score, weights, floor=floor, pairs=pairs),
                self._sample(site, second, score, weights, floor=floor, pairs=pairs),
            )
        made = contrasts(samples, first, second, score, seed=int(self.run["seed"]))
        self._made[key] = made
        return list(made)

    @cached_property
    def _made(self) -> dict[tuple[str | None, ...], list[Contrast]]:
        """Contrasts that were asked for: each takes thousands of draws."""
        return {}

    def _pairs(self, site: str, first: str, second: str, weights: str) -> Mapping[str, str]:
        """{unit: the unit of the other kind that it was made for}; empty where there are none."""
        names = {kind: set[str]() for kind in (first, second)}
        for unit in self.units:
            if unit.site == site and unit.kind in names and unit.weights == weights:
                names[unit.kind].add(direction_of(unit.evaluation.records))
        for made, of in ((first, second), (second, first)):
            group = self.directions.get((site, made, weights))
            pairs = {} if group is None else group.origin.get("pairs", {})
            pairs = {unit: mate for unit, mate in pairs.items() if mate in names[of]}
            if pairs:
                return pairs
        return {}

    def _sample(
        self,
        site: str,
        kind: str,
        score: str,
        weights: str,
        *,
        floor: str | None = None,
        pairs: Mapping[str, str] = MappingProxyType({}),
    ) -> Sample:
        units = [u for u in self.units if (u.site, u.kind, u.weights) == (site, kind, weights)]
        scores = [u.score(score) if floor is None else u.floor(floor, score) for u in units]
        kurtosis = [u.shape.kurtosis for u in units]
        names = tuple(direction_of(u.evaluation.records) for u in units)
        return Sample(
            np.array([math.nan if s is None else s for s in scores]),
            np.array(
                [
                    [math.nan if k is None else math.log(k), u.shape.sparsity]
                    for k, u in zip(kurtosis, units, strict=True)
                ]
            ).reshape(len(units), 2),
            names,
            tuple(pairs.get(name, name) for name in names) if pairs else (),
        )

    def decisions(self, score: str = "correlation") -> list[Decision]:
        """Basis or distribution: what each control among the kinds says, by site, last over all.

        Raises:
            DataError: for a score that is not there.
        """
        from polycode_plugins.explainers.comparison.decisions import decisions

        check_score(score)
        return decisions(self, score)

    def noise(self, kind: str, score: str = "correlation") -> Noise | None:
        """How much a unit's score depends on the draw of its explanation; see `Noise`.

        None where fewer than two units have several explanations with a score.
        """
        check_score(score)
        return noise_of(
            [
                [v for d in u.evaluation.draws if (v := d.scores.values.get(score)) is not None]
                for u in self.units
                if u.kind == kind and u.weights == TRAINED
            ]
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

        return save(self, given(folder))

    @classmethod
    def load(cls, folder: str | Path) -> Comparison:
        """Read what `save` wrote. The model and the texts are not needed.

        Raises:
            StateError: for a folder that is missing, damaged, or of a newer format.
        """
        from polycode_plugins.explainers.comparison.files import load

        return load(given(folder))

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

        return write(self, given(path), analysis)

    def export(self, path: str | Path, *, model_id: str | None = None) -> Path:
        """Write the explanations as JSON lines in the manner of Neuronpedia; see `neuronpedia`."""
        from polycode_plugins.explainers.comparison.neuronpedia import export

        return export(self, given(path), model_id)

    def export_features(self, path: str | Path, **names: str | None) -> Path:
        """Write bodies for Neuronpedia's upload, one a line; see `neuronpedia.export_features`."""
        from polycode_plugins.explainers.comparison.neuronpedia import export_features

        return export_features(self, given(path), **names)


def check_score(score: str) -> None:
    """Raise DataError unless there is a score of this name."""
    if score not in SCORES:
        raise DataError(
            f"no score is called {score!r}{near(score, SCORES)} (known: {', '.join(SCORES)})"
        )
