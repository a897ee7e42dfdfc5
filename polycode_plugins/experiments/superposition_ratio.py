"""Dimensions per feature against sparsity: trained toy models beside the optimal code."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from polycode_plugins import theory
from polycode_plugins.experiments.base import Experiment
from polycode_plugins.experiments.claims import (
    Claim,
    Effect,
    Numbers,
    at_least,
    at_most,
    bootstrap_effect,
)
from polycode_plugins.experiments.plateaus import find_plateaus, relative_steepness
from polycode_plugins.experiments.toy_models import train_toy_models
from polycode_plugins.experiments.training import check_device

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

#: Dimensions per feature at which the paper draws lines, and the polytope that has them.
LINES = {"3/4": 3 / 4, "2/3": 2 / 3, "1/2": 1 / 2, "2/5": 2 / 5, "3/8": 3 / 8}


@dataclass(frozen=True)
class Settings:
    """Settings.

    features: n of each toy model.
    dimensions: m of its hidden layer.
    probabilities: feature probabilities 20^(-k/(probabilities-1)); 20 as published, 58 = 3 * 19 + 1
      holds those and two between each pair.
    batch, steps, rate: of AdamW.
    element_bits: H_elem of the prediction; 24 bits is the entropy of a float32 drawn from U(0, 1).
    device: where it trains.
    """

    features: int = 200
    dimensions: int = 20
    probabilities: int = 58
    batch: int = 1024
    steps: int = 10_000
    rate: float = 1e-3
    element_bits: float = 24.0
    device: str = "cpu"


def run(settings: Settings, seed: int, folder: Path) -> Numbers:
    """Train all toy models at once; `curve` has a row for each, `features` for each feature."""
    import pandas as pd

    check_device(settings.device)
    n, m = settings.features, settings.dimensions
    p = 20.0 ** (-np.arange(settings.probabilities) / (settings.probabilities - 1))
    embeddings = train_toy_models(
        torch.from_numpy(p),
        n,
        m,
        batch=settings.batch,
        steps=settings.steps,
        rate=settings.rate,
        anneal=False,
        seed=seed,
        path=folder / "toy-models.safetensors",
        device=settings.device,
    ).numpy()
    norms = (embeddings**2).sum((1, 2))
    capacity = np.stack([theory.feature_capacity(w) for w in embeddings])
    curve = pd.DataFrame(
        {
            "probability": p,
            "dimensions_per_feature": m / norms,
            "optimal": theory.dimensions_per_feature(1 - p, settings.element_bits),
            "element_bits": settings.element_bits,
            "capacity": capacity.sum(1),
        }
    )
    features = pd.DataFrame(
        {
            "probability": np.repeat(p, n),
            "feature": np.tile(np.arange(n), len(p)),
            "capacity": capacity.ravel(),
            "squared_norm": (embeddings**2).sum(2).ravel(),
        }
    )
    return {"curve": curve, "features": features}


def fitted_element_bits(numbers: Numbers) -> float:
    """The H_elem in bits at which the optimal code comes nearest to the measured curve.

    Least squares of log D* over the networks that neither stick nor are dense (D* >= 0.95).
    """
    from scipy.optimize import minimize_scalar

    free = _free(numbers)
    p, measured = free["probability"].to_numpy(), free["dimensions_per_feature"].to_numpy()

    def misfit(log_bits: float) -> float:
        optimal = theory.dimensions_per_feature(1 - p, float(np.exp(log_bits)))
        return float((np.log(optimal / measured) ** 2).mean())

    found = minimize_scalar(misfit, bounds=(np.log(0.25), np.log(64)), method="bounded")
    return float(np.exp(found.x))


def _free(numbers: Numbers) -> pd.DataFrame:
    """Rows of the curve that have begun to fall and are in no sticky region."""
    curve = numbers["curve"]
    sparsity, ratio = 1 / curve["probability"], curve["dimensions_per_feature"]
    free = ratio < 0.95
    for plateau in find_plateaus(sparsity.to_numpy(), ratio.to_numpy()):
        free &= ~sparsity.between(plateau.first * 0.999, plateau.last * 1.001)
    return curve[free]


def figure(numbers: Numbers) -> Figure:
    """Left the ratio with the sticky regions the test found, right the capacities of features."""
    from polycode_plugins.experiments import drawing

    curve, features = numbers["curve"], numbers["features"]
    x = (1 / curve["probability"]).to_numpy()
    ratio = curve["dimensions_per_feature"].to_numpy()
    made, axes = drawing.panels(2, height=2.7)
    left, right = axes[0]
    bits = fitted_element_bits(numbers)
    best = theory.dimensions_per_feature(1 - 1 / x, bits)
    for number, plateau in enumerate(find_plateaus(x, ratio)):
        left.axvspan(
            plateau.first, plateau.last, color=drawing.COLOURS[1], alpha=0.18, lw=0,
            label="sticky region (test)" if number == 0 else None,
        )  # fmt: skip
    left.plot(x, ratio, "o", color=drawing.INK, ms=3, label="trained network")
    published = float(curve["element_bits"].iloc[0])
    green = drawing.COLOURS[2]
    left.plot(x, curve["optimal"], color=green, label=f"optimal code, {published:g} bits")
    left.plot(x, best, "--", color=green, label=f"optimal code, {bits:.1f} bits (fitted)")
    shown = features[features["capacity"] > 0.02]
    right.plot(
        1 / shown["probability"], shown["capacity"], ".", color=drawing.COLOURS[0], ms=2, alpha=0.25
    )
    for ax in (left, right):
        for name, value in LINES.items():
            ax.axhline(value, color=drawing.FAINT, lw=0.6, ls=":")
            ax.annotate(
                name,
                (1, value),
                xycoords=("axes fraction", "data"),
                xytext=(2, {"2/5": 3, "3/8": -3}.get(name, 0)),  # else these two overlap
                textcoords="offset points",
                va="center",
                fontsize=6,
                color=drawing.INK,
            )
        ax.set_xscale("log")
        ax.set_xticks([1, 2, 5, 10, 20], ["1", "2", "5", "10", "20"])
        ax.minorticks_off()
        ax.set_xlabel("sparsity 1/p (p: probability of a feature)")
        ax.set_ylim(0, 1.08)
    left.set_ylabel("dimensions per feature, m / ‖W‖²")
    left.set_title("Dimensions per feature")
    left.legend(loc="upper right")
    right.set_ylabel("capacity of a feature")
    right.set_title("Capacities of single features")
    drawing.letter([left, right])
    return made


def _trend(numbers: Numbers) -> Effect:
    from scipy.stats import spearmanr

    curve = numbers["curve"]
    p, ratio = curve["probability"].to_numpy(), curve["dimensions_per_feature"].to_numpy()
    return bootstrap_effect(lambda i: float(-spearmanr(p[i], ratio[i]).statistic), len(p))


def _sticks_at(level: float) -> Callable[[Numbers], Effect]:
    def measure(numbers: Numbers) -> Effect:
        curve = numbers["curve"]
        x = (1 / curve["probability"]).to_numpy()
        return relative_steepness(x, curve["dimensions_per_feature"].to_numpy(), level)

    return measure


def _misfit(numbers: Numbers, *, fitted: bool) -> Effect:
    free = _free(numbers)
    p = free["probability"].to_numpy()
    bits = fitted_element_bits(numbers) if fitted else float(free["element_bits"].iloc[0])
    optimal = theory.dimensions_per_feature(1 - p, bits)
    off = np.abs(np.log2(free["dimensions_per_feature"].to_numpy() / optimal))
    return bootstrap_effect(lambda i: float(np.median(off[i])), len(off))


def _unused(numbers: Numbers) -> Effect:
    """The least D* over the prediction; an exact ratio of one trained network."""
    curve = numbers["curve"]
    ratio = (curve["dimensions_per_feature"] / curve["optimal"]).to_numpy()
    return Effect(float(ratio.min()))


CLAIMS = (
    Claim(
        "The sparser the features, the fewer dimensions a network spends on one",
        "Marshall & Kirchner 2024, figure 1c",
        "rank correlation of dimensions per feature with sparsity 1/p",
        at_most(-0.9),
        _trend,
    ),
    Claim(
        "No trained network spends fewer dimensions on a feature than the optimal code",
        "Marshall & Kirchner 2024, figure 1c and supplement 2.1",
        "smallest measured / optimal dimensions per feature",
        at_least(0.98),
        _unused,
    ),
    Claim(
        "Outside the sticky regions the network follows the optimal code (entropy of the data)",
        "Marshall & Kirchner 2024, figure 1c",
        "median |log2 of measured / optimal dimensions per feature|",
        at_most(0.25),
        lambda numbers: _misfit(numbers, fitted=False),
    ),
    Claim(
        "The same with the entropy of an element, which the paper does not state, fitted",
        "Marshall & Kirchner 2024, figure 1c",
        "median |log2 of measured / optimal dimensions per feature|",
        at_most(0.25),
        lambda numbers: _misfit(numbers, fitted=True),
    ),
    *(
        Claim(
            f"The curve sticks at {name} dimensions per feature",
            "Marshall & Kirchner 2024, figure 1c; Elhage et al. 2022",
            f"steepness where the curve passes {name} / median steepness",
            at_most(0.5),
            _sticks_at(level),
        )
        for name, level in LINES.items()
    ),
)

EXPERIMENT = Experiment(
    name="superposition-ratio",
    title="Dimensions per feature in toy models of superposition",
    source="Marshall & Kirchner 2024, figure 1c",
    settings={
        "smoke": Settings(features=40, dimensions=4, probabilities=20, batch=32, steps=300),
        "laptop": Settings(batch=64),
        "paper": Settings(),
    },
    run=run,
    figure=figure,
    claims=CLAIMS,
    remarks=(
        "Trained anew with the published settings of Elhage et al., in place of data read off "
        "their plot; the laptop scale has batches of 64 in place of 1024.",
        "58 probabilities in place of 20 (the published ones are among them), so that a sticky "
        "region can be told by a test: its local steepness lies below half the median's.",
        "The paper does not state the entropy of an element. 24 bits is that of the inputs, "
        "float32 numbers drawn from U(0, 1); the fitted value is shown beside it.",
    ),
)
