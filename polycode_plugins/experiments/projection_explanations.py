"""Explanation scores of neurons and of random projections, and a layer's smoothness."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import polycode_plugins as pc
from polycode_plugins.experiments.base import Experiment
from polycode_plugins.experiments.by_depth import layer_numbers, places
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

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_WORD = re.compile(r"[^\W\d_]{2,}")
#: Layers of which a rank correlation says anything.
FEWEST = 5


@dataclass(frozen=True)
class Settings:
    """Settings.

    model: a name or folder; "" for the embedded tiny GPT-2.
    texts: what `pc.compare` reads; "" for the docstrings that come with Python.
    sites: where neurons and projections are read.
    windows: of text that records are taken from.
    context: tokens of a window.
    units: neurons, and random projections, of each site.
    explainer: an explainer's name.
    explainer_model: that a remote explainer asks; "" for its default.
    protocol: how records are split, see `pc.compare`.
    control: also with the model's weights in random order.
    """

    model: str = ""
    texts: str = ""
    sites: str = "blocks.*.mlp.hook_post"
    windows: int = 3000
    context: int = 64
    units: int = 100
    explainer: str = "token-lookup"
    explainer_model: str = ""
    protocol: str = "marshall-kirchner"
    control: bool = True


def run(settings: Settings, seed: int, folder: Path) -> Numbers:
    """`units` has a row for each unit with its scores, `layers` the layers' action and exponent."""
    model, texts = settings.model or None, settings.texts or None
    answers = {"model": settings.explainer_model} if settings.explainer_model else None
    comparison = pc.compare(
        model,
        texts,
        settings.sites,
        units=("neuron", "projection"),
        explainer=settings.explainer,
        explainer_options=answers,
        protocol=settings.protocol,
        n_units=settings.units,
        seed=seed,
        judge=False,
        floors=("shuffled", "oracle"),
        control=settings.control,
        context=settings.context,
        limit=settings.windows,
        progress=False,
    )
    units = comparison.to_dataframe()
    kept = ["weights", "depth", "site", "kind", "unit", "explanation", "correlation"]
    kept += ["floor.shuffled", "floor.oracle", "kurtosis", "sparsity", "reason"]
    analysis = pc.analyze(
        model,
        texts,
        pc.metrics.Action(seed=seed),
        settings.sites,
        context=settings.context,
        limit=settings.windows,
        seed=seed,
        progress=False,
    )
    layers = analysis.to_dataframe().rename(columns=lambda name: name.removeprefix("action."))
    return {
        "units": units[kept].rename(columns=lambda name: name.removeprefix("floor.")),
        "layers": layers[["depth", "site", "von_neumann_ratio", "normalised", "width"]],
    }


def figure(numbers: Numbers) -> Figure:
    """Scores by layer (a), their distribution (b), and the layer's smoothness (c)."""
    from polycode_plugins.experiments import drawing

    units = numbers["units"]
    made, axes = drawing.panels(3, height=2.6)
    by_layer, spread, smooth = axes[0]
    known = units[units["weights"] == "trained"]
    number = layer_numbers(known)
    for i, kind in enumerate(("neuron", "projection")):
        colour = drawing.COLOURS[i]
        for weights, column, line in (
            ("trained", "correlation", "-"), ("random", "correlation", "--"),
            ("trained", "shuffled", ":"),
        ):  # fmt: skip
            rows = units[(units["kind"] == kind) & (units["weights"] == weights)]
            if rows.empty:
                continue
            mean = rows.groupby("depth")[column].mean()
            marked = line == "-"
            by_layer.plot(
                mean.index.map(number), mean, f"{drawing.MARKERS[i] if marked else ''}{line}",
                color=colour, lw=1.3 if marked else 1, label=f"{kind}s" if marked else None,
            )  # fmt: skip
        scores = known[known["kind"] == kind]["correlation"].dropna()
        bins = np.arange(np.floor(10 * known["correlation"].min()) / 10, 1.01, 0.05)
        spread.hist(scores, bins, density=True, histtype="step", color=colour, lw=1.3)
        spread.axvline(scores.mean(), color=colour, lw=0.8, ls=":")
        means = known[known["kind"] == kind].groupby("depth")["correlation"].mean()
        ratio = numbers["layers"].set_index("depth")["von_neumann_ratio"]
        at = places(known)
        smooth.plot(ratio[means.index], means, "-", color=colour, lw=0.7, alpha=0.6, zorder=1)
        smooth.scatter(
            ratio[means.index],
            means,
            marker=drawing.MARKERS[i],
            s=22,
            lw=0.9,
            ec=colour,
            c=[drawing.shade(at[depth]) for depth in means.index],
        )
    for line, name in (("--", "shuffled weights"), (":", "another's")):
        by_layer.plot([], [], line, color=drawing.FAINT, lw=1, label=name)
    by_layer.axhline(0, color=drawing.FAINT, lw=0.6)
    by_layer.set_ylim(top=max(1.35, by_layer.get_ylim()[1]))
    by_layer.set_yticks(np.arange(0, 1.01, 0.25))
    by_layer.legend(loc="upper left", ncols=2, columnspacing=0.7, handlelength=1.4,
                    handletextpad=0.4, borderpad=0.1)  # fmt: skip
    by_layer.set_xlabel("layer")
    by_layer.set_ylabel("mean explanation score")
    by_layer.set_title("Scores by layer")
    by_layer.locator_params(axis="x", integer=True)
    spread.set_xlabel("explanation score")
    spread.set_ylabel("density of units")
    spread.set_title("Scores of all units")
    smooth.set_xlabel("squared step / variance")
    smooth.set_ylabel("mean explanation score")
    smooth.set_title("Score and smoothness")
    _name_ends(smooth, numbers)
    drawing.letter([by_layer, spread, smooth])
    return made


def _name_ends(ax: Axes, numbers: Numbers) -> None:
    """Say which of the points are the first and the last layer."""
    units, smooth = numbers["units"], numbers["layers"].set_index("depth")
    known = units[(units["weights"] == "trained") & (units["kind"] == "projection")]
    number = layer_numbers(known)
    means = known.groupby("depth")["correlation"].mean()
    for depth in (means.index.min(), means.index.max()):
        ax.annotate(f"layer {number[depth]}", (smooth["von_neumann_ratio"][depth], means[depth]),
                    xytext=(0, -9), textcoords="offset points", fontsize=6,
                    ha="center")  # fmt: skip
    ax.margins(0.14)


def _scores(numbers: Numbers, kind: str, column: str = "correlation", weights: str = "trained") -> (
    pd.DataFrame
):  # fmt: skip
    """Units with a score, in a fixed order."""
    units = numbers["units"]
    rows: pd.DataFrame = units[(units["kind"] == kind) & (units["weights"] == weights)]
    return rows.dropna(subset=[column])


def _explained(numbers: Numbers) -> Effect:
    """Own score less that of another unit's explanation, over projections."""
    rows = _scores(numbers, "projection").dropna(subset=["shuffled"])
    gain = (rows["correlation"] - rows["shuffled"]).to_numpy()
    return bootstrap_effect(lambda i: float(gain[i].mean()), len(gain))


def _shared(numbers: Numbers) -> Effect:
    """Share of a projection's explaining words that one neuron's explanation has, at most.

    Words in more than half of all explanations belong to the form and do not count.
    """
    units = numbers["units"]
    units = units[units["weights"] == "trained"].dropna(subset=["correlation"])
    words = {i: set(_WORD.findall(text.lower())) for i, text in units["explanation"].items()}
    counts = Counter(word for said in words.values() for word in said)
    shares = []
    for _, layer in units.groupby("depth"):
        said = {i: {w for w in words[i] if 2 * counts[w] <= len(words)} for i in layer.index}
        neurons = [said[i] for i in layer.index[layer["kind"] == "neuron"]]
        if not neurons:
            raise CannotJudge("a layer has no explained neuron")
        shares += [
            max(len(said[i] & other) for other in neurons) / len(said[i])
            for i in layer.index[layer["kind"] == "projection"]
            if said[i]
        ]
    found = np.array(shares)
    return bootstrap_effect(lambda i: float(found[i].mean()), len(found))


def _difference(first: pd.DataFrame, second: pd.DataFrame) -> Effect:
    """Mean score of `first` less that of `second`, drawing units of both anew."""
    scores = np.concatenate([first["correlation"], second["correlation"]])
    ours = np.arange(len(scores)) < len(first)
    if not ours.any() or ours.all():
        raise CannotJudge("there are no scores of one of them")

    def difference(i: np.ndarray[Any, Any]) -> float:
        drawn, mine = scores[i], ours[i]
        return float(drawn[mine].mean() - drawn[~mine].mean())

    return bootstrap_effect(difference, len(scores))


def _against_neurons(numbers: Numbers) -> Effect:
    return _difference(_scores(numbers, "projection"), _scores(numbers, "neuron"))


def _against_control(numbers: Numbers) -> Effect:
    random = _scores(numbers, "projection", weights="random")
    if random.empty:
        raise CannotJudge("the control was left out")
    return _difference(_scores(numbers, "projection"), random)


def _smooth(numbers: Numbers) -> Effect:
    """Rank correlation over layers of the projections' mean score with the squared step."""
    from scipy.stats import spearmanr

    rows = _scores(numbers, "projection")
    ratio = numbers["layers"].set_index("depth")["von_neumann_ratio"]
    depths = np.sort(rows["depth"].unique())
    if len(depths) < FEWEST:
        raise CannotJudge(f"a rank correlation needs {FEWEST} layers")
    scores, at = rows["correlation"].to_numpy(), rows["depth"].to_numpy()
    steps = ratio[depths].to_numpy()

    def correlation(i: np.ndarray[Any, Any]) -> float:
        drawn, where = scores[i], at[i]
        means = [drawn[where == depth].mean() for depth in depths if (where == depth).any()]
        return float(spearmanr(steps, means).statistic) if len(means) == len(depths) else 0.0

    return bootstrap_effect(correlation, len(scores))


SUMMARY = "Marshall & Kirchner 2024, summary (figure 7)"
CLAIMS = (
    Claim(
        "Random projections can be explained",
        SUMMARY,
        "score of a projection's explanation less that of another's explanation, mean",
        at_least(0.1),
        _explained,
    ),
    Claim(
        "Their explanations complement those of neurons: no neuron's says the same",
        SUMMARY,
        "share of a projection's explaining words that the nearest neuron's explanation has, mean",
        at_most(0.5),
        _shared,
    ),
    Claim(
        "They are explained as well as single neurons",
        SUMMARY,
        "mean score of projections less that of neurons",
        Criterion(-0.05, 0.05),
        _against_neurons,
    ),
    Claim(
        "The smoother a layer's code, the better its projections are explained",
        "Marshall & Kirchner 2024, abstract",
        "rank correlation over layers of the mean score with squared step / variance",
        at_most(-0.5),
        _smooth,
    ),
    Claim(
        "The scores are the trained network's (a check, not in the paper)",
        "Heap et al. 2025",
        "mean score of projections less that with the weights in random order",
        at_least(0.05),
        _against_control,
    ),
)

EXPERIMENT = Experiment(
    name="projection-explanations",
    title="Explanations of neurons and of random projections",
    source="Marshall & Kirchner 2024, figure 7",
    settings={
        "smoke": Settings(windows=150, units=4, sites="blocks.[05].mlp.hook_post", control=False),
        "laptop": Settings(),
        "paper": Settings(
            model="gpt2-xl",
            texts="hf:NeelNanda/pile-10k",
            windows=20_000,
            units=1000,
            explainer="openai",
            explainer_model="gpt-4",
            control=False,
        ),
    },
    run=run,
    figure=figure,
    claims=CLAIMS,
    remarks=(
        "The laptop scale explains without a language model (and reads the embedded tiny GPT-2, "
        "unless another is named): an explanation is a list of tokens with their levels, and is "
        "simulated by looking tokens up. Scores therefore do not compare with published ones of "
        "GPT-4, and layers that depend on the token alone, which are the least smooth, are the "
        "easiest for it.",
        "As published: the ten texts of the highest maximum, of which even ranks explain and odd "
        "ranks score, with signed projections. Dotted in a: another unit's explanation; dashed: "
        "the model with the entries of each weight matrix in random order.",
        "The paper scale asks gpt-4 through the openai explainer, which needs a key and costs "
        "money; the published simulator, text-davinci-003, is no longer served. The paper's "
        "layers and texts are not stated.",
    ),
)
