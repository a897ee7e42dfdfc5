"""Controls on the language models: weights in random order, and the neurons' basis rotated."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

import polycode_plugins as pc
from benchmarks.atlas.measurements import MAIN, interval, is_finished, kept
from benchmarks.atlas.networks import NEURONS, Network
from polycode_plugins.experiments.base import parts
from polycode_plugins.explainers.units.random_weights import random_weights

SHUFFLED, SHUFFLED_WINDOWS = "shuffled", 400
GROUPS = 5  # of documents, each measured on its own
DIRECTIONS = 256  # of a random rotation


# -- weights in random order -----------------------------------------------------------------------


def measure_shuffled(network: Network, cached: Path, out: Path, size: int | None) -> None:
    """The residual stream with the entries of every parameter in random order."""
    folder = out / network.name / SHUFFLED
    if is_finished(folder):
        return
    adapter = network.load(cached / network.name)
    sites = network.main.sites(network.blocks)
    asked, data = [pc.metrics.Spectrum()], network.data(cached)
    with random_weights(adapter.model, seed=0):
        kept(folder, adapter, data, asked, sites, size, network.options)


def against_shuffled(network: Network, out: Path) -> pd.DataFrame:
    """Exponent and effective rank of every block, as trained and shuffled, with intervals."""
    folders = {"trained": out / network.name / MAIN, "shuffled": out / network.name / SHUFFLED}
    runs = {name: pc.Analysis.load(folder, state=False) for name, folder in folders.items()}
    rows = []
    for block, site in enumerate(network.main.sites(network.blocks)):
        row: dict[str, Any] = {"network": network.name, "block": block}
        for name, analysis in runs.items():
            found = analysis[site]["spectrum"]
            rank = found.dimensions.effective_rank
            row[f"samples_{name}"] = found.n_samples
            row |= interval(f"exponent_{name}", found.exponent, found.interval)
            row |= interval(f"effective_rank_{name}", rank.value, rank)
        rows.append(row)
    return pd.DataFrame(rows)


# -- the basis of neurons --------------------------------------------------------------------------


class Moments:
    """Power sums of columns, for kurtosis and sparseness."""

    def __init__(self) -> None:
        self.n = 0
        self._sums: Tensor | None = None

    def update(self, values: Tensor) -> None:
        """Add samples [n, columns]."""
        x = values.double()
        powers = torch.stack([x.abs(), x, x**2, x**3, x**4]).sum(dim=1)
        self._sums = powers if self._sums is None else self._sums + powers
        self.n += len(x)

    @property
    def kurtosis(self) -> NDArray[np.float64]:
        """[columns]: fourth central moment over the squared variance; 3 for Gaussian columns."""
        _, m1, m2, m3, m4 = self._means()
        variance = m2 - m1**2
        fourth = m4 - 4 * m1 * m3 + 6 * m1**2 * m2 - 3 * m1**4
        return fourth / np.maximum(variance, 1e-300) ** 2

    @property
    def sparseness(self) -> NDArray[np.float64]:
        """[columns]: 1 - (mean |x|)^2 / mean x^2, in [0, 1] (Treves & Rolls 1991); 1 - 2 / pi for
        Gaussian columns of mean 0."""
        size, _, square, *_ = self._means()
        return 1 - size**2 / np.maximum(square, 1e-300)

    def _means(self) -> NDArray[np.float64]:
        assert self._sums is not None
        return np.asarray((self._sums / self.n).cpu().numpy())


def rotation(width: int, count: int, seed: int) -> Tensor:
    """float64 [width, count]: columns of a random orthogonal matrix."""
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randn(width, min(count, width), generator=generator, dtype=torch.float64)
    return torch.linalg.qr(drawn).Q


def basis_row(stream: Iterator[Tensor], seed: int) -> dict[str, float]:
    """Median kurtosis and sparseness of the columns of samples, and of rotated ones."""
    neurons, rotated, turn = Moments(), Moments(), None
    for values in stream:
        x = values.double()
        turn = rotation(x.shape[1], DIRECTIONS, seed) if turn is None else turn
        neurons.update(x)
        rotated.update(x @ turn)
    return {
        "samples": neurons.n,
        "kurtosis": float(np.median(neurons.kurtosis)),
        "kurtosis_rotated": float(np.median(rotated.kurtosis)),
        "sparseness": float(np.median(neurons.sparseness)),
        "sparseness_rotated": float(np.median(rotated.sparseness)),
    }


def measure_bases(network: Network, cached: Path, out: Path, windows: int) -> pd.DataFrame:
    """Of the neurons of every block, by group of documents that share none."""
    neurons = next(s for s in network.streams if s.kind == NEURONS)
    sites = neurons.sites(network.blocks)
    loaded: list[Any] = []
    folder = out / network.name
    folder.mkdir(parents=True, exist_ok=True)

    def group(key: str) -> pd.DataFrame:
        if not loaded:
            loaded.append(network.load(cached / network.name))
        texts = _texts(network.data(cached), int(key))
        options = pc.DataOptions(limit=windows)
        kept_: dict[str, list[Tensor]] = {site: [] for site in sites}
        for batch in loaded[0].stream(texts, sites, options=options):
            for site, activations in batch.items():
                kept_[site].append(activations.matrix().clone())
        rows = [
            {"network": network.name, "block": block, **basis_row(iter(kept_.pop(site)), block)}
            for block, site in enumerate(sites)
        ]
        return pd.DataFrame(rows)

    made = parts(folder, "bases", [str(key) for key in range(GROUPS)], group)
    return made.rename(columns={"part": "group"})


def _texts(path: str, group: int, most: int = 4000) -> list[str]:
    """Every fifth text of the file's beginning."""
    with open(path, encoding="utf-8") as lines:
        chosen = itertools.islice(lines, group, most, GROUPS)
        return [json.loads(line)["text"] for line in chosen]
