"""Capacity of features by importance and kurtosis: trained networks beside the optimum."""

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
)
from polycode_plugins.experiments.importance_models import (
    Architecture,
    Floats,
    Inputs,
    kinds,
    train_importance_models,
)

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

#: What is trained: the name in the tables, the architecture, and the inputs.
TRAINED: dict[str, tuple[Architecture, Inputs]] = {
    "quadratic": ("quadratic", "sparse"),
    "quadratic, dense inputs": ("quadratic", "dense"),
    "ReLU": ("relu", "sparse"),
}


@dataclass(frozen=True)
class Settings:
    """Settings.

    features: n of each network.
    dimensions: m of its hidden layer.
    span: importance of the first feature over that of the last; they fall geometrically.
    kurtosis: of the inputs, one network each.
    replicas: networks trained for each kurtosis.
    batch, steps, rate: of Adam.
    device: where it trains.
    """

    features: int = 32
    dimensions: int = 8
    span: float = 64.0
    kurtosis: tuple[float, ...] = (2.5, 4.0, 6.0, 9.0, 14.0, 20.0, 30.0)
    replicas: int = 5
    batch: int = 512
    steps: int = 3000
    rate: float = 0.02
    device: str = "cpu"


def run(settings: Settings, seed: int, folder: Path) -> Numbers:
    """`features` has a row for each feature of each network, `networks` one for each network."""
    import pandas as pd

    v = np.geomspace(1, 1 / settings.span, settings.features)
    every = np.repeat(settings.kurtosis, settings.replicas)
    features, networks = [], []
    for name, (architecture, inputs) in TRAINED.items():
        trained = train_importance_models(
            architecture,
            torch.from_numpy(v).expand(len(every), -1),
            torch.from_numpy(every),
            settings.dimensions,
            batch=settings.batch,
            steps=settings.steps,
            rate=settings.rate,
            seed=seed,
            path=folder / f"{architecture}-{inputs}.safetensors",
            inputs=inputs,
            device=settings.device,
        )
        for number, (k, w) in enumerate(zip(every, trained.embedding, strict=True)):
            row = {"trained": name, "kurtosis": k, "network": number}
            networks.append(row | _summary(w, v, float(k), quadratic=architecture == "quadratic"))
            features.append(
                pd.DataFrame(
                    {
                        **row,
                        "importance": v,
                        "capacity": theory.feature_capacity(w),
                        "optimal": theory.optimal_allocation(v, float(k), settings.dimensions),
                    }
                )
            )
    return {"features": pd.concat(features, ignore_index=True), "networks": pd.DataFrame(networks)}


def _summary(w: Floats, v: Floats, kurtosis: float, *, quadratic: bool) -> dict[str, Any]:
    """Shares of the kinds of features; for a quadratic network its exact loss over the least."""
    ignored, shared, own = (float(kind.mean()) for kind in kinds(theory.feature_capacity(w)))
    ratio = float("nan")
    if quadratic:
        best = theory.optimal_embedding(v, kurtosis, w.shape[1])
        ratio = theory.quadratic_loss(w, v, kurtosis) / theory.quadratic_loss(best, v, kurtosis)
    return {
        "ignored": ignored,
        "polysemantic": shared,
        "monosemantic": own,
        "loss_ratio": ratio,
    }


def figure(numbers: Numbers) -> Figure:
    """Capacity against importance by kurtosis for both architectures; shares of polysemantic."""
    from polycode_plugins.experiments import drawing

    features = numbers["features"]
    made, axes = drawing.panels(3, height=2.6)
    first, second, third = axes[0]
    every = sorted(features["kurtosis"].unique())
    shown = every[:: -(-len(every) // 4)]
    for ax, name, title in (
        (first, "quadratic", "Quadratic model"),
        (second, "ReLU", "ReLU model"),
    ):
        of_model = features[features["trained"] == name]
        for number, k in enumerate(shown):
            rows = of_model[of_model["kurtosis"] == k]
            line = rows.drop_duplicates("importance")
            colour = drawing.shade(number / max(len(shown) - 1, 1))
            mark = drawing.MARKERS[number % len(drawing.MARKERS)]
            ax.plot(line["importance"], line["optimal"], color=colour, lw=1)
            ax.plot(rows["importance"], rows["capacity"], mark, color=colour, ms=2.5, mec="none",
                    alpha=0.6)  # fmt: skip
            ax.plot([], [], f"{mark}-", color=colour, ms=3, lw=1, label=f"{k:g}")
        ax.set_xscale("log")
        ax.set_xlabel("importance v (first feature: 1)")
        ax.set_title(title)
        ax.set_ylim(-0.03, 1.05)
    first.set_ylabel("capacity of a feature (dimensions)")
    first.legend(title="kurtosis", loc="upper left", handletextpad=0.5, title_fontsize=7)
    networks = numbers["networks"]
    best = features[features["trained"] == "quadratic"].groupby("kurtosis")["optimal"]
    optimal = best.apply(lambda c: float(kinds(c.to_numpy())[1].mean()))
    third.plot(optimal.index, optimal, color=drawing.INK, lw=1, label="optimum (quadratic)")
    for name, colour, mark, size in zip(TRAINED, drawing.COLOURS, "osD", (7, 3, 4), strict=False):
        share = networks[networks["trained"] == name].groupby("kurtosis")["polysemantic"].mean()
        # Open and large, small, and filled: two of the three lie on one another.
        face = "none" if size == 7 else colour
        third.plot(share.index, share, mark, color=colour, ms=size, mfc=face, label=name)
    third.set_xscale("log")
    third.set_xticks([2, 5, 10, 20, 40], ["2", "5", "10", "20", "40"])
    third.minorticks_off()
    third.set_xlabel("kurtosis of the inputs")
    third.set_ylabel("share of polysemantic features")
    third.set_title("Polysemantic features")
    third.set_ylim(-0.02, 1.5 * float(networks["polysemantic"].max()) + 0.05)
    third.legend(loc="upper left")
    drawing.letter([first, second, third])
    return made


def _by_network(numbers: Numbers, name: str, above: float = 3.0) -> list[pd.DataFrame]:
    """Features of every network of that name with a kurtosis above `above`, by importance."""
    rows = numbers["features"]
    rows = rows[(rows["trained"] == name) & (rows["kurtosis"] > above)]
    rows = rows.sort_values("importance", ascending=False)
    return [network for _, network in rows.groupby("network")]


def _mean(values: list[float]) -> Effect:
    found = np.array(values)
    return bootstrap_effect(lambda i: float(found[i].mean()), len(found))


def _capacity(name: str, feature: int) -> Callable[[Numbers], Effect]:
    """Mean capacity of the most (0) or the least (-1) important feature."""

    def measure(numbers: Numbers) -> Effect:
        return _mean([float(f["capacity"].iloc[feature]) for f in _by_network(numbers, name)])

    return measure


def _straightness(name: str) -> Callable[[Numbers], Effect]:
    """Mean share of variance that a line in importance explains of polysemantic capacities."""

    def measure(numbers: Numbers) -> Effect:
        found = []
        for network in _by_network(numbers, name):
            shared = network[kinds(network["capacity"].to_numpy())[1]]
            if len(shared) >= 4:
                v, c = shared["importance"], shared["capacity"]
                found.append(float(np.corrcoef(v, c)[0, 1] ** 2))
        if not found:
            raise CannotJudge("no network has four polysemantic features")
        return _mean(found)

    return measure


def _distance(name: str) -> Callable[[Numbers], Effect]:
    def measure(numbers: Numbers) -> Effect:
        networks = _by_network(numbers, name, above=0)
        return _mean([float((f["capacity"] - f["optimal"]).abs().mean()) for f in networks])

    return measure


def _trend(name: str) -> Callable[[Numbers], Effect]:
    def measure(numbers: Numbers) -> Effect:
        from scipy.stats import spearmanr

        networks = numbers["networks"]
        rows = networks[networks["trained"] == name]
        k, share = rows["kurtosis"].to_numpy(), rows["polysemantic"].to_numpy()
        if len(np.unique(share)) == 1:
            return Effect(0.0)

        def correlation(units: np.ndarray[Any, Any]) -> float:
            drawn = k[units], share[units]
            if min(len(np.unique(side)) for side in drawn) == 1:
                return 0.0
            return float(spearmanr(*drawn).statistic)

        return bootstrap_effect(correlation, len(rows))

    return measure


def _loss_ratio(numbers: Numbers) -> Effect:
    networks = numbers["networks"]
    return _mean(networks["loss_ratio"].dropna().tolist())


def _difference(one: str, other: str) -> Callable[[Numbers], Effect]:
    """Mean over kurtosis of the difference in the share of polysemantic features, as a size."""

    def measure(numbers: Numbers) -> Effect:
        networks = numbers["networks"]
        shares = networks.pivot_table("polysemantic", ["kurtosis", "network"], "trained")
        gap = (shares[one] - shares[other]).groupby("kurtosis").agg(["mean", "var", "count"])
        if (gap["count"] < 2).any():
            raise CannotJudge("a single run has no interval")
        # The size of a mean is biased upwards by its own noise, so that is taken off.
        noise = gap["var"] / gap["count"]
        square = float((gap["mean"] ** 2 - noise).mean())
        error = float(np.sqrt((4 * gap["mean"] ** 2 * noise + 2 * noise**2).sum())) / len(gap)
        ends = [max(square + d * 1.96 * error, 0.0) ** 0.5 for d in (0, -1, 1)]
        return Effect(*ends)

    return measure


PAPER = "Scherlis et al. 2022"
CLAIMS = (
    *(
        claim
        for name, where in (("quadratic", PAPER), ("ReLU", f"{PAPER}, for other architectures"))
        for claim in (
            Claim(
                f"The most important features are represented monosemantically ({name})",
                where,
                "mean capacity of the most important feature, kurtosis above 3",
                at_least(0.95),
                _capacity(name, 0),
            ),
            Claim(
                "Less important features are polysemantic, in proportion to their impact on the "
                f"loss ({name})",
                where,
                "share of variance of polysemantic capacities that a straight line in importance "
                "explains",
                at_least(0.95),
                _straightness(name),
            ),
            Claim(
                f"The least important features are ignored ({name})",
                where,
                "mean capacity of the least important feature, kurtosis above 3",
                at_most(0.05),
                _capacity(name, -1),
            ),
            Claim(
                f"Polysemanticity grows with the kurtosis of the inputs ({name})",
                where,
                "rank correlation of the share of polysemantic features with kurtosis",
                at_least(0.9),
                _trend(name),
            ),
        )
    ),
    Claim(
        "Training finds the optimum that has a closed form (quadratic)",
        PAPER,
        "mean loss of a trained network / least loss; below 1 the closed form would be wrong",
        Criterion(0.999, 1.02),
        _loss_ratio,
    ),
    Claim(
        "Training allocates capacity as the closed form does (quadratic)",
        PAPER,
        "mean |capacity - optimal capacity|, in dimensions",
        at_most(0.02),
        _distance("quadratic"),
    ),
    Claim(
        "The optimum of the quadratic model describes the ReLU model, too (not in the paper)",
        "this package",
        "mean |capacity - optimal capacity of the quadratic model|, in dimensions",
        at_most(0.02),
        _distance("ReLU"),
    ),
    Claim(
        "Sparsity acts through kurtosis: dense inputs of equal kurtosis do the same (quadratic)",
        PAPER,
        "size of the difference in the share of polysemantic features",
        at_most(0.03),
        _difference("quadratic", "quadratic, dense inputs"),
    ),
    Claim(
        "Polysemanticity is more prevalent in some architectures than in others",
        PAPER,
        "size of the difference in the share of polysemantic features, ReLU and quadratic",
        at_least(0.03),
        _difference("quadratic", "ReLU"),
    ),
)

EXPERIMENT = Experiment(
    name="capacity-allocation",
    title="Capacity of features by importance and kurtosis",
    source=f"{PAPER}, optimal capacity allocation",
    settings={
        "smoke": Settings(
            features=12, dimensions=4, kurtosis=(2.5, 6.0, 14.0), replicas=2, batch=128, steps=400
        ),
        "laptop": Settings(),
        "paper": Settings(replicas=20, batch=2048, steps=20_000),
    },
    run=run,
    figure=figure,
    claims=CLAIMS,
    remarks=(
        "Lines are the closed form for the quadratic model, in both panels; marks are features of "
        "trained networks, which were trained on samples, with no use of the closed form.",
        "Ignored, polysemantic and monosemantic mean a capacity below 0.05, between, and above "
        "0.95.",
        "In proportion means on a straight line: the line does not pass through the origin, for "
        "capacity begins at an importance of 2 / ((k - 1) s), not at 0.",
        "Below a kurtosis of 3 the optimum is a corner with local minima beside it: some networks "
        "keep a feature of their own for one that is a little less important.",
        "Sparse inputs have kurtosis 1.8 / p at feature probability p. Dense ones (powers of a "
        "Gaussian variable) are never 0 and tell kurtosis from sparsity.",
        "What the paper used for numbers of features, dimensions and steps is not known to us; "
        'the scale "paper" is the same experiment with more networks and more training.',
    ),
)
