"""Eigenspectra of the autoencoder's layers: exponents by depth, and eigenvectors as filters."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from einops import rearrange
from torch import Tensor
from torch.nn import functional

import polycode_plugins as pc
from polycode_plugins.experiments.autoencoder import (
    PUBLISHED,
    SMOKE,
    Inputs,
    Training,
    as_input,
    explained,
    pictures,
    reconstructed,
    trained,
)
from polycode_plugins.experiments.base import Experiment, parts, read_table
from polycode_plugins.experiments.by_depth import (
    depth_share,
    later_less_earlier,
    later_mean,
    places,
    spectrum_rows,
)
from polycode_plugins.experiments.claims import Claim, Numbers, at_least, mean_effect
from polycode_plugins.experiments.resnet_vae import HIDDEN, ResNetVAE

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: Eigenvectors and channels that are drawn as filters, and the most pixels of a side of one.
VECTORS, CHANNELS, SIDE = 5, 8, 16
EXAMPLES = 6


@dataclass(frozen=True)
class Settings(Training):
    """Settings; those of the training first.

    dropout: rate after every ReLU.
    """

    dropout: float = 0.0


def run(settings: Settings, seed: int, folder: Path) -> Numbers:
    """`layers` and `spectra` of every network; `losses`; `filters` and `examples` of the first."""
    import pandas as pd

    training = pictures(settings.data, settings.images, settings.size, seed)
    shown = pictures(settings.data, settings.analysed, settings.size, seed + 1, "test")

    def measured(key: str) -> pd.DataFrame:
        model, losses = trained(settings, training, settings.dropout, int(key), seed, folder)
        layers, spectra = layers_of(model, shown, settings, seed, {"network": int(key)})
        spectra.to_csv(folder / f"spectra-of-{key}.csv", index=False)
        steps = pd.DataFrame(losses, columns=["step", "loss"]).astype({"step": int})
        steps.insert(0, "network", int(key))
        steps.to_csv(folder / f"losses-of-{key}.csv", index=False)
        return layers.assign(explained=explained(model, shown))

    keys = [str(i) for i in range(settings.networks)]
    layers = parts(folder, "layers", keys, measured).drop(columns="part")
    model, _ = trained(settings, training, settings.dropout, 0, seed, folder)
    beside = {
        name: pd.concat([read_table(folder / f"{name}-of-{key}.csv") for key in keys])
        for name in ("spectra", "losses")
    }
    return {
        "layers": layers,
        **beside,
        "filters": _filters(model, shown, settings, seed),
        "examples": _examples(model, shown[:EXAMPLES], settings.size),
    }


def layers_of(
    model: ResNetVAE,
    pixels: Tensor,
    settings: Training,
    seed: int,
    columns: dict[str, Any],
    *,
    corrected: bool = True,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """One row for each layer, and the points of its spectrum; positions count as features.

    `deviation` is the root mean square of log10(eigenvalue / Huber line) over the fitted ranks,
    `chance` what it is for a sample from a power law. With `corrected` also the corrected exponent
    and `bend`, log2 of the slope after the best break over that before (0 where none was found).
    """
    import pandas as pd

    asked: dict[str, Any] = {"positions": "features", "ranks": settings.ranks, "seed": seed}
    metrics = [pc.metrics.Spectrum(fit="huber", **asked)]
    if corrected:
        metrics.append(pc.metrics.Spectrum(label="corrected", **asked))
    inputs = Inputs(pixels, settings.size)
    analysis = pc.analyze(model, inputs, metrics, HIDDEN, adapter="module", progress=False)
    layers, spectra = [], []
    for depth, site in enumerate(HIDDEN):
        huber = analysis[site, "spectrum"]
        place = {**columns, "depth": depth, "site": site}
        layer = {
            **place,
            "width": huber.width,
            "huber": huber.exponent,
            "deviation": deviation(huber),
            "chance": deviation_by_chance(huber, seed),
            "effective_rank": huber.effective_rank,
            "participation_ratio": huber.participation_ratio,
        }
        if corrected:
            found = analysis[site, "corrected"]
            low, high = found.interval or (np.nan, np.nan)
            layer |= {
                "exponent": found.exponent,
                "exponent_low": low,
                "exponent_high": high,
                "broken": found.power_law.broken,
                "bend": _bend(found.power_law),
            }
        layers.append(layer)
        spectra += spectrum_rows(huber.eigenvalues, huber.power_law, place)
    return pd.DataFrame(layers), pd.DataFrame(spectra)


def deviation(result: pc.metrics.SpectrumResult) -> float:
    """Root mean square of log10(eigenvalue / fitted line) over the fitted ranks, in decades."""
    law = result.power_law
    first, last = law.ranks
    ranks = np.arange(first, last + 1)
    off = np.log(result.eigenvalues[first - 1 : last]) - law.intercept
    return float(np.sqrt(((off - law.line_slope * np.log(ranks)) ** 2).mean()) / np.log(10))


def deviation_by_chance(result: pc.metrics.SpectrumResult, seed: int) -> float:
    """The deviation of a Gaussian sample of that size and width from an exact power law.

    The spectrum of a sample is curved where samples are not many times the features, the more so
    the nearer the fitted ranks come to the width.
    """
    n, width, law = result.n_samples, result.width, result.power_law
    sizes = np.arange(1, width + 1) ** (-max(law.exponent, 0.0) / 2)
    drawn = np.random.default_rng((seed, width)).standard_normal((n, width)) * sizes
    metric = pc.metrics.Spectrum(fit="huber", ranks=law.ranks, seed=seed)
    return deviation(metric.measure(drawn))


def _bend(law: Any) -> float:
    if not law.broken:
        return 0.0
    before, after = law.evidence.slope_before, law.evidence.slope_after
    if before is None or after is None or before >= 0 or after >= 0:
        return float("nan")
    return float(np.log2(after / before))


def _filters(model: ResNetVAE, pixels: Tensor, settings: Settings, seed: int) -> pd.DataFrame:
    """The stem's leading eigenvectors, channel by channel."""
    import pandas as pd

    metric = pc.metrics.Spectrum(
        positions="features", ranks=settings.ranks, eigenvectors=VECTORS, seed=seed
    )
    inputs = Inputs(pixels, settings.size)
    found = pc.analyze(model, inputs, metric, HIDDEN[0], adapter="module", progress=False)
    vectors = torch.from_numpy(found[HIDDEN[0], "spectrum"].eigenvectors)
    side = round((vectors.shape[1] / settings.channels) ** 0.5)
    # Features run over rows, columns and then channels.
    maps = rearrange(
        vectors,
        "vector (row column channel) -> vector channel row column",
        row=side,
        channel=settings.channels,
    )
    maps = functional.adaptive_avg_pool2d(maps[:, :CHANNELS], min(side, SIDE))
    names = ("vector", "channel", "row", "column")
    table = dict(
        zip(
            names,
            rearrange(np.indices(maps.shape), "coordinate ... -> coordinate (...)"),
            strict=True,
        )
    )
    return pd.DataFrame({**table, "weight": maps.numpy().ravel()})


def _examples(model: ResNetVAE, pixels: Tensor, size: int) -> pd.DataFrame:
    """Pictures and their reconstructions, red, green and blue from 0 to 255, at most 32 pixels."""
    import pandas as pd

    x = as_input(pixels, size)
    tables = []
    for kind, images in (("picture", x), ("reconstruction", reconstructed(model, x))):
        small = functional.adaptive_avg_pool2d(images, min(size, 32)).mul(255).round().int()
        number, _, height, width = small.shape
        place = rearrange(np.indices((number, height, width)), "coordinate ... -> coordinate (...)")
        table = pd.DataFrame(dict(zip(("picture", "row", "column"), place, strict=True)))
        colours = rearrange(small, "picture colour row column -> (picture row column) colour")
        table[["red", "green", "blue"]] = colours.numpy()
        tables.append(table.assign(kind=kind))
    return pd.concat(tables, ignore_index=True)


def figure(numbers: Numbers) -> Figure:
    """Spectra (a), exponents by depth (b), pictures (c) and eigenvectors as filters (d)."""
    from matplotlib.figure import Figure

    from polycode_plugins.experiments import drawing

    made = Figure(figsize=(drawing.TWO, 4.6), layout="constrained")
    grid: Any = made.subfigures(2, 2, width_ratios=(1, 1), height_ratios=(1.1, 1))
    (spectra_part, depth_part), (pictures_part, filters_part) = grid
    spectra, by_depth = spectra_part.subplots(), depth_part.subplots()
    draw_spectra(spectra, numbers["spectra"], numbers["layers"])
    spectra.set_title("Spectra by depth")
    _draw_exponents(by_depth, numbers["layers"])
    shown, filters = pictures_part.subplots(), filters_part.subplots()
    shown.imshow(_mosaic(numbers["examples"]), interpolation="nearest")
    shown.set_title("Pictures and reconstructions")
    sheet, limit = _sheet(numbers["filters"])
    filters.imshow(sheet, cmap="RdBu_r", vmin=-limit, vmax=limit, interpolation="nearest")
    filters.set_title("Eigenvectors of layer 1")
    filters.set_xlabel("channel")
    filters.set_ylabel("eigenvector")
    for ax in (shown, filters):
        ax.set_xticks([])
        ax.set_yticks([])
        for spine in ax.spines.values():
            spine.set_visible(False)
    drawing.letter([spectra, by_depth, shown, filters])
    return made


def draw_spectra(ax: Axes, table: pd.DataFrame, layers: pd.DataFrame) -> None:
    """Spectra of the first network, by depth, with their Huber lines dashed."""
    from polycode_plugins.experiments import drawing

    at = places(layers)
    rows = table[table["network"] == table["network"].min()]
    deepest = max(at)
    for depth, one in rows.groupby("depth"):
        one = one[one["eigenvalue"] > 1e-9]
        label = f"layer {int(str(depth)) + 1}" if depth in (0, deepest // 2, deepest) else None
        colour = drawing.shade(at[int(str(depth))])
        ax.plot(one["rank"], one["eigenvalue"], color=colour, lw=1, label=label)
        ax.plot(one["rank"], one["line"], "--", color=drawing.INK, lw=0.6)
    ax.plot([], [], "--", color=drawing.INK, lw=0.6, label="Huber fit")
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.set_xlabel("principal component")
    ax.set_ylabel("eigenvalue / total variance")
    ax.legend(loc="lower left")


def _draw_exponents(ax: Axes, layers: pd.DataFrame) -> None:
    from polycode_plugins.experiments import drawing

    networks = sorted(layers["network"].unique())
    for number, rows in layers.groupby("network"):
        shift = 0.12 * (networks.index(number) - (len(networks) - 1) / 2)
        error = np.stack(
            [rows["exponent"] - rows["exponent_low"], rows["exponent_high"] - rows["exponent"]]
        )
        ax.errorbar(
            rows["depth"] + 1 + shift, rows["exponent"], np.nan_to_num(error), fmt=".",
            color=drawing.COLOURS[0], ms=3, lw=0.7,
            label="corrected, 95%" if number == networks[0] else None,
        )  # fmt: skip
    mean = layers.groupby("depth")[["exponent", "huber"]].mean()
    ax.plot(mean.index + 1, mean["exponent"], color=drawing.COLOURS[0], lw=1)
    ax.plot(mean.index + 1, mean["huber"], "s:", color=drawing.COLOURS[1], lw=1, label="Huber")
    ax.axhline(1, color=drawing.INK, ls="--", lw=0.7)
    ax.set_xlabel("layer")
    ax.set_ylabel("exponent (−α)")
    ax.set_ylim(bottom=0)
    ax.set_title("Exponent by depth")
    ax.legend(loc="upper left")


def _mosaic(table: pd.DataFrame) -> Any:
    """uint8 [height, width, 3]: pictures above their reconstructions, with white gaps."""
    side = int(table["row"].max()) + 1
    count = int(table["picture"].max()) + 1
    gap = max(1, side // 16)
    sheet = np.full((2 * side + gap, count * (side + gap) - gap, 3), 255, dtype=np.uint8)
    for row, kind in enumerate(("picture", "reconstruction")):
        one = table[table["kind"] == kind].sort_values(["picture", "row", "column"])
        pixels = one[["red", "green", "blue"]].to_numpy()
        tiles = rearrange(
            pixels,
            "(picture row column) colour -> picture row column colour",
            picture=count,
            row=side,
        )
        for i, tile in enumerate(tiles):
            top, left = row * (side + gap), i * (side + gap)
            sheet[top : top + side, left : left + side] = tile
    return sheet


def _sheet(table: pd.DataFrame) -> tuple[Any, float]:
    """Filters side by side, each eigenvector scaled to its largest weight; NaN in the gaps."""
    shape = [int(table[name].max()) + 1 for name in ("vector", "channel", "row", "column")]
    ordered = table.sort_values(["vector", "channel", "row", "column"])["weight"].to_numpy()
    maps = ordered.reshape(shape)
    maps = maps / np.abs(maps).max((1, 2, 3), keepdims=True)
    side = shape[2] + 1
    sheet = np.full((shape[0] * side - 1, shape[1] * side - 1), np.nan)
    for i in range(shape[0]):
        for j in range(shape[1]):
            sheet[i * side : (i + 1) * side - 1, j * side : (j + 1) * side - 1] = maps[i, j]
    return sheet, 1.0


def excess(layers: pd.DataFrame) -> pd.DataFrame:
    """With a column `excess`: the deviation beyond that of a sample from a power law."""
    return layers.assign(excess=layers["deviation"] - layers["chance"])


FIGURE = "Marshall & Kirchner 2024, figure 3"
CLAIMS = (
    Claim(
        "The exponent depends on depth",
        f"{FIGURE}c and summary",
        "share of the variance of exponents that depth accounts for (the rest is between networks)",
        at_least(0.5),
        lambda numbers: depth_share(numbers["layers"], "exponent"),
    ),
    Claim(
        "Spectra of later layers deviate more from a power law",
        f"{FIGURE}b",
        "root mean square distance from the Huber line beyond that of a sample from a power law, "
        "in decades: deeper half less other half",
        at_least(0.05),
        lambda numbers: later_less_earlier(excess(numbers["layers"]), "excess"),
    ),
    Claim(
        "Spectra of later layers resemble a linear code's, which end at a rank",
        f"{FIGURE}a and 3b",
        "log2 of slope after the best break / slope before, mean over the deeper half",
        at_least(0.5),
        lambda numbers: later_mean(numbers["layers"], "bend"),
    ),
    Claim(
        "The autoencoders have learnt (a check, not in the paper)",
        "variational autoencoder",
        "share of the variance of unseen pictures that is reconstructed, mean over networks",
        at_least(0.5),
        lambda numbers: mean_effect(numbers["layers"].groupby("network")["explained"].first()),
    ),
)

EXPERIMENT = Experiment(
    name="autoencoder-spectra",
    title="Eigenspectra of a ResNet autoencoder by depth",
    source="Marshall & Kirchner 2024, figure 3",
    settings={
        "smoke": Settings(**SMOKE),
        "laptop": Settings(),
        "paper": Settings(**PUBLISHED),
    },
    run=run,
    figure=figure,
    claims=CLAIMS,
    remarks=(
        "At the laptop scale four small autoencoders (16 to 128 channels, 32 pixels, 6 epochs) are "
        "trained on crops of two photographs, and the unseen pictures are other crops of the same. "
        "At the paper scale: ResNet-18, CIFAR-10 at 224 pixels (data=cifar10:FOLDER), 200 epochs; "
        "tens of GB of memory for the spectra.",
        "Positions count as features, so that an eigenvector is a stack of filters (d); the paper "
        "does not say. Layers are the outputs of stem, blocks and dense layers, and the Huber "
        "regression has epsilon 1.35 and ranks 11 to 500: the paper states neither.",
        "The paper's slope is −exponent; its dashed line at −1 is the one at 1 in b. The corrected "
        "exponent allows for the number of pictures, its interval not for choosing them from two "
        "photographs: the claims are judged by networks.",
    ),
)
