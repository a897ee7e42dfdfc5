"""What the `action` metric finds at one site, as numbers and as a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from polycode_plugins.metrics.base import Result

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from polycode_plugins.metrics.chapter import View

Floats = NDArray[np.float64]


ROUGH = 0.1  # from there on the worst site is named beside what holds at half of them


@dataclass(frozen=True, eq=False, kw_only=True)
class ActionResult(Result):
    """Action of random projections at one site. Actions are in units of activation squared.

    For kind "path" they are those of one path, 1/2 sum_t ||(a_{t+1} - a_t) r||^2, averaged over the
    paths; for "static" 1/2 mean_t ||(a_t - mean) r||^2.

    Attributes:
        expected: exact mean over projections, (k / 2 width) tr S.
        sd: exact standard deviation from one projection to the next, sqrt(k tr(S^2) / 2) / width.
        monte_carlo: mean of the `projections` actions drawn; tends to `expected`.
        monte_carlo_sd: their standard deviation; tends to `sd`.
        monte_carlo_se: standard error of `monte_carlo`, monte_carlo_sd / sqrt(projections).
        normalised: expected / total_variance, to compare layers of different scale (and one width);
            None where the layer is constant, which has action 0. For "static" it is k / 2 width
            (1 - 1/n_samples) for every code.
        von_neumann_ratio: mean squared step over total variance, mean ||d_t||^2 / total_variance:
            near 0 for a smooth path, 2 for points without order, towards 4 for a path that
            alternates. Free of scale, width and number of steps; None for "static" and constants.
        per_step: expected action of one step; None for "static".
        interval: 95% interval (low, high) of `expected` over paths drawn like these, Student's t;
            None unless there are several paths along positions.
        total_variance: sum over features of the variance of the points (divided by n - 1).
        n_samples: points, on paths or not.
        n_steps, n_paths: increments, and paths of at least two points; None for "static".
        width: features per point.
        dimensions: k, of a projection.
        kind: "path" or "static".
        path: "position" or "rows", the direction of the paths; None for "static".
        positions: whether positions were "samples" or "features".
        actions: float64 [projections], the actions drawn.
        trajectories: float64 [8, time, k], the beginning (100 points) of the first path in the
            first 8 projections of `trajectories`, in units of activation; None for "static".
    """

    reading: ClassVar[str] = (
        "The action is how far the code moves from one input to the next: a von Neumann ratio well "
        "below 2 means a smooth code, in which neighbouring inputs have neighbouring codes, and "
        "2 a code in which the order of the inputs cannot be seen."
    )
    documentation: ClassVar[str] = "metrics.html#action"
    headline: ClassVar[tuple[str, ...]] = (
        "von_neumann_ratio",
        "normalised",
        "expected",
        "monte_carlo",
        "n_steps",
        "path",
    )
    mapped: ClassVar[tuple[str, ...]] = ("von_neumann_ratio",)
    related: ClassVar[tuple[str, ...]] = ("expected", "normalised")
    names: ClassVar[Mapping[str, str]] = {
        "normalised": "action / total variance",
        "von_neumann_ratio": "von Neumann ratio",
        "monte_carlo": "Monte Carlo",
        "monte_carlo_sd": "Monte Carlo standard deviation",
        "monte_carlo_se": "Monte Carlo standard error",
        "sd": "standard deviation",
        "n_samples": "samples",
        "n_steps": "steps",
        "n_paths": "paths",
    }
    picture: ClassVar[str] = (
        "The beginning of a path in the random projection, of eight, in which it moves least; its "
        "colour is time. A smooth code draws a line that can be followed, a code without order a "
        "tangle."
    )
    units: ClassVar[Mapping[str, str]] = {
        "von_neumann_ratio": "no unit",
        "normalised": "no unit",
    } | dict.fromkeys(
        (
            "expected",
            "interval_low",
            "interval_high",
            "sd",
            "monte_carlo",
            "monte_carlo_sd",
            "monte_carlo_se",
            "per_step",
            "total_variance",
        ),
        "activation²",
    )

    expected: float
    sd: float
    monte_carlo: float
    monte_carlo_sd: float
    monte_carlo_se: float
    normalised: float | None
    von_neumann_ratio: float | None
    per_step: float | None
    interval: tuple[float, float] | None
    total_variance: float
    n_samples: int
    n_steps: int | None
    n_paths: int | None
    width: int
    dimensions: int
    kind: str
    path: str | None
    positions: str
    actions: Floats
    trajectories: Floats | None = None

    @property
    def warnings(self) -> tuple[str, ...]:
        """What keeps the numbers from meaning what they seem to."""
        if not self.total_variance:
            return (
                "every point is the same: the action is 0 and there is no variance to divide it by",
            )
        ratio, n = self.von_neumann_ratio, self.n_steps
        # Points in random order have a ratio of 2 with a deviation of at most 2 / sqrt(n).
        if self.path == "rows" and ratio is not None and n and ratio > 2 - 3.29 / n**0.5:
            return (
                "the order of the rows cannot be seen in the code (its von Neumann ratio is that "
                f"of {n} steps without order, 2): if the data have no order, rows are no path; "
                "give inputs that move, such as the image source moving-dot",
            )
        return ()

    def to_dict(self) -> dict[str, Any]:
        """All fields as JSON values, and the warnings."""
        return {**super().to_dict(), "warnings": list(self.warnings)}

    @property
    def variance(self) -> float:
        """Exact variance over projections, sd^2; in units of activation to the fourth."""
        return self.sd**2

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> ActionResult:
        """The result whose `to_dict` gave `fields`."""
        values = dict(fields)
        values.pop("warnings", None)  # what the other fields say
        return super().from_dict(values)

    def scalars(self) -> dict[str, float | int | str | bool | None]:
        """What fits into a table: all numbers, and the interval, if any, in two columns."""
        values = super().scalars()
        first: dict[str, float | int | str | bool | None] = {"expected": values.pop("expected")}
        for name in ("interval", "trajectories"):  # in the dictionary where they are None
            values.pop(name, None)
        low, high = self.interval if self.interval is not None else (None, None)
        first |= {"interval_low": low, "interval_high": high}
        return {**first, **values, "projections": self.actions.size}

    @classmethod
    def findings(cls, view: View) -> Sequence[str]:
        """Where the code is smooth, and how well the action is known."""
        from polycode_plugins.metrics.chapter import generic_findings

        said = list(generic_findings(view))
        known = [
            max(high - r.expected, r.expected - low) / r.expected
            for r in view.results
            if r.interval is not None and r.expected > 0
            for low, high in [r.interval]
        ]
        if said and len(known) == len(view.results):
            worst = max(known)
            if len(known) == 1 or worst <= ROUGH:
                each = "at every site" if len(known) > 1 else "there"
                said[0] += f" The action is known to within ±{worst:.1%} {each} (95%)."
            else:
                where = view.sites[known.index(worst)].name
                said[0] += (
                    f" The action is known to within ±{np.median(known):.1%} at half of the sites, "
                    f"and to no better than ±{worst:.0%} at {where} (95%)."
                )
        return said

    def plot(self, ax: Axes | None = None) -> Axes:
        """The trajectory of smallest action among those kept, coloured by time.

        Without trajectories, the actions drawn as a histogram with their exact mean and deviation.
        """
        if ax is None:
            import matplotlib.pyplot as plt

            _, ax = plt.subplots(layout="constrained")
        exact = f"{self.expected:,.4g} ± {self.sd:,.3g} activation²"
        if self.trajectories is None:
            ax.hist(self.actions, bins="sturges", color="#4c72b0", alpha=0.6)
            low, high = self.expected - self.sd, self.expected + self.sd
            ax.axvspan(low, high, color="#c44e52", alpha=0.15, lw=0)
            ax.axvline(self.expected, color="#c44e52", label=f"exact {exact}")
            ax.set_xlabel(f"{self.kind} action of a projection [activation²]")
            ax.set_ylabel(f"projections (of {self.actions.size})")
            ax.legend(frameon=False)
            return ax
        from polycode_plugins.metrics.action.trajectory_plot import draw_one

        energies = np.square(np.diff(self.trajectories, axis=1)).sum(axis=(1, 2))
        draw_one(ax, self.trajectories[energies.argmin()])
        ax.set_title(f"mean action {exact}", fontsize="medium")
        return ax
