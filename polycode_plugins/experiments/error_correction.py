"""What deep networks under dropout still tell of their input, by layer: trained and random."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from polycode_plugins import information, theory
from polycode_plugins.experiments.base import Experiment, parts
from polycode_plugins.experiments.claims import (
    CannotJudge,
    Claim,
    Criterion,
    Effect,
    Numbers,
    at_least,
    at_most,
    mean_effect,
)
from polycode_plugins.experiments.training import seeded, train

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

NETWORKS = ("learnt", "random")
#: The published curve in nats by network and layer, read off the plot to within 0.05.
PUBLISHED = {
    ("learnt", 3): 3.92,
    ("learnt", 12): 3.14,
    ("learnt", 60): 2.42,
    ("random", 12): 2.93,
    ("random", 30): 1.31,
    ("random", 60): 0.21,
}
#: The rate that the published limit was computed with; its networks had 0.2.
PUBLISHED_LIMIT_RATE = 0.3


@dataclass(frozen=True)
class Settings:
    """Settings.

    inputs: numbers, each U(-1, 1), that the network has to reproduce.
    width, depth: of its tanh layers.
    every: layers from one dropout to the next.
    rate: of dropout.
    batch, steps, learning_rate: of Adam.
    trials: networks of each kind.
    layers: that are measured, counted as in the paper: dropout and the rescaling after it are two.
    samples: that information is estimated from.
    estimators: of `polycode_plugins.information`.
    """

    inputs: int = 3
    width: int = 32
    depth: int = 40
    every: int = 4
    rate: float = 0.2
    batch: int = 100
    steps: int = 12_000
    learning_rate: float = 1e-3
    trials: int = 3
    layers: tuple[int, ...] = (3, 12, 30, 48, 60)
    samples: int = 10_000
    estimators: tuple[str, ...] = ("mine",)


class DeepNetworks(nn.Module):
    """Independent networks of tanh layers with dropout that stays on and does not rescale."""

    def __init__(self, settings: Settings, seed: int) -> None:
        super().__init__()
        self.every, self.rate = settings.every, settings.rate
        sizes = [settings.inputs, *([settings.width] * settings.depth), settings.inputs]
        generator = seeded(seed, 1)
        self.weights, self.biases = nn.ParameterList(), nn.ParameterList()
        for inner, outer in itertools.pairwise(sizes):
            drawn = torch.rand(settings.trials, inner, outer, generator=generator)
            self.weights.append((2 * drawn - 1) * math.sqrt(6 / (inner + outer)))  # Glorot's
            self.biases.append(torch.zeros(settings.trials, 1, outer))

    def layers(self, x: Tensor) -> Iterator[Tensor]:
        """Every layer's output [networks, batch, width], of x [networks, batch, inputs]."""
        *hidden, last = zip(self.weights, self.biases, strict=True)
        for number, (weight, bias) in enumerate(hidden, 1):
            x = torch.tanh(torch.baddbmm(bias, x, weight))
            yield x
            if number % self.every == 0:
                x = x * (torch.rand_like(x) >= self.rate)
                yield x / (1 - self.rate)
                yield x
        yield torch.baddbmm(last[1], x, last[0])

    def forward(self, x: Tensor) -> Tensor:
        """The last layer's output [networks, batch, inputs]."""
        *_, output = self.layers(x)
        return output


def run(settings: Settings, seed: int, folder: Path) -> Numbers:
    """`information` by network, trial, layer and estimator; `errors` of each network's output."""
    import pandas as pd

    information_, errors = [], []
    for name in NETWORKS:
        networks = DeepNetworks(settings, seed + NETWORKS.index(name))
        if name == "learnt":
            _train(networks, settings, seed, folder / "learnt.safetensors")
        x, kept = _pass(networks, settings, seed)
        for trial, error in enumerate((kept[max(kept)] - x).square().mean(1).numpy()):
            row = {"network": name, "trial": trial, "squared_error": float(error.mean())}
            errors.append(row | {"bound": rate_bound(error)})

        def measured(key: str, x: Tensor = x, kept: dict[int, Tensor] = kept) -> pd.DataFrame:
            trial = int(key.rsplit("-", 1)[1])
            rows = [_measure(x[trial], y[trial], n, settings, seed) for n, y in kept.items()]
            return pd.DataFrame([row for layer in rows for row in layer])

        keys = [f"{name}-{trial}" for trial in range(settings.trials)]
        information_.append(parts(folder, "information", keys, measured))
    table = pd.concat(information_, ignore_index=True)
    named = table.pop("part").str.rsplit("-", n=1, expand=True)
    table.insert(0, "network", named[0])
    table.insert(1, "trial", named[1].astype(int))
    bits = theory.dropout_capacity(1.0, settings.rate, "exact")
    limits = {
        "corrected": bits,
        "theorem": theory.dropout_capacity(1.0, settings.rate, "upper"),
        "as published": theory.dropout_capacity(1.0, PUBLISHED_LIMIT_RATE, "upper"),
    }
    limit = [
        {"limit": name, "nats": settings.width * value * math.log(2)}
        for name, value in limits.items()
    ]
    return {"information": table, "errors": pd.DataFrame(errors), "limits": pd.DataFrame(limit)}


def _train(networks: DeepNetworks, settings: Settings, seed: int, path: Path) -> None:
    shape = settings.trials, settings.batch, settings.inputs

    def loss_of(step: int) -> Tensor:
        x = 2 * torch.rand(shape) - 1
        error: Tensor = networks(x) - x
        return error.square().mean((1, 2)).sum()

    optimizer = torch.optim.Adam(networks.parameters(), lr=settings.learning_rate)
    train(
        networks,
        optimizer,
        loss_of,
        settings.steps,
        seed=seed,
        path=path,
        every=max(1, settings.steps // 20),
        label="deep networks",
    )


def _pass(
    networks: DeepNetworks, settings: Settings, seed: int
) -> tuple[Tensor, dict[int, Tensor]]:
    """Inputs [trials, samples, inputs], and the same of the layers that are measured, and last."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        x = 2 * torch.rand(settings.trials, settings.samples, settings.inputs) - 1
        outputs = dict(enumerate(networks.layers(x)))
    return x, {layer: outputs[layer] for layer in sorted({*settings.layers, max(outputs)})}


def _measure(
    x: Tensor, y: Tensor, layer: int, settings: Settings, seed: int
) -> list[dict[str, Any]]:
    found = information.estimate(x, y, estimators=settings.estimators, seed=seed)
    return [
        {"layer": layer, "estimator": name, "nats": nats, "error": found.errors[name]}
        for name, nats in found.estimates.items()
    ]


def rate_bound(squared_error: Sequence[float] | np.ndarray[Any, Any]) -> float:
    """Nats that an output must tell of inputs U(-1, 1) to be so near them (Shannon's lower bound).

    `squared_error` is the mean of each input. h(x) - h(x - y) >= sum ln 2 - ln(2 pi e D) / 2.
    """
    d = np.asarray(squared_error)
    return float(np.maximum(math.log(2) - 0.5 * np.log(2 * math.pi * math.e * d), 0).sum())


def needed(inputs: int = 3) -> float:
    """The published necessary information: ln 2 for each input [nats]."""
    return inputs * math.log(2)


def figure(numbers: Numbers) -> Figure:
    """Information by layer beside the published values; the same on a log scale with the limits."""
    from polycode_plugins.experiments import drawing

    made, axes = drawing.panels(2, height=2.9)
    table = numbers["information"]
    first = table["estimator"].iloc[0]
    for ax in axes[0]:
        for name, colour, mark in zip(NETWORKS, drawing.COLOURS, "os", strict=False):
            rows = table[(table["network"] == name) & (table["estimator"] == first)]
            by_layer = rows.groupby("layer")["nats"].agg(["mean", "std"])
            ax.errorbar(by_layer.index, by_layer["mean"], by_layer["std"].fillna(0), color=colour,
                        marker=mark, capsize=2, label=name)  # fmt: skip
            at, values = zip(
                *[(layer, v) for (kind, layer), v in PUBLISHED.items() if kind == name], strict=True
            )
            ax.plot(at, values, "*", color=colour, ms=8, mfc="white", label=f"{name}, published")
        errors = numbers["errors"]
        proven = errors.loc[errors["network"] == "learnt", "bound"].mean()
        ax.plot(table["layer"].max(), proven, "^", color=drawing.COLOURS[2], ms=5, zorder=5,
                label="proven by its error")  # fmt: skip
        ax.axhline(needed(), color=drawing.INK, lw=0.8, ls=":", label="needed (3 ln 2)")
        ax.set_xlabel("layer (dropout and rescaling counted)")
        ax.set_xlim(0, table["layer"].max() + 2)
    left, right = axes[0]
    left.set_ylabel("information about the input (nats)")
    left.set_ylim(0, 1.15 * float(table["nats"].max()))
    left.set_title("Information by layer")
    left.legend(loc="upper right", ncols=1)
    limits = numbers["limits"].set_index("limit")["nats"]
    styles = {"corrected": "-", "theorem": "--", "as published": ":"}
    words = {"corrected": "limit, exact", "theorem": "limit, (1 - D) C m",
             "as published": "limit, as published (D = 0.3)"}  # fmt: skip
    for name, line in styles.items():
        right.axhline(limits[name], ls=line, color=drawing.COLOURS[3], lw=1, label=words[name])
    right.set_yscale("log")
    low = max(float(table["nats"].min()) / 2, 0.01)
    right.set_ylim(low, 30)
    right.set_yticks([t for t in (0.01, 0.1, 1, 10) if t >= low])
    right.set_yticklabels([f"{t:g}" for t in right.get_yticks()])
    right.set_title("The same, with the limit for 1-bit neurons")
    handles, labels = right.get_legend_handles_labels()
    kept = [i for i, label in enumerate(labels) if label.startswith("limit")]
    right.legend([handles[i] for i in kept], [labels[i] for i in kept], loc="lower left")
    drawing.letter([left, right])
    return made


def _last(numbers: Numbers, network: str) -> np.ndarray[Any, Any]:
    """Nats at the output, by trial."""
    table = numbers["information"]
    rows = table[(table["network"] == network) & (table["layer"] == table["layer"].max())]
    rows = rows[rows["estimator"] == table["estimator"].iloc[0]].sort_values("trial")
    return np.asarray(rows["nats"])


def _kept(network: str) -> Callable[[Numbers], Effect]:
    return lambda numbers: mean_effect(_last(numbers, network))


def _gain(numbers: Numbers) -> Effect:
    return mean_effect(_last(numbers, "learnt") - _last(numbers, "random"))


def _proven(numbers: Numbers) -> Effect:
    errors = numbers["errors"]
    return mean_effect(errors.loc[errors["network"] == "learnt", "bound"])


def _slack(numbers: Numbers) -> Effect:
    errors = numbers["errors"]
    bound = errors[errors["network"] == "learnt"].sort_values("trial")["bound"].to_numpy()
    return mean_effect(_last(numbers, "learnt") - bound)


def _decay(numbers: Numbers) -> Effect:
    """Factor by which the random network's information falls, over that of the learnt one."""
    table = numbers["information"]
    table = table[table["estimator"] == table["estimator"].iloc[0]]
    after = table[table["layer"] > 5]
    if after["layer"].nunique() < 2:
        raise CannotJudge("two layers after the first dropout are needed")
    wide = after.pivot_table("nats", ["network", "trial"], "layer")
    kept = wide[wide.columns.max()] / wide[wide.columns.min()]
    return mean_effect(kept["learnt"] - kept["random"])


def _most(numbers: Numbers) -> Effect:
    """The most nats after a dropout over the exact limit; over trials of that layer."""
    table = numbers["information"]
    rows = table[(table["layer"] > 5) & (table["estimator"] == table["estimator"].iloc[0])]
    by_layer = rows.groupby(["network", "layer"])["nats"].mean()
    network, layer = by_layer.idxmax()
    most = rows[(rows["network"] == network) & (rows["layer"] == layer)]["nats"]
    limits = numbers["limits"]
    limit = float(limits.loc[limits["limit"] == "corrected", "nats"].iloc[0])
    return mean_effect(most / limit)


FIGURE = "Marshall & Kirchner 2024, supplement, figure 1"
CLAIMS = (
    Claim(
        "A trained network corrects errors: it keeps what a random one loses",
        FIGURE,
        "information at the output, learnt less random, in nats",
        at_least(1.0),
        _gain,
    ),
    Claim(
        "The trained network keeps the necessary information to its output",
        FIGURE,
        "information at the output of the learnt network, in nats (3 ln 2 = 2.08 are necessary)",
        at_least(needed()),
        _kept("learnt"),
    ),
    Claim(
        "The same without an estimator, from the error of the output (not in the paper)",
        "rate-distortion theory",
        "least information that allows for the error of the learnt network, in nats",
        at_least(needed()),
        _proven,
    ),
    Claim(
        "The estimate is not below what the error proves (check of the estimator)",
        "rate-distortion theory",
        "estimate at the output less the least information for its error, in nats",
        at_least(0.0),
        _slack,
    ),
    Claim(
        "In a random network the information falls below the necessary",
        FIGURE,
        "information at the output of the random network, in nats",
        at_most(needed()),
        _kept("random"),
    ),
    Claim(
        "Training slows the loss from layer to layer",
        FIGURE,
        "share kept from the first measured layer after dropout to the output, learnt less random",
        at_least(0.3),
        _decay,
    ),
    Claim(
        "The information stays below the theoretical limit of a layer under dropout",
        f"{FIGURE}; Theorem 3",
        "most information after a dropout / exact limit of neurons of 1 bit",
        at_most(1.0),
        _most,
    ),
    *(
        Claim(
            f"The published information at the output is found again ({name})",
            FIGURE,
            f"information at the output of the {name} network, in nats (published: {value})",
            Criterion(round(value - 0.3, 2), round(value + 0.3, 2)),
            _kept(name),
        )
        for name, value in (("learnt", 2.42), ("random", 0.21))
    ),
)

EXPERIMENT = Experiment(
    name="error-correction",
    title="Information about the input in deep networks under dropout",
    source=FIGURE,
    settings={
        "smoke": Settings(
            depth=8, steps=400, trials=2, layers=(3, 6, 12), samples=2000, estimators=("ksg",)
        ),
        "laptop": Settings(),
        "paper": Settings(
            steps=40_000,
            layers=tuple(range(3, 61, 3)),
            samples=45_056,
            estimators=("mine", "mine-as-published"),
        ),
    },
    run=run,
    figure=figure,
    claims=CLAIMS,
    remarks=(
        "Three trials are three networks of each kind; the paper repeats the estimate on one "
        "network. The laptop scale trains for 12,000 steps in place of 40,000, on fresh samples.",
        "MINE is estimated with this package's panel (held-out bound, corrected gradient), with "
        'the published one beside it at scale "paper".',
        "Layer 3 lies before the first dropout. Its information is infinite, and the value is what "
        "a critic resolves; it differs between estimators. The same holds in principle after "
        "dropout, since survivors are exact; estimates are lower bounds.",
        "The necessary information, 3 ln 2, is as published: one bit for each input, and also the "
        "differential entropy of the input. What an output of a given error needs follows from "
        "rate-distortion theory and is drawn as a triangle.",
        "The limit is that of 32 neurons of 1 bit under dropout. The published one has a rate of "
        "0.3, where the network had 0.2; the exact capacity at 0.2 is drawn beside (1 - D) C m.",
    ),
)
