"""An experiment: numbers, a figure of them, and a claim that they bear out or do not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polycode_plugins as pc
from polycode_example.adapter import EchoAdapter
from polycode_example.metric import Sparseness
from polycode_example.network import EchoNetwork
from polycode_plugins.experiments import Claim, Effect, Experiment, at_most, mean_effect


@dataclass(frozen=True)
class Settings:
    """Attributes: how many networks, and how many units each has."""

    networks: int
    width: int


def run(settings: Settings, seed: int, folder: Path) -> dict[str, Any]:
    """A table with a row for each network."""
    import pandas as pd

    rows = []
    for number in range(settings.networks):
        network = EchoNetwork(settings.width, seed=seed + number)
        found = pc.analyze(EchoAdapter(network), metrics=[Sparseness()], progress=False)
        rows.append({site: found[site, "sparseness"].sparseness for site in found})
    return {"networks": pd.DataFrame(rows)}


def figure(numbers: Mapping[str, Any]) -> Any:
    """A line for each network, from the drive to the state."""
    from matplotlib.figure import Figure

    drawn = Figure(figsize=(3.5, 2.5), layout="constrained")
    axes = drawn.subplots()
    axes.plot(numbers["networks"][["drive", "state"]].T, color="0.4", marker="o")
    axes.set_ylabel("sparseness")
    return drawn


def difference(numbers: Mapping[str, Any]) -> Effect:
    """Sparseness of the state less that of the drive, with its interval over networks."""
    table = numbers["networks"]
    return mean_effect(table["state"] - table["drive"])


EXPERIMENT = Experiment(
    name="echo-sparseness",
    title="Sparseness of what enters an echo network and of what it holds",
    source="polycode-example",
    settings={
        "smoke": Settings(networks=3, width=8),
        "laptop": Settings(networks=10, width=24),
        "paper": Settings(networks=100, width=24),
    },
    run=run,
    figure=figure,
    claims=[
        Claim(
            text="A state that saturates is less sparse than what drives it",
            source="polycode-example",
            statistic="sparseness of the state less that of the drive, mean over networks",
            criterion=at_most(0),
            measure=difference,
        )
    ],
)
