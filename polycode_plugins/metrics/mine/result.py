"""What the `mine` metric says about a pair of sites, or of arrays."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Self

from polycode_plugins.information import NAMES, MutualInformation
from polycode_plugins.information.samples import Floats
from polycode_plugins.metrics.base import Result

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from polycode_plugins.metrics.chapter import View
    from polycode_plugins.pages.pages import Part


@dataclass(frozen=True, eq=False, kw_only=True)
class MINEResult(Result):
    """Mutual information of x (the partner) and y (the site); natural logarithm, never below 0.

    Attributes:
        nats: the recommended value, that of the estimator `recommended`. For sites it concerns the
            components named by `dims`, so it is a lower bound of what the whole layers share (data
            processing inequality). Infinite, with a warning, for a site beside itself with no noise
            between them.
        interval: 95% (low, high) [nats] for the sampling error of that estimator, were the samples
            independent, wider where it is the largest of several or its counts were corrected; its
            bias is not in it.
        recommended: which estimator gave the value.
        estimates: {estimator: nats}, none below 0. errors: {estimator: standard error [nats]}.
        curves: {estimator: float64 [checks, 3]}: training step, training bound, held-out bound.
        warnings: sentences on what makes the number doubtful; empty is good.
        channel: the noise on y, in words; None for arrays and labels taken as they are.
        ceiling: the most [nats] that this noise lets through, whatever x is, or the entropy of the
            labels; None where there is no such limit.
        partner: name of x: a site, "input" or "label".
        n_samples: pairs that were used. n_rows: rows of the data that they come from.
        dims: coordinates of x and y that were used.
        variance_kept: share of each one's variance in them; None for labels.
    """

    title: ClassVar[str] = "Mutual information"
    names: ClassVar[Mapping[str, str]] = {
        "nats": "mutual information",
        "spread": "spread of the estimators",
        "n_samples": "samples",
        "n_rows": "rows",
        "dims_partner": "components of the partner",
        "dims": "components of the site",
    }
    documentation: ClassVar[str] = "metrics.html#mutual-information"
    picture: ClassVar[str] = (
        "What each estimator says: critics by their bounds on held-out data while they train, of "
        "which the best counts, the others as dots. Where they agree with the red line, the "
        "recommended value, and its interval, the number can be trusted; a bound that falls "
        "shows a critic that had learnt its data by heart."
    )
    units: ClassVar[Mapping[str, str]] = {
        "nats": "nats",
        "bits": "bits",
        "interval_low": "nats",
        "interval_high": "nats",
        "spread": "nats",
        "ceiling": "nats",
    }
    headline: ClassVar[tuple[str, ...]] = (
        "nats",
        "interval_low",
        "interval_high",
        "ceiling",
        "recommended",
        "n_samples",
    )

    nats: float
    interval: tuple[float, float]
    recommended: str
    estimates: dict[str, float]
    errors: dict[str, float]
    warnings: tuple[str, ...]
    channel: str | None
    ceiling: float | None
    partner: str
    n_samples: int
    n_rows: int
    dims: tuple[int, int]
    variance_kept: tuple[float | None, float | None] = (None, None)
    curves: dict[str, Floats] = field(default_factory=dict)

    @property
    def bits(self) -> float:
        """`nats` to the base 2."""
        return self.nats / math.log(2)

    @property
    def spread(self) -> float:
        """Largest less smallest of `estimates` [nats]; 0 without any."""
        values = self.estimates.values()
        return max(values) - min(values) if values else 0.0

    @property
    def reading(self) -> str:  # type: ignore[override]
        """How to read the result: what it is the information of, and at which noise."""
        at = f", at {self.channel}" if self.channel is not None else ""
        limit = (
            f" At most {self.ceiling:.2f} nats could be seen." if self.ceiling is not None else ""
        )
        lower = (
            " It is a lower bound of what the whole layers share, since only the leading principal "
            f"components were compared ({self.dims[0]} of x, {self.dims[1]} of y)."
            if any(share is not None for share in self.variance_kept)
            else ""
        )
        return (
            f"How much a site (y) tells about {self.partner!r} (x), in nats{at}: 0 means that they "
            f"are independent.{limit}{lower}"
        )

    @classmethod
    def of(
        cls,
        found: MutualInformation,
        *,
        partner: str,
        n_rows: int,
        channel: str | None,
        ceiling: float | None,
        dims: tuple[int, int],
        variance_kept: tuple[float | None, float | None] = (None, None),
        warnings: tuple[str, ...] = (),
    ) -> Self:
        """The result for what the panel found."""
        return cls(
            nats=found.nats,
            interval=found.interval,
            recommended=found.recommended,
            estimates=found.estimates,
            errors=found.errors,
            warnings=(*found.warnings, *warnings),
            channel=channel,
            ceiling=ceiling,
            partner=partner,
            n_samples=found.n_samples,
            n_rows=n_rows,
            dims=dims,
            variance_kept=variance_kept,
            curves=found.curves,
        )

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Self:
        """The result whose `to_dict` gave `fields`."""
        if fields["nats"] is None:  # JSON has no infinity
            fields = {**fields, "nats": math.inf, "interval": (math.inf, math.inf)}
        return super().from_dict(fields)

    def scalars(self) -> dict[str, float | int | str | bool | None]:
        """What fits into a table."""
        return {
            "nats": self.nats,
            "bits": self.bits,
            "interval_low": self.interval[0],
            "interval_high": self.interval[1],
            "spread": self.spread,
            "ceiling": self.ceiling,
            "recommended": self.recommended,
            "partner": self.partner,
            "channel": self.channel,
            "n_samples": self.n_samples,
            "n_rows": self.n_rows,
            "dims_partner": self.dims[0],
            "dims": self.dims[1],
        }

    @classmethod
    def chapter(cls, view: View) -> Sequence[Part]:
        """What every metric has, with the spread of the estimators and what each of them says."""
        from polycode_plugins.metrics.mine.chapter import mine_parts

        return mine_parts(view)

    def plot(self, ax: Axes | None = None) -> Axes:
        """Held-out bounds against training steps, with the recommended value and its interval."""
        if ax is None:
            import matplotlib.pyplot as plt

            _, ax = plt.subplots(layout="constrained")
        longest = max((float(c[-1, 0]) for c in self.curves.values()), default=0.0)
        for name, curve in self.curves.items():
            ax.plot(curve[:, 0], curve[:, 2], lw=1, label=NAMES[name])
        untrained = [name for name in self.estimates if name not in self.curves]
        for place, name in enumerate(untrained):
            at = longest if self.curves else place
            ax.plot([at], [self.estimates[name]], "o", ms=4, label=NAMES[name])
        if math.isfinite(self.nats):
            ax.axhspan(*self.interval, color="#c44e52", alpha=0.2, lw=0)
            ax.axhline(self.nats, color="#c44e52", lw=1, label=f"recommended {self.nats:.2f}")
            ax.legend(frameon=False, fontsize=7)
        if self.curves:
            ax.set_xlabel("training step")
        else:
            ax.set_xticks(range(len(untrained)), [NAMES[name] for name in untrained])
            ax.set_xlim(-0.5, len(untrained) - 0.5)
        ax.set_ylabel("mutual information (nats)")
        return ax
