"""Geometry of trained embeddings: blocks of features that share dimensions, by architecture."""

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
    train_importance_models,
)

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

TRAINED: dict[str, Architecture] = {"quadratic": "quadratic", "ReLU": "relu", "linear": "linear"}
RANDOM = "random"


@dataclass(frozen=True)
class Settings:
    """Settings.

    features: n of each network.
    dimensions: m of its hidden layer.
    span: importance of the first feature over that of the last; they fall geometrically.
    kurtosis: of the inputs, one network each.
    replicas: networks for each kurtosis.
    tolerance: of the test for blocks (`theory.find_blocks`).
    batch, steps, rate: of Adam.
    device: where it trains.
    """

    features: int = 24
    dimensions: int = 8
    span: float = 2.0
    kurtosis: tuple[float, ...] = (6.0, 12.0, 24.0)
    replicas: int = 6
    tolerance: float = 0.1
    batch: int = 512
    steps: int = 5000
    rate: float = 0.02
    device: str = "cpu"


def run(settings: Settings, seed: int, folder: Path) -> Numbers:
    """`networks`, their `blocks`, and the `cosines` between features of one of each kind."""
    import pandas as pd

    n, m = settings.features, settings.dimensions
    every = np.repeat(settings.kurtosis, settings.replicas)
    v = torch.from_numpy(np.geomspace(1, 1 / settings.span, n)).expand(len(every), -1)
    embeddings = {
        name: train_importance_models(
            architecture,
            v,
            torch.from_numpy(every),
            m,
            batch=settings.batch,
            steps=settings.steps,
            rate=settings.rate,
            seed=seed,
            path=folder / f"{architecture}.safetensors",
            device=settings.device,
        ).embedding
        for name, architecture in TRAINED.items()
    }
    embeddings[RANDOM] = np.random.default_rng(seed).normal(size=(len(every), n, m))
    networks: list[dict[str, Any]] = []
    blocks: list[dict[str, Any]] = []
    cosines = []
    for name, weights in embeddings.items():
        for number, (k, w) in enumerate(zip(every, weights, strict=True)):
            row = {"model": name, "kurtosis": k, "network": number}
            found = theory.find_blocks(w, settings.tolerance)
            networks.append(row | summary(w, found))
            blocks += block_rows(row, found)
            if number == len(every) // 2:
                cosines.append(_cosines(w, found).assign(model=name))
    return {
        "networks": pd.DataFrame(networks),
        "blocks": pd.DataFrame(blocks),
        "cosines": pd.concat(cosines, ignore_index=True),
    }


def block_rows(row: dict[str, Any], found: theory.Blocks) -> list[dict[str, Any]]:
    """The blocks of a network, each as `row` with more columns."""
    return [
        row
        | {
            "features": len(block.features),
            "dimension": block.dimension,
            "capacity": block.capacity,
            "spread": block.spread,
            "semi_orthogonal": block.semi_orthogonal and block.saturated,
        }
        for block in found.blocks
    ]


def summary(w: Floats, found: theory.Blocks) -> dict[str, Any]:
    """The columns of a network that claims are measured from.

    `structured` is the share of those features that are used, `efficiency` and `largest` are shares
    of the dimensions.
    """
    good = [b for b in found.blocks if b.semi_orthogonal and b.saturated]
    used = sum(len(b.features) for b in found.blocks)
    return {
        "ignored": len(found.ignored),
        "efficiency": float(theory.feature_capacity(w).sum()) / w.shape[1],
        "structured": sum(len(b.features) for b in good) / used,
        "largest": max(b.dimension for b in found.blocks) / w.shape[1],
    }


def _cosines(w: Floats, found: theory.Blocks) -> pd.DataFrame:
    """|cos| between features, those of a block beside each other; ignored ones have 0."""
    import pandas as pd

    order = [f for block in found.blocks for f in block.features] + list(found.ignored)
    norm = np.linalg.norm(w, axis=1)
    unit = np.where(norm[:, None] > found.tolerance * norm.max(), w / norm[:, None], 0.0)[order]
    row, column = np.indices((len(w), len(w)))
    return pd.DataFrame(
        {"row": row.ravel(), "column": column.ravel(), "cosine": np.abs(unit @ unit.T).ravel()}
    )


def figure(numbers: Numbers) -> Figure:
    """|cos| between the features of two networks; sizes of blocks, and how even their axes are."""
    from polycode_plugins.experiments import drawing

    made, axes = drawing.panels(4, height=2.3)
    first, second, third, last = axes[0]
    cosines, blocks = numbers["cosines"], numbers["blocks"]
    for ax, name in ((first, "quadratic"), (second, "ReLU")):
        grid = cosines[cosines["model"] == name].pivot_table("cosine", "row", "column")
        image = ax.imshow(grid, cmap="cividis", vmin=0, vmax=1, interpolation="nearest")
        ax.set_title(f"{name[0].upper()}{name[1:]} model")
        ax.set_xlabel("feature, by block")
        ax.set_xticks([])
        ax.set_yticks([])
    first.set_ylabel("feature, by block")
    made.colorbar(image, ax=second, label="|cos| of two features", fraction=0.05, pad=0.04)
    looks = zip([*TRAINED, RANDOM], (*drawing.COLOURS[:3], drawing.INK), "osDx", strict=True)
    places: list[str] = []
    for name, colour, mark in looks:
        of_model = blocks[blocks["model"] == name]
        sizes = of_model.groupby(["dimension", "features"]).size()
        at = np.array(sizes.index.to_list(), dtype=float).reshape(-1, 2)
        area = 10 + 70 * np.sqrt(sizes / sizes.sum())
        look = {"color": colour} if mark == "x" else {"facecolors": "none", "edgecolors": colour}
        third.scatter(at[:, 0], at[:, 1], s=area, marker=mark, lw=1, label=name, **look)
        wide = of_model[of_model["dimension"] > 1]
        if not len(wide):
            continue
        places.append(name)
        shift = np.linspace(-0.25, 0.25, len(wide))
        for good, face in ((True, colour), (False, colour if mark == "x" else "none")):
            rows = (wide["semi_orthogonal"] == good).to_numpy()
            last.plot(len(places) - 1 + shift[rows], wide["spread"][rows], mark, color=colour,
                      mfc=face, ms=3.5)  # fmt: skip
    most = int(blocks["dimension"].max())
    third.plot([0, most], [0, most], ":", color=drawing.FAINT, lw=0.8)
    third.set_xlim(0, 1.12 * most)
    third.set_xticks(range(0, most + 1, max(1, most // 4)))
    third.set_ylim(-1, 1.45 * float(blocks["features"].max()))
    third.set_xlabel("dimensions of a block")
    third.set_ylabel("features of a block")
    third.set_title("Blocks")
    for handle in third.legend(loc="upper left", handletextpad=0.1).legend_handles:
        handle.set_sizes([14])
    last.set_yscale("log")
    last.set_ylabel("spread of eigenvalues")
    last.set_xticks(range(len(places)), places)
    last.set_xlim(-0.5, len(places) - 0.5)
    last.set_title("Evenness of blocks")
    drawing.letter([first, second, third, last])
    return made


def _mean(column: str, name: str) -> Callable[[Numbers], Effect]:
    def measure(numbers: Numbers) -> Effect:
        networks = numbers["networks"]
        found = networks.loc[networks["model"] == name, column].to_numpy()
        return bootstrap_effect(lambda i: float(found[i].mean()), len(found))

    return measure


def _contrast(column: str, one: str, other: str) -> Callable[[Numbers], Effect]:
    def measure(numbers: Numbers) -> Effect:
        wide = numbers["networks"].pivot_table(column, "network", "model")
        gap = (wide[one] - wide[other]).to_numpy()
        return bootstrap_effect(lambda i: float(gap[i].mean()), len(gap))

    return measure


def _one_block(numbers: Numbers) -> Effect:
    """Networks whose polysemantic features all share one block, of those that have any."""
    blocks = numbers["blocks"]
    shared = blocks[(blocks["model"] == "quadratic") & (blocks["features"] > 1)]
    count = shared.groupby("network").size()
    if not len(count):
        raise CannotJudge("no network has polysemantic features")
    return share_effect(int((count == 1).sum()), len(count))


def _pairs(numbers: Numbers) -> Effect:
    """Share of polysemantic features that lie in pairs on one dimension, over networks."""
    blocks = numbers["blocks"]
    shared = blocks[(blocks["model"] == "ReLU") & (blocks["features"] > 1)]
    if not len(shared):
        raise CannotJudge("no network has polysemantic features")
    pair = (shared["features"] == 2) & (shared["dimension"] == 1)
    counts = shared.assign(paired=shared["features"] * pair).groupby("network")
    totals = counts[["paired", "features"]].sum().to_numpy()
    return bootstrap_effect(lambda i: float(totals[i, 0].sum() / totals[i, 1].sum()), len(totals))


PAPER = "Scherlis et al. 2022"
CLAIMS = (
    *(
        claim
        for name in ("quadratic", "ReLU")
        for claim in (
            Claim(
                f"The embedding is block-semi-orthogonal ({name})",
                PAPER,
                "mean share of used features in semi-orthogonal, saturated blocks",
                at_least(0.9),
                _mean("structured", name),
            ),
            Claim(
                f"It is efficient: no dimension is wasted ({name})",
                PAPER,
                "mean sum of capacities / dimensions",
                at_least(0.99),
                _mean("efficiency", name),
            ),
        )
    ),
    Claim(
        "A random embedding is not block-semi-orthogonal (control, not in the paper)",
        "this package",
        "mean share of used features in semi-orthogonal, saturated blocks",
        at_most(0.1),
        _mean("structured", RANDOM),
    ),
    Claim(
        "A random embedding wastes dimensions (control, not in the paper)",
        "this package",
        "mean sum of capacities / dimensions",
        at_most(0.95),
        _mean("efficiency", RANDOM),
    ),
    Claim(
        "Block sizes differ between models",
        PAPER,
        "mean dimensions of the largest block / m, quadratic less ReLU",
        at_least(0.25),
        _contrast("largest", "quadratic", "ReLU"),
    ),
    Claim(
        "All polysemantic features of a quadratic model share one block",
        PAPER,
        "share of networks that have exactly one block of several features",
        at_least(0.75),
        _one_block,
    ),
    Claim(
        "In the ReLU model features share in pairs",
        "Elhage et al. 2022 (antipodal pairs)",
        "share of polysemantic features in blocks of two features on one dimension",
        at_least(0.75),
        _pairs,
    ),
)

EXPERIMENT = Experiment(
    name="semi-orthogonal-blocks",
    title="Blocks in trained embeddings, by architecture",
    source=f"{PAPER}, geometry of the embedding space",
    settings={
        "smoke": Settings(
            features=12,
            dimensions=4,
            span=8.0,
            kurtosis=(6.0, 18.0),
            replicas=2,
            batch=128,
            steps=500,
            tolerance=0.2,
        ),
        "laptop": Settings(),
        "paper": Settings(features=96, dimensions=32, replicas=10, batch=4096, steps=20_000),
    },
    run=run,
    figure=figure,
    claims=CLAIMS,
    remarks=(
        "Blocks are connected components of the graph that joins features with |cos| above the "
        "tolerance, 0.1, which lies above the noise of training. A block is semi-orthogonal if "
        "the eigenvalues of its W^T W differ by at most that share of their mean, and saturated if "
        "its capacities sum to its dimensions to within that share.",
        "Panel c counts blocks of all networks; the area grows with their share. Its dotted line "
        "is as many features as dimensions: blocks on it are monosemantic. Panel d has the blocks "
        "of more than one dimension; filled ones pass the test.",
        "In the ReLU model blocks are pairs, which pass, where few features are represented (low "
        "kurtosis, or importances that differ more); where features crowd (high kurtosis) they "
        "join in larger blocks that are semi-orthogonal only roughly, with a spread of about 0.2.",
        "The linear model is a second control: it represents the most important features, each on "
        "its own, and nothing else.",
    ),
)
