"""An experiment with a claim that holds or does not."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from polycode_plugins import experiments
from polycode_plugins.experiments import claims
from polycode_plugins.experiments.base import Experiment, parts

SEEN: list[str] = []


@dataclass(frozen=True)
class Settings:
    size: int = 20
    shift: float = 1.0


def run(settings, seed, folder):
    def make(key):
        SEEN.append(key)
        if key == "b" and (folder / "stop").exists():
            raise KeyboardInterrupt
        drawn = np.random.default_rng((seed, ord(key))).normal(settings.shift, 1, settings.size)
        return pd.DataFrame({"x": drawn})

    return {"draws": parts(folder, "draws", ["a", "b"], make)}


def figure(numbers):
    from polycode_plugins.experiments import drawing

    made, axes = drawing.panels(1, width=drawing.ONE)
    axes[0][0].plot(numbers["draws"]["x"])
    return made


def experiment(low: float = 0.0) -> Experiment:
    claim = claims.Claim(
        "The mean is <above> zero", "no paper", "mean", claims.at_least(low),
        lambda numbers: claims.mean_effect(numbers["draws"]["x"]),
    )  # fmt: skip
    return Experiment(
        "made-up", "A made-up figure", "nowhere", {s: Settings() for s in experiments.SCALES},
        run, figure, (claim,), ("A remark.",),
    )  # fmt: skip
