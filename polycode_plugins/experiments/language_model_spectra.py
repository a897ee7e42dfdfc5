"""A GPT-2's spectra by layer, and the smallest-action trajectories of its tokens."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

import polycode_plugins as pc
from polycode_plugins.data import text_documents
from polycode_plugins.errors import DataError
from polycode_plugins.experiments.base import Experiment, parts, read_table
from polycode_plugins.experiments.by_depth import depth_share, layer_numbers, places, spectrum_rows
from polycode_plugins.experiments.claims import (
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


@dataclass(frozen=True)
class Settings:
    """Settings.

    model: a name or folder; "" for the embedded tiny GPT-2.
    texts: what `data.text_documents` reads; "" for the docstrings that come with Python.
    sites: where the model is read.
    documents: how many are analysed, split into `groups` that share none.
    groups: that every layer is measured on, so that intervals can be given.
    context: tokens of a window.
    followed: further texts whose trajectories are followed, of at least `shortest` tokens.
    shortest: tokens of such a text, the beginning of a text aside.
    projections: to one dimension, of each text and layer.
    """

    model: str = ""
    texts: str = ""
    sites: str = "blocks.*.hook_resid_post"
    documents: int = 1500
    groups: int = 5
    context: int = 64
    followed: int = 24
    shortest: int = 30
    projections: int = 1000


def run(settings: Settings, seed: int, folder: Path) -> Numbers:
    """`layers` by group of texts, `spectra` of the first group, `paths` and one text's `tokens`."""
    import pandas as pd

    adapter = pc.load(settings.model or None)
    texts = text_documents(settings.texts or None)
    # Ten times the texts that are followed are held back, since many are too short.
    spare = 10 * settings.followed
    every = [d.text for d in itertools.islice(texts, settings.documents + spare)]
    if len(every) < settings.documents + spare:
        raise DataError(
            f"{texts.name} hold {len(every)} documents, and {settings.documents + spare} are "
            "needed (documents, and ten for each that is followed); ask for fewer"
        )
    chosen = np.random.default_rng(seed).permutation(len(every))
    analysed = [every[i] for i in chosen[: settings.documents]]
    held_back = [every[i] for i in chosen[settings.documents :]]

    def measured(key: str) -> pd.DataFrame:
        group = int(key)
        part = analysed[group :: settings.groups]
        layers, spectra = _layers(adapter, part, settings, seed, group)
        pd.DataFrame(spectra).to_csv(folder / f"spectra-of-{key}.csv", index=False)
        return pd.DataFrame(layers)

    layers = parts(folder, "layers", [str(g) for g in range(settings.groups)], measured)
    paths, tokens = _paths(adapter, held_back, settings, seed)
    return {
        "layers": layers.drop(columns="part"),
        "spectra": read_table(folder / "spectra-of-0.csv"),
        "paths": pd.DataFrame(paths),
        "tokens": pd.DataFrame(tokens),
    }


def _layers(
    adapter: pc.Adapter, texts: list[str], settings: Settings, seed: int, group: int
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    metrics = [
        pc.metrics.Spectrum(seed=seed),
        pc.metrics.Spectrum(fit="huber", label="huber", seed=seed),
        pc.metrics.Action(seed=seed),
    ]
    found = pc.analyze(
        adapter, texts, metrics, settings.sites, context=settings.context, progress=False
    )
    layers, spectra = [], []
    for depth, site in enumerate(found.sites):
        spectrum, action = found[site.name, "spectrum"], found[site.name, "action"]
        low, high = spectrum.interval or (np.nan, np.nan)
        place = {"group": group, "depth": depth, "site": site.name}
        layers.append(
            {
                **place,
                "width": spectrum.width,
                "tokens": spectrum.n_samples,
                "exponent": spectrum.exponent,
                "exponent_low": low,
                "exponent_high": high,
                "huber": found[site.name, "huber"].exponent,
                "effective_rank": spectrum.effective_rank,
                "von_neumann": action.von_neumann_ratio,
                "normalised": action.normalised,
            }
        )
        law = found[site.name, "huber"].power_law
        spectra += spectrum_rows(spectrum.eigenvalues, law, place)
    return layers, spectra


def _paths(
    adapter: pc.Adapter, texts: list[str], settings: Settings, seed: int
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The smallest-action projection of each text and layer, as it is and with tokens shuffled.

    Also the tokens and projections of the first text.
    """
    generator = np.random.default_rng((seed, 1))
    tokenizer = getattr(adapter, "tokenizer", None)
    if tokenizer is None:
        raise DataError(
            "trajectories run over the tokens of a text, and this model has no tokenizer; name a "
            "language model, or a folder with its tokenizer"
        )
    options = pc.DataOptions(batch_size=1, context=settings.context)
    paths: list[dict[str, Any]] = []
    tokens: list[dict[str, Any]] = []
    document, found = -1, 0
    windows = adapter.batches(texts, options)
    for batch, seen in zip(
        windows, adapter.stream(texts, settings.sites, options=options), strict=True
    ):
        assert batch.mask is not None
        assert batch.documents is not None
        last, document = document, int(batch.documents[0])
        if document == last or int(batch.mask.sum()) < settings.shortest:
            continue  # the later windows of a text are no texts of their own
        ids = batch.inputs["input_ids"][batch.mask].tolist()
        words = [str(tokenizer.decode([i])) for i in ids]
        order = generator.permutation(len(words))
        for depth, (site, activations) in enumerate(seen.items()):
            path = activations.matrix().double().cpu().numpy()
            place = {"text": found, "depth": depth, "site": site}
            smallest = _smallest(path, settings, seed)
            ratios = {
                "smallest": von_neumann(smallest),
                "all": _mean_ratio(path, settings, seed),
                "shuffled": von_neumann(_smallest(path[order], settings, seed)),
            }
            paths.append({**place, "tokens": len(words), **ratios})
            if not found:
                scaled = (smallest - smallest.mean()) / smallest.std()
                tokens += [
                    {**place, "position": at, "token": word, "projection": float(x)}
                    for at, (word, x) in enumerate(zip(words, scaled, strict=True))
                ]
        found += 1
        if found == settings.followed:
            return paths, tokens
    raise DataError(
        f"only {found} of the texts held back have {settings.shortest} tokens or more, and "
        f"{settings.followed} are to be followed; lower followed or shortest"
    )


def _smallest(path: NDArray[np.float64], settings: Settings, seed: int) -> NDArray[np.float64]:
    """[time]: the projection of smallest action, of as many to one dimension as are drawn."""
    kept = pc.metrics.trajectories(path, settings.projections, 1, keep=1, seed=seed)
    smallest: NDArray[np.float64] = kept.points[0, :, 0]
    return smallest


def _mean_ratio(path: NDArray[np.float64], settings: Settings, seed: int) -> float:
    drawn = pc.metrics.trajectories(path, min(settings.projections, 200), 1, seed=seed)
    return float(np.mean([von_neumann(points[:, 0]) for points in drawn.points]))


def von_neumann(x: NDArray[np.float64]) -> float:
    """Mean squared step over the variance of a path [time]: 2 without order, near 0 if smooth."""
    return float(np.square(np.diff(x)).mean() / x.var(ddof=1))


def figure(numbers: Numbers) -> Figure:
    """Spectra (a), exponents (b) and smoothness by layer (c), trajectories of one text (d)."""
    from matplotlib.figure import Figure

    from polycode_plugins.experiments import drawing

    shown = numbers["layers"]
    numbering = layer_numbers(shown)
    made = Figure(figsize=(drawing.TWO, 5.0), layout="constrained")
    grid: Any = made.subfigures(2, 1, height_ratios=(1, 1))
    spectra, exponents, smooth = grid[0].subplots(1, 3)
    at = places(shown)
    for depth, rows in numbers["spectra"].groupby("depth"):
        number = int(str(depth))
        ends = number in (min(at), max(at))
        colour = drawing.shade(at[number])
        spectra.plot(rows["rank"], rows["eigenvalue"], color=colour, lw=1,
                     label=f"layer {numbering[number]}" if ends else None)  # fmt: skip
        spectra.plot(rows["rank"], rows["line"], "--", color=drawing.INK, lw=0.6)
    spectra.plot([], [], "--", color=drawing.INK, lw=0.6, label="Huber fit")
    spectra.set_xscale("log")
    spectra.set_yscale("log")
    spectra.set_ylim(top=2 * numbers["spectra"]["eigenvalue"].max())
    spectra.set_xlabel("principal component")
    spectra.set_ylabel("eigenvalue / total variance")
    spectra.set_title("Spectra by layer")
    spectra.legend(loc="lower left")
    for column, mark, name, colour in (
        ("exponent", "o-", "corrected", drawing.COLOURS[0]),
        ("huber", "s:", "Huber", drawing.COLOURS[1]),
    ):
        _band(exponents, shown, column, mark, name, colour)
    exponents.axhline(1, color=drawing.INK, ls="--", lw=0.7)
    exponents.set_ylim(bottom=0)
    exponents.set_ylabel("exponent (−α)")
    exponents.set_title("Exponent by layer")
    exponents.legend(loc="lower left")
    paths = numbers["paths"]
    for column, mark, name, colour in (
        ("all", "o-", "all projections", drawing.COLOURS[0]),
        ("smallest", "D-", "smallest action", drawing.COLOURS[2]),
        ("shuffled", "s:", "same, tokens shuffled", drawing.FAINT),
    ):
        _band(smooth, paths, column, mark, name, colour)
    smooth.axhline(2, color=drawing.INK, ls="--", lw=0.7)
    smooth.set_ylim(0, 3.1)
    smooth.set_ylabel("squared step / variance")
    smooth.set_title("Smoothness over a text")
    smooth.legend(loc="upper right")
    for ax in (exponents, smooth):
        ax.set_xlabel("layer")
    followed = grid[1].subplots()
    _draw_tokens(followed, numbers["tokens"], at)
    drawing.letter([spectra, exponents, smooth, followed])
    return made


def _band(ax: Axes, table: pd.DataFrame, column: str, mark: str, name: str, colour: str) -> None:
    """Mean by depth, and the range of its 95% interval."""
    summary = table.groupby("depth")[column].agg(["mean", "std", "size"])
    half = 1.96 * summary["std"] / np.sqrt(summary["size"])
    x = summary.index.map(layer_numbers(table))
    ax.fill_between(x, summary["mean"] - half, summary["mean"] + half,
                    color=colour, alpha=0.2, lw=0)  # fmt: skip
    ax.plot(x, summary["mean"], mark, color=colour, label=name)


def _draw_tokens(ax: Axes, table: pd.DataFrame, at: dict[int, float]) -> None:
    """The smallest-action projection over a text, for the first, middle and last layer."""
    from polycode_plugins.experiments import drawing

    depths, numbering = sorted(at), layer_numbers(table)
    for depth in sorted({depths[0], depths[len(depths) // 2], depths[-1]}):
        rows = table[table["depth"] == depth]
        ax.plot(rows["position"], rows["projection"], ".-", color=drawing.shade(at[depth]), lw=1,
                label=f"layer {numbering[depth]}")  # fmt: skip
    rows = table[table["depth"] == depths[-1]]
    # Written out, since a line break would not be seen and other scripts are not in the font.
    words = [str(w).encode("unicode_escape").decode() for w in rows["token"]]
    ax.set_xticks(rows["position"].tolist(), words, rotation=90, fontsize=6)
    for text in ax.get_xticklabels():
        text.set_parse_math(False)
    ax.set_xlim(-0.7, len(words) - 0.3)
    ax.set_ylabel("projection (standard deviations)")
    ax.set_title("Smallest-action projection over the tokens of one text")
    ax.legend(loc="lower right", bbox_to_anchor=(1, 1), borderaxespad=0, ncols=3)


def _selected(numbers: Numbers) -> Effect:
    """By text: smoothness of the smallest-action path less that of the shuffled text's."""
    paths = numbers["paths"]
    means = paths.groupby("text")[["smallest", "shuffled"]].mean()
    return mean_effect(means["smallest"] - means["shuffled"])


def _smallest_ratio(numbers: Numbers) -> Effect:
    return mean_effect(numbers["paths"].groupby("text")["smallest"].mean())


SUMMARY = "Marshall & Kirchner 2024, summary (figure 6)"
CLAIMS = (
    Claim(
        "The exponent of a language model's layers depends on depth",
        SUMMARY,
        "share of the variance of exponents that depth accounts for (the rest is between groups of "
        "texts)",
        at_least(0.5),
        lambda numbers: depth_share(numbers["layers"], "exponent", "group"),
    ),
    Claim(
        "So does the smoothness that random projections show",
        "Marshall & Kirchner 2024, abstract",
        "share of the variance of (mean squared step / variance) that depth accounts for",
        at_least(0.5),
        lambda numbers: depth_share(numbers["layers"], "von_neumann", "group"),
    ),
    Claim(
        "The projection of smallest action follows a text smoothly",
        "Marshall & Kirchner 2024, supplement 1",
        "its mean squared step / variance (2 without order), mean over texts and layers",
        at_most(1.5),
        _smallest_ratio,
    ),
    Claim(
        "That is the text's doing, not that of choosing the smallest (a check, not in the paper)",
        "Marshall & Kirchner 2024, supplement 1",
        "the same, less that of the smallest of the same tokens in random order",
        at_most(0.0),
        _selected,
    ),
)

EXPERIMENT = Experiment(
    name="language-model-spectra",
    title="Spectra and smallest-action trajectories of a language model",
    source="Marshall & Kirchner 2024, figure 6",
    settings={
        "smoke": Settings(documents=120, groups=2, followed=3, projections=50, shortest=20),
        "laptop": Settings(),
        "paper": Settings(
            model="gpt2-xl", texts="hf:NeelNanda/pile-10k", documents=5000, followed=100
        ),
    },
    run=run,
    figure=figure,
    claims=CLAIMS,
    remarks=(
        "Unless a model is named, the laptop scale reads the embedded tiny GPT-2 (6 layers, width "
        "128) on the docstrings it was trained on and others: it shows that the pipeline works, "
        "not what GPT-2 XL does. The paper's layers and texts are not stated.",
        "Groups of texts repeat the measurement; bands are 95% intervals over groups (b) or texts "
        "(c). Special tokens and padding are left out.",
        "The smallest action of 1000 one-dimensional projections is also that of a direction of "
        "small variance. So smoothness is the mean squared step over the variance, held against "
        "the smallest of the same tokens in random order (c).",
    ),
)
