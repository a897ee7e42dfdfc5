"""A dot on a circle through the autoencoder: how smooth the code is at each depth."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import polycode_plugins as pc
from polycode_plugins.adapters.base import Adapter
from polycode_plugins.data import MovingDot, moving_dot
from polycode_plugins.experiments.autoencoder import (
    PUBLISHED,
    SMOKE,
    Inputs,
    Training,
    made,
    pictures,
    trained,
)
from polycode_plugins.experiments.base import Experiment, parts
from polycode_plugins.experiments.by_depth import (
    depth_share,
    mean_rank_correlation,
    places,
    plain_log,
)
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
from polycode_plugins.experiments.resnet_vae import HIDDEN

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: Sites whose projections are drawn, and how many of each.
DRAWN = (HIDDEN[0], "layer2.1.relu2", HIDDEN[-1])
EACH = 4
#: Projections whose correlation with the stimulus is taken.
CORRELATED = 100


@dataclass(frozen=True)
class Settings(Training):
    """Settings; those of the training first.

    frames: of the stimulus, once around the circle.
    projections, dimensions: random projections of each layer.
    """

    frames: int = 100
    projections: int = 1000
    dimensions: int = 3


def run(settings: Settings, seed: int, folder: Path) -> Numbers:
    """`layers`: action and exponent of each layer; `projections`: some of them; the stimulus."""
    import pandas as pd

    training = pictures(settings.data, settings.images, settings.size, seed)
    shown = pictures(settings.data, settings.analysed, settings.size, seed + 1, "test")
    dot = moving_dot(settings.frames, size=settings.size)
    drawn: list[dict[str, Any]] = []

    def measured(key: str) -> pd.DataFrame:
        weights, _, number = key.partition("-")
        model, spectra = made(settings, 0.0, int(number), seed), None
        if weights == "trained":
            model, _ = trained(settings, training, 0.0, int(number), seed, folder)
        network = pc.load(model, adapter="module")  # one, which proves its axes once
        if weights == "trained":
            metric = pc.metrics.Spectrum(positions="features", ranks=settings.ranks, seed=seed)
            pixels = Inputs(shown, settings.size)
            spectra = pc.analyze(network, pixels, metric, HIDDEN, progress=False)
        rows = _layers(network, spectra, dot, settings, seed)
        return pd.DataFrame(rows).assign(weights=weights, network=int(number))

    keys = [f"{w}-{i}" for i in range(settings.networks) for w in ("trained", "untrained")]
    layers = parts(folder, "layers", keys, measured).drop(columns="part")
    model, _ = trained(settings, training, 0.0, 0, seed, folder)
    seen = _actions(pc.load(model, adapter="module"), dot, settings, seed)
    for site in DRAWN:
        for number, path in enumerate(seen[site, "action"].trajectories[:EACH]):
            for time, point in enumerate(path):
                x, y = point[:2]
                drawn.append({"site": site, "projection": number, "time": time, "x": x, "y": y})
    stimulus = pd.DataFrame(dot.positions.numpy(), columns=["x", "y"])
    stimulus = stimulus.assign(radius=dot.radius, orbit=dot.orbit, size=settings.size)
    return {"layers": layers, "projections": pd.DataFrame(drawn), "stimulus": stimulus}


def _actions(network: Adapter, dot: MovingDot, settings: Settings, seed: int) -> pc.Analysis:
    action = pc.metrics.Action(
        projections=settings.projections,
        dimensions=settings.dimensions,
        path="rows",
        positions="features",
        seed=seed,
    )
    return pc.analyze(network, dot.frames, action, HIDDEN, progress=False)


def _correlations(
    network: Adapter, dot: MovingDot, settings: Settings, seed: int
) -> dict[str, float]:
    """Mean |r| of the dot's coordinates with those of random projections, at each site."""
    frames = pc.DataOptions(batch_size=len(dot.frames))
    (paths,) = network.stream(dot.frames, HIDDEN, options=frames)
    return {
        site: pc.metrics.stimulus_correlation(
            paths[site].matrix("features"),
            dot.positions,
            projections=min(settings.projections, CORRELATED),
            dimensions=settings.dimensions,
            seed=seed,
        ).mean
        for site in HIDDEN
    }


_OF_PICTURES = (
    "exponent",
    "exponent_low",
    "exponent_high",
    "static_measured",
    "static_corrected",
    "static_published",
)


def _layers(
    network: Adapter,
    spectra: pc.Analysis | None,
    dot: MovingDot,
    settings: Settings,
    seed: int,
) -> list[dict[str, Any]]:
    """One row for each layer; NaN for what needs the spectra of pictures, without them."""
    moving = _actions(network, dot, settings, seed)
    correlation = _correlations(network, dot, settings, seed)
    k = settings.dimensions
    rows = []
    for depth, site in enumerate(HIDDEN):
        action = moving[site, "action"]
        unit = k / (2 * action.width)  # mean action of a path of unit squared length
        row = {
            "depth": depth,
            "site": site,
            "width": action.width,
            "action": action.monte_carlo,
            "action_exact": action.expected,
            "normalised": action.monte_carlo / (unit * action.total_variance),
            "von_neumann": action.von_neumann_ratio,
            "correlation": correlation[site],
            **dict.fromkeys(_OF_PICTURES, np.nan),
        }
        if spectra is not None:
            found = spectra[site, "spectrum"]
            law = pc.metrics.power_law_action(found, dimensions=k)
            low, high = found.interval or (np.nan, np.nan)
            # Static actions are in units of k / 2m and the largest eigenvalue.
            statics = (law.measured, law.corrected, law.as_published)
            scaled = [np.nan if x is None else x / (unit * law.scale) for x in statics]
            row |= dict(zip(_OF_PICTURES, (found.exponent, low, high, *scaled), strict=True))
        rows.append(row)
    return rows


def figure(numbers: Numbers) -> Figure:
    """The dot (a), projections (b), action by depth (c); the exponent and all of them (d-f)."""
    from matplotlib.figure import Figure

    from polycode_plugins.experiments import drawing

    layers = numbers["layers"]
    made_here = Figure(figsize=(drawing.TWO, 4.9), layout="constrained")
    grid: Any = made_here.subfigures(2, 1, height_ratios=(1, 1.15))
    upper, lower = grid
    frames, *panels = upper.subplots(1, 4, gridspec_kw={"width_ratios": [1.15, 1, 1, 1]})
    _draw_dot(frames, numbers["stimulus"])
    table = numbers["projections"]
    at = places(layers)
    depth_of = dict(zip(layers["site"], layers["depth"], strict=True))
    for ax, site in zip(panels, DRAWN, strict=True):
        rows = layers[(layers["site"] == site) & (layers["weights"] == "trained")]
        _draw_projections(ax, table[table["site"] == site])
        ax.set_title(f"layer {depth_of[site] + 1}, action {rows['normalised'].iloc[0]:.2g}")
        for spine in ax.spines.values():
            spine.set_visible(True)
            spine.set_color(drawing.shade(at[depth_of[site]]))
            spine.set_linewidth(1.6)
    by_depth, path, follows, static = lower.subplots(1, 4)
    for weights, colour, mark in (
        ("untrained", drawing.FAINT, "s"), ("trained", drawing.COLOURS[0], "o"),
    ):  # fmt: skip
        rows = layers[layers["weights"] == weights]
        means = rows.groupby("depth")["normalised"].agg(["mean", "min", "max"])
        by_depth.fill_between(means.index + 1, means["min"], means["max"], color=colour, alpha=0.2,
                              lw=0)  # fmt: skip
        by_depth.plot(means.index + 1, means["mean"], f"{mark}-", color=colour, label=weights)
    by_depth.set_yscale("log")
    by_depth.set_xlabel("layer")
    by_depth.set_ylabel("action / variance")
    by_depth.set_title("Action by depth")
    by_depth.legend(loc="best")
    known = layers[layers["weights"] == "trained"]
    colours = [drawing.shade(at[depth]) for depth in known["depth"]]
    path.scatter(known["exponent"], known["normalised"], c=colours, s=12)
    path.set_yscale("log")
    path.set_title("Action, dot")
    path.set_ylabel("action / variance")
    follows.scatter(known["exponent"], known["correlation"], c=colours, s=12)
    follows.set_title("Projection and dot")
    follows.set_ylabel("mean |correlation|")
    follows.set_ylim(bottom=0)
    static.scatter(known["exponent"], known["static_measured"], c=colours, s=12, zorder=3,
                   label="measured")  # fmt: skip
    _draw_theory(static, known)
    static.set_title("Static action")
    static.set_ylabel("action / largest eigenvalue")
    for ax in (path, follows, static):
        ax.set_xlabel("exponent (−α)")
    for ax in (by_depth, path, static):
        plain_log(ax)
    drawing.letter([frames, panels[0], by_depth, path, follows, static])
    return made_here


def _draw_dot(ax: Axes, stimulus: pd.DataFrame) -> None:
    from matplotlib.patches import Circle, Rectangle

    first = stimulus.iloc[0]
    size, radius, orbit = float(first["size"]), float(first["radius"]), float(first["orbit"])
    shown = np.linspace(0, len(stimulus), 4, endpoint=False).astype(int)
    step = 0.35 * size
    for place, time in enumerate(shown[::-1]):
        x0, y0 = (len(shown) - 1 - place) * step, -(len(shown) - 1 - place) * step * 0.8
        ax.add_patch(Rectangle((x0, y0), size, size, fc="#111111", ec="white", lw=0.8))
        x, y = stimulus["x"].iloc[time] * orbit, stimulus["y"].iloc[time] * orbit
        ax.add_patch(Circle((x0 + size / 2 + x, y0 + size / 2 + y), radius, fc="white"))
        ax.annotate(f"t = {time}", (x0 + size - 1, y0 + 1.5), color="white", fontsize=6,
                    ha="right", va="bottom")  # fmt: skip
    ax.set_xlim(-1, size + step * (len(shown) - 1) + 1)
    ax.set_ylim(-step * 0.8 * (len(shown) - 1) - 1, size + 1)
    ax.set_aspect("equal")
    ax.axis("off")
    ax.set_title("Moving dot")


def _draw_projections(ax: Axes, table: pd.DataFrame) -> None:
    """Projections, each scaled to its own range, coloured by time."""
    from matplotlib.collections import LineCollection

    from polycode_plugins.experiments import drawing

    for number, rows in table.groupby("projection"):
        points = rows[["x", "y"]].to_numpy()
        points = (points - points.min(0)) / max(float(np.ptp(points, axis=0).max()), 1e-12)
        points += 1.2 * np.array([int(str(number)) % 2, -(int(str(number)) // 2)])
        colours = [drawing.shade(t) for t in np.linspace(0, 1, len(points))]
        lines: Any = np.stack([points[:-1], points[1:]], axis=1)
        ax.add_collection(LineCollection(lines, colors=colours, linewidths=0.7))
        ax.scatter(points[:, 0], points[:, 1], c=colours, s=1.5)
    ax.set_aspect("equal", adjustable="datalim")
    ax.set_xticks([])
    ax.set_yticks([])


def _draw_theory(ax: Axes, known: pd.DataFrame) -> None:
    from polycode_plugins.experiments import drawing

    span = known["exponent"]
    alphas = np.linspace(max(0.0, float(span.min()) - 0.1), float(span.max()) + 0.1, 60)
    width = int(known["width"].median())
    finite = [2 * width / 3 * pc.theory.power_law_action(width, a) for a in alphas]
    ax.plot(alphas, finite, color=drawing.COLOURS[2], label=f"Σ, m = {width}")
    beyond = alphas[alphas > 1.05]
    if len(beyond):
        zeta = [2 * pc.theory.power_law_action(width, a, mode="as_published") for a in beyond]
        ax.plot(beyond, zeta, "--", color=drawing.COLOURS[1], label="ζ")
    ax.set_yscale("log")
    ax.legend(loc="upper right", handlelength=1.4)


def _of_trained(numbers: Numbers) -> pd.DataFrame:
    layers = numbers["layers"]
    rows: pd.DataFrame = layers[layers["weights"] == "trained"]
    return rows


def _varies(numbers: Numbers) -> Effect:
    rows = _of_trained(numbers)
    return depth_share(rows.assign(log=np.log(rows["normalised"])), "log")


def _static(numbers: Numbers, column: str) -> Effect:
    """Measured over derived static action, median over layers, by network."""
    rows = _of_trained(numbers)
    rows = rows[np.isfinite(rows[column])]
    if rows.empty:
        raise CannotJudge("no layer's exponent is above 1, where the zeta function is finite")
    ratio = rows["static_measured"] / rows[column]
    return mean_effect(ratio.groupby(rows["network"]).median())


def _sampled(numbers: Numbers) -> Effect:
    """Root mean square over all layers; a fact about these draws, without an interval."""
    layers = numbers["layers"]
    off = layers["action"] / layers["action_exact"] - 1
    return Effect(float(np.sqrt((off**2).mean())))


FIGURE = "Marshall & Kirchner 2024, figure 4"
THEORY = "Marshall & Kirchner 2024, supplement 2.5"
CLAIMS = (
    Claim(
        "Random projections of the moving dot are smoother at some depths than at others",
        f"{FIGURE}b and 4c",
        "share of the variance of log action / variance that depth accounts for (the rest is "
        "between networks)",
        at_least(0.5),
        _varies,
    ),
    Claim(
        "The faster a layer's spectrum decays, the smaller its action",
        f"{FIGURE}d and supplement 2.5",
        "rank correlation over layers of action / variance with the exponent, mean over networks",
        at_most(-0.5),
        lambda numbers: mean_rank_correlation(_of_trained(numbers), "exponent", "normalised"),
    ),
    Claim(
        "The mean over random projections has converged (a check, not in the paper)",
        f"{FIGURE}c",
        "mean action over projections / exact expectation - 1, root mean square over layers",
        at_most(0.03),
        _sampled,
    ),
    Claim(
        "The static action is 1/2 zeta(-alpha), in units of the largest eigenvalue",
        THEORY,
        "measured / published static action, median over layers with exponent above 1",
        Criterion(0.9, 1.1),
        lambda numbers: _static(numbers, "static_published"),
    ),
    Claim(
        "It is k/2m times the finite sum of i^alpha (corrected, not in the paper)",
        "theory.power_law_action",
        "measured / corrected static action, median over layers",
        Criterion(0.9, 1.1),
        lambda numbers: _static(numbers, "static_corrected"),
    ),
)
EXPERIMENT = Experiment(
    name="moving-dot",
    title="Action of a moving dot in random projections, by depth",
    source="Marshall & Kirchner 2024, figure 4",
    settings={
        "smoke": Settings(**SMOKE, frames=12, projections=50),
        "laptop": Settings(images=4000),
        "paper": Settings(**PUBLISHED),
    },
    run=run,
    figure=figure,
    claims=CLAIMS,
    remarks=(
        "Actions are in units of k/2m and of the layer's variance (b, c, d) or its largest "
        "eigenvalue (f), so that layers of different scale and width compare; the number above a "
        "panel of b is the layer's. Colour in b is time, in d to f depth.",
        "At the laptop scale small autoencoders (16 to 128 channels, 32 pixels) are trained on "
        "crops of two photographs; at the paper scale ResNet-18 on CIFAR-10 at 224 pixels. "
        "Exponents are those of photographs, with positions as features, corrected for the number "
        "of samples; networks with their initial weights stand beside.",
        "The paper does not state the number of frames, the dot's radius or the hooked layers. "
        "Here 100 frames, a tenth of the picture, and the outputs of stem, blocks and dense "
        "layers.",
    ),
)
