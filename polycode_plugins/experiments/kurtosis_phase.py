"""Phases of two features that compete for a dimension: by theory, and trained."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from polycode_plugins import theory
from polycode_plugins.experiments.base import Experiment
from polycode_plugins.experiments.claims import (
    CannotJudge,
    Claim,
    Criterion,
    Effect,
    Numbers,
    at_least,
    at_most,
    bootstrap_effect,
    share_effect,
)
from polycode_plugins.experiments.importance_models import (
    Architecture,
    Floats,
    kinds,
    train_importance_models,
)

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

TRAINED: dict[str, Architecture] = {"quadratic": "quadratic", "ReLU": "relu"}
#: A feature is ignored below this capacity; capacities rise from 0 where a phase begins.
TOLERANCE = 0.003
PHASES = ("ignored", "polysemantic", "monosemantic")


@dataclass(frozen=True)
class Settings:
    """Settings.

    ratios: how many importance ratios, from 1 / `widest` to `widest`, in equal factors.
    widest: the largest ratio.
    kurtosis: how many values, from `least` to `most`, in equal factors.
    least, most: ends of the kurtosis.
    restarts: networks trained for each point; the one with the least held-out loss counts.
    batch, steps, rate: of Adam.
    device: where it trains.
    """

    ratios: int = 13
    widest: float = 8.0
    kurtosis: int = 27
    least: float = 2.0
    most: float = 36.0
    restarts: int = 3
    batch: int = 256
    steps: int = 1500
    rate: float = 0.02
    device: str = "cpu"


def run(settings: Settings, seed: int, folder: Path) -> Numbers:
    """`phases`: a row for each model, importance ratio b/a and kurtosis; features are a and b."""
    import pandas as pd

    ratios = np.geomspace(1 / settings.widest, settings.widest, settings.ratios)
    every = np.geomspace(settings.least, settings.most, settings.kurtosis)
    ratio, kurtosis = (grid.ravel() for grid in np.meshgrid(ratios, every, indexing="ij"))
    importance = np.stack([ratio**-0.5, ratio**0.5], axis=1)
    optimal = np.stack(
        [theory.optimal_allocation(v, k, 1) for v, k in zip(importance, kurtosis, strict=True)]
    )
    capacities = {"theory": optimal}
    repeated = torch.from_numpy(importance).repeat_interleave(settings.restarts, 0)
    for name, architecture in TRAINED.items():
        trained = train_importance_models(
            architecture,
            repeated,
            torch.from_numpy(kurtosis).repeat_interleave(settings.restarts),
            1,
            batch=settings.batch,
            steps=settings.steps,
            rate=settings.rate,
            seed=seed,
            path=folder / f"{architecture}.safetensors",
            device=settings.device,
        )
        best = trained.loss.reshape(-1, settings.restarts).argmin(1)
        chosen = trained.embedding[best + settings.restarts * np.arange(len(best))]
        capacities[name] = np.stack([theory.feature_capacity(w) for w in chosen])
    tables = []
    for name, capacity in capacities.items():
        _, shared, own = kinds(capacity[:, 1], TOLERANCE)
        table = {
            "model": name,
            "ratio": ratio,
            "kurtosis": kurtosis,
            "capacity_a": capacity[:, 0],
            "capacity_b": capacity[:, 1],
            "phase_b": np.array(PHASES)[shared + 2 * own],
        }
        tables.append(pd.DataFrame(table))
    return {"phases": pd.concat(tables, ignore_index=True)}


def _of(numbers: Numbers, name: str) -> pd.DataFrame:
    """Rows of a model in the order of the grid."""
    phases = numbers["phases"]
    rows: pd.DataFrame = phases[phases["model"] == name]
    return rows.sort_values(["ratio", "kurtosis"]).reset_index(drop=True)


def onset(kurtosis: Floats, shared: Any) -> float:
    """The kurtosis above which features share, out of `shared` at ascending kurtosis.

    That which agrees with the most points, halfway (in factors) between two of them; NaN where
    all of them share, or none.
    """
    shared = np.asarray(shared, dtype=bool)
    right = [(~shared[:i]).sum() + shared[i:].sum() for i in range(len(shared) + 1)]
    at = int(np.argmax(right))
    if at in (0, len(shared)):
        return float("nan")
    return float(np.sqrt(kurtosis[at - 1] * kurtosis[at]))


def figure(numbers: Numbers) -> Figure:
    """Capacity of the second feature over importance ratio and kurtosis, for each model."""
    from polycode_plugins.experiments import drawing

    made, axes = drawing.panels(3, height=2.7)
    names = {"theory": "Closed form", "quadratic": "Quadratic, trained", "ReLU": "ReLU, trained"}
    for ax, (name, title) in zip(axes[0], names.items(), strict=True):
        rows = _of(numbers, name)
        grid = rows.pivot_table("capacity_b", "kurtosis", "ratio")
        x, y = grid.columns.to_numpy(), grid.index.to_numpy()
        image = ax.pcolormesh(x, y, grid, cmap="viridis", vmin=0, vmax=1, rasterized=True)
        # Solid over dashed: the line has to be seen on dark and on bright.
        fine = np.geomspace(x[0], x[-1], 201)
        edge = 1 + 2 * np.maximum(fine, 1 / fine)
        inside = edge <= y[-1]
        ax.plot(fine[inside], edge[inside], color="white", lw=1.6)
        ax.plot(fine[inside], edge[inside], "--", color=drawing.INK, lw=1)
        ax.set_xscale("log")
        ax.set_yscale("log")
        ax.set_xticks([t for t in (0.1, 0.25, 0.5, 1, 2, 4, 10) if x[0] <= t <= x[-1]])
        ax.set_xticklabels([f"{t:g}" for t in ax.get_xticks()])
        ax.set_yticks([t for t in (2, 3, 5, 10, 20, 30) if y[0] <= t <= y[-1]])
        ax.set_yticklabels([f"{t:g}" for t in ax.get_yticks()])
        ax.minorticks_off()
        ax.set_xlabel("importance of b / importance of a")
        ax.set_title(title)
    axes[0][0].set_ylabel("kurtosis of the inputs")
    for place, word, colour in ((0.09, "ignored", "white"), (0.91, "mono-\nsemantic", "black")):
        axes[0][0].text(place, 0.08, word, transform=axes[0][0].transAxes, color=colour,
                        ha="left" if place < 0.5 else "right", fontsize=7)  # fmt: skip
    axes[0][0].text(0.5, 0.8, "polysemantic", transform=axes[0][0].transAxes, color="white",
                    ha="center", fontsize=7)  # fmt: skip
    made.colorbar(image, ax=axes[0].tolist(), label="capacity of feature b (dimensions)", pad=0.01)
    drawing.letter(axes[0])
    return made


def _slope(name: str) -> Callable[[Numbers], Effect]:
    """Median over ratios of (onset - 1) / max(a/b, b/a)."""

    def measure(numbers: Numbers) -> Effect:
        every = _of(numbers, name)
        found = []
        for ratio in every["ratio"].unique().tolist():
            rows = every[every["ratio"] == ratio]
            at = onset(rows["kurtosis"].to_numpy(), rows["phase_b"] == "polysemantic")
            found.append((at - 1) / max(ratio, 1 / ratio))
        slopes = np.array([slope for slope in found if np.isfinite(slope)])
        if len(slopes) < 5:
            raise CannotJudge("sharing begins inside the range for fewer than five ratios")
        return bootstrap_effect(lambda i: float(np.median(slopes[i])), len(slopes))

    return measure


def _agreement(one: str, other: str) -> Callable[[Numbers], Effect]:
    def measure(numbers: Numbers) -> Effect:
        same = _of(numbers, one)["phase_b"] == _of(numbers, other)["phase_b"]
        return share_effect(int(same.sum()), len(same))

    return measure


def _rarest(name: str) -> Callable[[Numbers], Effect]:
    """Share of the rarest phase; its interval is that of the share."""

    def measure(numbers: Numbers) -> Effect:
        phases = _of(numbers, name)["phase_b"]
        return share_effect(min(int((phases == p).sum()) for p in PHASES), len(phases))

    return measure


def _below_three(name: str) -> Callable[[Numbers], Effect]:
    def measure(numbers: Numbers) -> Effect:
        rows = _of(numbers, name)
        low = rows[rows["kurtosis"] <= 3]
        return share_effect(int((low["phase_b"] == "polysemantic").sum()), len(low))

    return measure


def _widening(name: str) -> Callable[[Numbers], Effect]:
    def measure(numbers: Numbers) -> Effect:
        from scipy.stats import spearmanr

        shared = _of(numbers, name).assign(shared=lambda t: t["phase_b"] == "polysemantic")
        by_kurtosis = shared.groupby("kurtosis")["shared"].mean()
        k, share = by_kurtosis.index.to_numpy(), by_kurtosis.to_numpy()

        def correlation(units: np.ndarray[Any, Any]) -> float:
            if min(len(np.unique(side[units])) for side in (k, share)) == 1:
                return 0.0
            return float(spearmanr(k[units], share[units]).statistic)

        return bootstrap_effect(correlation, len(k))

    return measure


def _right_one(name: str) -> Callable[[Numbers], Effect]:
    """Where one feature has the dimension: how often it is the more important."""

    def measure(numbers: Numbers) -> Effect:
        rows = _of(numbers, name)
        alone = rows[(rows["phase_b"] != "polysemantic") & ((np.log(rows["ratio"])).abs() > 1e-6)]
        right = (alone["phase_b"] == "monosemantic") == (alone["ratio"] > 1)
        return share_effect(int(right.sum()), len(alone))

    return measure


PAPER = "Scherlis et al. 2022"
OTHERS = f"{PAPER}, for other architectures"
CLAIMS = (
    Claim(
        "Two features share a dimension where k > 1 + 2 max(a/b, b/a) (quadratic)",
        PAPER,
        "median of (kurtosis at which sharing begins - 1) / max(a/b, b/a)",
        Criterion(1.8, 2.2),
        _slope("quadratic"),
    ),
    Claim(
        "The trained phases are those of the closed form (quadratic)",
        PAPER,
        "share of points with the same phase",
        at_least(0.95),
        _agreement("quadratic", "theory"),
    ),
    *(
        claim
        for name, where in (("quadratic", PAPER), ("ReLU", OTHERS))
        for claim in (
            Claim(
                f"A feature may be ignored, polysemantic or monosemantic ({name})",
                where,
                "share of points in the rarest of the three phases",
                at_least(0.05),
                _rarest(name),
            ),
            Claim(
                f"The more kurtosis, the wider the importances that share ({name})",
                where,
                "rank correlation of the share of polysemantic points with kurtosis",
                at_least(0.9),
                _widening(name),
            ),
            Claim(
                "Of two features that do not share it is the less important one that is ignored "
                f"({name})",
                where,
                "share of such points with unequal importances",
                at_least(0.95),
                _right_one(name),
            ),
            Claim(
                f"Nothing is polysemantic up to the kurtosis of a Gaussian variable, 3 ({name})",
                where,
                "share of polysemantic points up to kurtosis 3",
                at_most(0.1),
                _below_three(name),
            ),
        )
    ),
    Claim(
        "The boundary of the quadratic model is that of the ReLU model, too (not in the paper)",
        "this package",
        "share of points with the same phase",
        at_least(0.95),
        _agreement("ReLU", "theory"),
    ),
)

EXPERIMENT = Experiment(
    name="kurtosis-phase",
    title="Phases of two features over importance and kurtosis",
    source=f"{PAPER}, quadratic toy model",
    settings={
        "smoke": Settings(ratios=7, kurtosis=9, restarts=2, batch=128, steps=400),
        "laptop": Settings(),
        "paper": Settings(ratios=33, widest=16.0, kurtosis=49, most=64.0, batch=1024, steps=5000),
    },
    run=run,
    figure=figure,
    claims=CLAIMS,
    remarks=(
        "Two features a and b in one dimension. The dashed line is k = 1 + 2 max(a/b, b/a), drawn "
        "in all panels.",
        "Polysemantic means that both have a capacity above 0.003. The capacity of the lesser "
        "feature rises from 0 at the line, so that the measured onset lies a little above it.",
        "Of several networks at a point the one with the least loss on held-out samples counts: "
        "below a kurtosis of 3, and everywhere in the ReLU model, some end in a worse minimum.",
        "Sparse uniform inputs of kurtosis 1.8 / p at feature probability p.",
    ),
)
