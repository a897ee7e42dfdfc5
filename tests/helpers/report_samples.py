"""What the report is tested on: planted power laws, names that attack, a third party's metric."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

import polycode_plugins as pc
from polycode_plugins.metrics.base import Accumulator, Metric, Result

BROKEN, FEW = 4, 7  # sites of the sample analysis with a broken law, and with too few samples

HOSTILE = [
    "</script><img src=x onerror=alert(1)>",
    "<b>bold</b>",
    "<!-- <script>",
    "%{x} <br> $\\frac$ &lt;b&gt; &amp;",
    "line\u2028separators\u2029",
    "<a href='javascript:alert(1)'>link</a>",
    '" onmouseover="alert(1)',
    "${alert(1)} `x` {{ 1 + 1 }} {% raw %}",
    "undecodable\udcff",
    "\u202egnirts",
    "_hidden",
    "long." + "a" * 120,
]


@dataclass(frozen=True, eq=False)
class SpreadResult(Result):
    """A third party's result, with everything that the generic section can show."""

    reading: ClassVar[str] = "The spread says how <far> activations reach."
    units: ClassVar[dict[str, str]] = {"spread": "<units>²"}

    spread: float
    share: float | None
    note: str
    flag: bool
    interval: tuple[float, float] | None = None
    warnings: tuple[str, ...] = ()

    def plot(self, ax: Any = None) -> Any:
        if self.flag:
            raise RuntimeError("no plot for </p><script>alert(1)</script>")
        ax.plot([0, 1], [0, self.spread])
        return ax


@dataclass(frozen=True)
class Spread(Metric):
    """Total variance, under whatever label."""

    name: ClassVar[str] = "spread"
    result: ClassVar[type[Result]] = SpreadResult

    scale: float = 1.0

    def accumulators(self) -> Mapping[str, Accumulator]:
        return {"covariance": pc.metrics.Covariance()}

    def compute(self, accumulators: Mapping[str, Accumulator], site: pc.Site) -> SpreadResult:
        spread = self.scale * float(accumulators["covariance"].eigenvalues().sum())
        warnings = ("the scale is & stays arbitrary",) if site.depth == 1 else ()
        return SpreadResult(
            spread,
            None if site.depth == 2 else spread / 3,
            site.name,
            site.depth == 3,
            (0.9 * spread, 1.1 * spread),
            warnings,
        )


def planted(
    exponent: float, *, samples: int = 1200, width: int = 96, seed: int = 0, breaks: bool = False
) -> np.ndarray:
    """Gaussian samples whose covariance has eigenvalues rank^-exponent."""
    ranks = np.arange(1, width + 1)
    eigenvalues = ranks**-exponent
    if breaks:
        eigenvalues[30:] *= (ranks[30:] / 31) ** -3.0
    noise = np.random.default_rng(seed).standard_normal((samples, width))
    return noise * np.sqrt(eigenvalues)
