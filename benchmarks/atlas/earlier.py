"""Numbers of an earlier measurement, at 110 windows, and whether this one agrees with them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

import polycode_plugins as pc
from benchmarks.atlas.measurements import interval, kept, number
from benchmarks.atlas.networks import Network

WINDOWS = 110
FOLDER = "earlier"
#: Of SmolLM2's residual stream at 5,977 tokens of a similar collection: block, exponent with its
#: interval, participation ratio, share of the first direction, action / total variance.
EARLIER = (
    (0, 1.23, 1.06, 1.34, 40.5, 0.13, 0.274),
    (2, 1.12, 1.02, 1.19, 1.54, 0.81, 0.251),
    (5, 1.02, 0.94, 1.09, 1.92, 0.72, 0.249),
    (10, 1.07, 0.91, 1.18, 64.9, 0.09, 0.230),
    (14, 1.12, 0.99, 1.26, 3.42, 0.54, 0.168),
    (20, 0.88, 0.84, 0.93, 7.75, 0.35, 0.176),
    (26, 0.78, 0.75, 0.80, 47.2, 0.12, 0.181),
    (29, 1.11, 1.04, 1.18, 18.7, 0.18, 0.151),
)


def measure(network: Network, cached: Path, out: Path) -> pd.DataFrame:
    """The same blocks at the same number of windows, beside the earlier numbers."""
    sites = network.main.sites(network.blocks)
    chosen = [sites[block] for block, *_ in EARLIER]
    folder = out / network.name / FOLDER
    adapter = None if (folder / "run.json").is_file() else network.load(cached / network.name)
    asked = [pc.metrics.Spectrum(), pc.metrics.Action()]
    found = kept(folder, adapter, network.data(cached), asked, chosen, WINDOWS, network.options)
    return beside({block: found[sites[block]] for block, *_ in EARLIER})


def beside(results: dict[int, Any]) -> pd.DataFrame:
    """One row for each block, and whether the two intervals of the exponent have values in common.

    Two samples of one population almost always do; different texts are different populations.
    """
    rows = []
    for block, exponent, low, high, ratio, share, action in EARLIER:
        spectrum, walk = results[block]["spectrum"], results[block]["action"]
        now = interval("exponent", spectrum.exponent, spectrum.interval)
        rows.append(
            {
                "block": block,
                "samples": spectrum.n_samples,
                "earlier": exponent,
                "earlier_low": low,
                "earlier_high": high,
                **now,
                "agrees": bool(now["exponent_low"] <= high and low <= now["exponent_high"]),
                "participation_earlier": ratio,
                "participation": spectrum.participation_ratio,
                "share_earlier": share,
                "share": spectrum.first_direction.share,
                "action_earlier": action,
                "action": number(walk.normalised),
            }
        )
    return pd.DataFrame(rows)
