"""Eigenspectra of autoencoders trained at several rates of dropout, and what noise does to them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from polycode_plugins.errors import DataError
from polycode_plugins.experiments.autoencoder import (
    PUBLISHED,
    SMOKE,
    Training,
    explained,
    pictures,
    trained,
)
from polycode_plugins.experiments.autoencoder_spectra import draw_spectra, excess, layers_of
from polycode_plugins.experiments.base import Experiment, parts, read_table
from polycode_plugins.experiments.by_depth import plain_log
from polycode_plugins.experiments.claims import (
    CannotJudge,
    Claim,
    Effect,
    Numbers,
    at_least,
    at_most,
    mean_effect,
)

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: The noise at which codes of networks trained with and without it are held against each other.
NOISE = 0.4


@dataclass(frozen=True)
class Settings(Training):
    """Settings; those of the training first.

    rates: of dropout in training, ascending, the first of them 0.
    """

    rates: tuple[float, ...] = (0.0, 0.2, 0.4, 0.6, 0.8)


def run(settings: Settings, seed: int, folder: Path) -> Numbers:
    """`layers`, `spectra`, `losses` and `noise` (what is reconstructed under dropout) by rate."""
    import pandas as pd

    training = pictures(settings.data, settings.images, settings.size, seed)
    shown = pictures(settings.data, settings.analysed, settings.size, seed + 1, "test")

    def measured(key: str) -> pd.DataFrame:
        rate, network = float(key.split("-")[0]), int(key.split("-")[1])
        columns = {"rate": rate, "network": network}
        model, losses = trained(settings, training, rate, network, seed, folder)
        try:
            layers, spectra = layers_of(model, shown, settings, seed, columns, corrected=False)
        except DataError as error:
            fewer = ",".join(f"{r:g}" for r in settings.rates if r != rate)
            raise DataError(
                f"network {network} trained at dropout {rate:g} has a layer without a spectrum to "
                f"fit, as one that has collapsed ({error}); leave that rate out (--set "
                f"rates={fewer}), or take another seed"
            ) from error
        spectra.to_csv(folder / f"spectra-of-{key}.csv", index=False)
        steps = pd.DataFrame(losses, columns=["step", "loss"]).astype({"step": int})
        steps.assign(**columns).to_csv(folder / f"losses-of-{key}.csv", index=False)
        heard = [
            {**columns, "noise": noise, "explained": explained(model, shown, noise, seed)}
            for noise in sorted({*settings.rates, NOISE})
        ]
        pd.DataFrame(heard).to_csv(folder / f"noise-of-{key}.csv", index=False)
        return layers

    keys = [f"{rate}-{i}" for rate in settings.rates for i in range(settings.networks)]
    layers = parts(folder, "layers", keys, measured).drop(columns="part")
    beside = {
        name: pd.concat([read_table(folder / f"{name}-of-{key}.csv") for key in keys])
        for name in ("spectra", "losses", "noise")
    }
    return {"layers": layers, **beside}


def figure(numbers: Numbers) -> Figure:
    """Spectra without (a) and with dropout (b), deviation (c), effective rank (d), noise (e)."""
    from matplotlib.figure import Figure

    from polycode_plugins.experiments import drawing

    layers, spectra, noise = excess(numbers["layers"]), numbers["spectra"], numbers["noise"]
    rates = sorted(layers["rate"].unique())
    made = Figure(figsize=(drawing.TWO, 4.7), layout="constrained")
    grid: Any = made.subfigures(2, 1)
    upper = grid[0].subplots(1, 2, sharey=True)
    shown = rates[0], min(rates[1:], key=lambda rate: abs(rate - NOISE))
    for ax, rate in zip(upper, shown, strict=True):
        draw_spectra(ax, spectra[spectra["rate"] == rate], layers[layers["rate"] == rate])
        ax.set_title(f"Trained with dropout {rate:g}" if rate else "Trained without dropout")
    upper[1].set_ylabel("")
    upper[1].get_legend().remove()
    off, rank, heard = grid[1].subplots(1, 3)
    _draw_by_rate(off, layers, "excess")
    off.set_ylabel("excess off Huber line (decades)")
    off.set_title("Deviation from a power law")
    _draw_by_rate(rank, layers, "effective_rank")
    rank.set_yscale("log")
    plain_log(rank)
    rank.get_legend().remove()
    rank.set_ylabel("effective rank")
    rank.set_title("Dimensions used")
    for ax in (off, rank):
        ax.set_xlabel("dropout rate in training")
    for i, rate in enumerate(rates):
        rows = noise[noise["rate"] == rate].groupby("noise")["explained"].mean()
        heard.plot(
            rows.index, rows.clip(lower=-1), f"{drawing.MARKERS[i % 6]}-",
            color=drawing.shade(i / max(len(rates) - 1, 1)), label=f"{rate:g}",
        )  # fmt: skip
    heard.axhline(0, color=drawing.FAINT, lw=0.7, ls=":")
    heard.set_xlabel("dropout rate when read")
    heard.set_ylabel("share reconstructed")
    heard.set_title("Robustness to noise")
    heard.set_ylim(bottom=-1.9)  # room for the legend
    heard.set_yticks([-1, -0.5, 0, 0.5])
    heard.legend(title="trained at dropout rate", title_fontsize=7, loc="lower left", ncols=3,
                 handlelength=1.2, columnspacing=0.8, handletextpad=0.4)  # fmt: skip
    drawing.letter([*upper, off, rank, heard])
    return made


def _draw_by_rate(ax: Axes, layers: pd.DataFrame, column: str) -> None:
    """A line for each of three depths: mean and range over networks."""
    from polycode_plugins.experiments import drawing

    deepest = int(layers["depth"].max())
    for i, depth in enumerate((0, deepest // 2, deepest)):
        rows = layers[layers["depth"] == depth].groupby("rate")[column]
        summary = rows.agg(["mean", "min", "max"])
        colour = drawing.shade(depth / deepest)
        ax.fill_between(summary.index, summary["min"], summary["max"], color=colour, alpha=0.2,
                        lw=0)  # fmt: skip
        ax.plot(summary.index, summary["mean"], f"{drawing.MARKERS[i]}-", color=colour,
                label=f"layer {depth + 1}")  # fmt: skip
    ax.legend(loc="best", handlelength=1.4)


def _per_rate(column: str, *, log: bool = False) -> Callable[[Numbers], Effect]:
    """The change of a mean over layers per unit of dropout rate: a slope for each network."""

    def measure(numbers: Numbers) -> Effect:
        layers = excess(numbers["layers"])
        if layers["rate"].nunique() < 2:
            raise CannotJudge("there is a single dropout rate")
        values = np.log2(layers[column]) if log else layers[column]
        means = values.groupby([layers["network"], layers["rate"]]).mean().unstack()
        rates = means.columns.to_numpy(dtype=np.float64)
        return mean_effect([np.polyfit(rates, row, 1)[0] for row in means.to_numpy()])

    return measure


def _robustness(numbers: Numbers) -> Effect:
    """What is read under `NOISE` from networks trained with it, less from ones trained without."""
    noise = numbers["noise"]
    table = noise[noise["noise"] == NOISE].pivot(
        index="network", columns="rate", values="explained"
    )
    if 0.0 not in table or NOISE not in table:
        raise CannotJudge(f"that needs networks trained without dropout and with {NOISE:g}")
    return mean_effect(table[NOISE] - table[0.0])


FIGURE = "Marshall & Kirchner 2024, figure 5"
CLAIMS = (
    Claim(
        "The higher the dropout rate, the less linear the spectra in a log-log plot",
        FIGURE,
        "distance from the Huber line beyond that of a sample from a power law (decades, mean over "
        "layers): slope over dropout rates",
        at_least(0.0),
        _per_rate("excess"),
    ),
    Claim(
        "Dropout promotes redundancy: codes use fewer dimensions",
        f"{FIGURE} and summary",
        "log2 of the effective rank (mean over layers): slope over dropout rates",
        at_most(0.0),
        _per_rate("effective_rank", log=True),
    ),
    Claim(
        "A code learnt under noise is more robust to it",
        FIGURE,
        f"share of unseen pictures' variance reconstructed under dropout {NOISE:g}: trained with "
        "it less trained without",
        at_least(0.0),
        _robustness,
    ),
)

EXPERIMENT = Experiment(
    name="dropout-spectra",
    title="Eigenspectra at several rates of dropout",
    source="Marshall & Kirchner 2024, figure 5",
    settings={
        "smoke": Settings(**SMOKE, rates=(0.0, 0.4)),
        "laptop": Settings(images=4000, networks=3),
        "paper": Settings(**PUBLISHED),
    },
    run=run,
    figure=figure,
    claims=CLAIMS,
    remarks=(
        "Networks, pictures and spectra are those of autoencoder-spectra, with fewer pictures and "
        "networks at the laptop scale. Networks of one number begin with the same weights and see "
        "the same pictures at all rates, so that rates are compared within a network.",
        "Spectra are taken without dropout. a and b show the first network; the paper shows two "
        "networks and does not say at which rates.",
        "Robustness (e) is not measured in the paper. Batch normalisation keeps the statistics of "
        "training, so that another rate than the trained one is also a shift of scale: at the "
        "laptop scale networks trained at 0.6 and 0.8 reconstruct nothing when they are read "
        "without dropout, as their spectra are. Shares below -1 are drawn at -1.",
    ),
)
