"""The `mine` metric: mutual information between sites of a network, or a site and the labels.

Marshall & Kirchner 2024 measure with MINE (Belghazi et al. 2018) how much a layer of a network with
dropout still tells about its input. Here MINE is one of a panel of estimators, see
`polycode_plugins.information`, and the noise without which the information is infinite is stated.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, cast

import numpy as np
import torch
from torch import Tensor, nn

from polycode_plugins.activations import Site
from polycode_plugins.adapters.undisturbed import modules_of
from polycode_plugins.errors import DataError, SiteError, near
from polycode_plugins.information import Channel, Quantisation, channels, estimate
from polycode_plugins.information.counts import entropy
from polycode_plugins.information.panel import checked_names
from polycode_plugins.information.samples import Floats
from polycode_plugins.metrics.base import Accumulator
from polycode_plugins.metrics.mine.result import MINEResult
from polycode_plugins.metrics.pairs import PairMetric, Partner
from polycode_plugins.metrics.reservoir import Integers, Reservoir, aligned

#: The partners that are no site: the class of each row, and what the model is called with.
LABEL, INPUT = "label", "input"
#: Quantised components are cut at so many standard deviations.
_RANGE = 3.0


@dataclass(frozen=True)
class MINE(PairMetric):
    """Mutual information in nats, of two arrays or of the sites of a network.

    Of sites: x is the partner, y the site, both seen through the leading principal components of
    samples that both kept; y's components, of unit variance, get the channel's noise.

    Attributes:
        partner: name of the site that plays x, out of those asked for; None for the shallowest;
            "label" for the class of each row; "input" for the tensor of floats that the model is
            called with.
        channel: noise on y: "gaussian", "quantisation", "dropout" (the network's own: it must be
            in train mode and draw), None (refused between sites of a network). "auto" is
            "gaussian" between sites, and none for labels and for arrays.
        noise: standard deviation of the Gaussian noise, relative to that of each component.
        bits: of the quantisation, on a range of three standard deviations to either side.
        dims: leading components of y; each lets at most ln(1 + 1/noise^2) / 2 nats through, and
            their sum should stay well below ln(samples), the most that samples can show.
        partner_dims: leading components of x; of y, where labels are the partner.
        samples: most pairs kept in the pass.
        estimators: which to run, see `polycode_plugins.information.estimate`; None for the panel.
        mode: "as_published" is the MINE of Marshall & Kirchner 2024, its defects included.
        seed: of everything drawn here; the random state of the caller is left alone.
    """

    name: ClassVar[str] = "mine"
    result: ClassVar[type[MINEResult]] = MINEResult

    partner: str | None = None
    channel: Literal["auto", "gaussian", "quantisation", "dropout"] | None = "auto"
    noise: float = 0.5
    bits: int = 3
    dims: int = 4
    partner_dims: int = 8
    samples: int = 4096
    estimators: tuple[str, ...] | None = None
    mode: Literal["corrected", "as_published"] = "corrected"
    seed: int = 0

    def __post_init__(self) -> None:
        if self.channel is not None and not isinstance(self.channel, str):
            raise DataError(
                f"channel is one of 'auto', 'gaussian', 'quantisation', 'dropout', None, not "
                f"{self.channel!r}; pass a channel of polycode_plugins.information to "
                "measure(x, y, channel=...) instead"
            )
        super().__post_init__()
        if not self.noise > 0 or min(self.bits, self.dims, self.partner_dims, self.samples) < 1:
            raise DataError("noise, bits, dims, partner_dims and samples must be above 0")
        checked_names(self.estimators)  # now, and not at the end of the pass

    # -- arrays ----------------------------------------------------------------------------------

    def measure(  # type: ignore[override]
        self,
        x: Any,
        y: Any = None,
        *,
        channel: Channel | None = None,
        groups: Any = None,
        device: str | torch.device = "cpu",
        progress: bool = False,
    ) -> MINEResult:
        """Mutual information of paired samples `x` and `y`, [samples] or [samples, features].

        The arrays are taken as they are: floats are coordinates, integers are labels, no component
        is left out, and noise comes on y only from `channel` here, in the units of y, or from this
        metric's own "gaussian" or "quantisation", relative to the spread of each column of y.

        Args:
            x: one side, torch or NumPy.
            y: the other side.
            channel: noise put on y first, see `polycode_plugins.information.channels`.
            groups: [samples] of integers; samples of one group depend on each other.
            device: where critics are trained.
            progress: whether to show progress on standard error.

        Raises:
            DataError: for NaN, unequal lengths, fewer than 32 samples, or infinite information.
        """
        if y is None:
            raise DataError("mutual information needs two arrays: MINE(...).measure(x, y)")
        ceiling = None
        if channel is None and self.channel in ("gaussian", "quantisation"):
            values = torch.as_tensor(y)
            if not values.is_floating_point():
                raise DataError(f"y holds labels, to which {self.channel!r} noise cannot be added")
            values = values.double().reshape(len(values), -1)
            y = (values - values.mean(0)) / values.std(0, correction=0).clamp_min(1e-300)
            channel, ceiling = self._noise(y.shape[1])
        found = estimate(
            x,
            y,
            channel=channel,
            estimators=self._estimators(),
            groups=groups,
            seed=self.seed,
            device=device,
            progress=progress,
        )
        widths = [math.prod(shape[1:]) for shape in found.shapes]
        return MINEResult.of(
            found,
            partner="x",
            n_rows=found.n_samples if groups is None else len(np.unique(np.asarray(groups))),
            channel=self._described(channel),
            ceiling=ceiling,
            dims=(widths[0], widths[1]),
        )

    # -- sites -----------------------------------------------------------------------------------

    def admit(self, model: Any, *, train_mode: bool) -> None:
        """Refuse a question without an answer before any data is read; see `Metric.admit`."""
        if self.channel is None and self.partner != LABEL:
            raise DataError(_infinite("the sites of this network"))
        if self.channel == "dropout" and not (train_mode and _draws(model)):
            raise DataError(
                "channel='dropout' takes the network's own dropout for the noise, and this run "
                "has none: it needs modules with dropout above 0, in train mode (model.train()), "
                "and train_mode=True; or state another channel, such as 'gaussian'"
            )

    def accumulators(self) -> Mapping[str, Accumulator]:
        """One reservoir, which keeps the same samples at every site."""
        return {"reservoir": Reservoir(self.samples, self.seed, self.partner == INPUT)}

    def partners_of(self, site: Site, sites: Sequence[Site]) -> Sequence[Site]:
        """The site named, or the shallowest of all; none for labels and inputs."""
        if self.partner in (LABEL, INPUT):
            return ()
        if self.partner is None:
            return (min(sites, key=lambda s: s.depth),)
        found = next((s for s in sites if s.name == self.partner), None)
        if found is None:
            names = [s.name for s in sites]
            raise SiteError(
                f"{self.label} compares with site {self.partner!r}, which is not among the sites "
                f"asked for{near(self.partner, names)}; add it to sites"
            )
        return (found,)

    def compute(self, accumulators: Mapping[str, Accumulator], site: Site) -> MINEResult:
        """Information between the site and the input, or the labels.

        Of labels y's components number `partner_dims`.

        Raises:
            DataError: where inputs or labels are missing, or too few samples came.
        """
        if self.partner not in (LABEL, INPUT):
            return self.compute_pairs(accumulators, site, [Partner(site, accumulators)])
        chosen, samples = cast(Reservoir, accumulators["reservoir"]).samples()
        values, labels, inputs = samples.values, samples.labels, samples.inputs
        if self.partner == INPUT:
            if not inputs.shape[1]:
                raise DataError(
                    "the inputs are unknown: pc.analyze knows them where the model is called with "
                    "one tensor of floats; elsewhere name a site as partner (the embedding)"
                )
            return self._between(inputs, values, chosen.row, INPUT, f"site {site.name!r}")
        if bool((labels < 0).any()):
            raise DataError(
                "the data has no label for every row; give (inputs, labels) pairs or a folder of "
                "images with one sub-folder for each class, or name a site as partner"
            )
        y, kept = leading_components(values, self.partner_dims)
        channel = self._noise(y.shape[1])[0] if self.channel not in (None, "auto") else None
        classes = labels.numpy()
        found = estimate(
            classes,
            y,
            channel=channel,
            estimators=self._estimators(),
            groups=chosen.row,
            seed=self.seed,
        )
        return MINEResult.of(
            found,
            partner=LABEL,
            n_rows=len(np.unique(chosen.row)),
            channel=self._described(channel),
            ceiling=entropy(np.unique(classes, return_inverse=True)[1]),
            dims=(1, y.shape[1]),
            variance_kept=(None, kept),
        )

    def compute_pairs(
        self, accumulators: Mapping[str, Accumulator], site: Site, partners: Sequence[Partner]
    ) -> MINEResult:
        """Information between the partner (x) and the site (y, through the channel).

        Raises:
            DataError: without a noise channel, for a constant site, or for too few samples.
        """
        partner = partners[0].site
        own, other = (
            cast(Reservoir, a["reservoir"]) for a in (accumulators, partners[0].accumulators)
        )
        tokens = "position" in site.axes and "position" in partner.axes
        x, y, rows = aligned(other, own, same_places=tokens)
        if self.channel == "dropout" and site.name == partner.name:
            return _itself(partner.name, len(rows), len(np.unique(rows)))
        return self._between(x, y, rows, partner.name, f"site {site.name!r}")

    def _between(
        self, x: Tensor, y: Tensor, rows: Integers, partner: str, where: str
    ) -> MINEResult:
        """Information between samples x of the partner and y of a site, through the channel."""
        if self.channel is None:
            raise DataError(_infinite(where))
        n_rows = len(np.unique(rows))
        x_scores, x_kept = leading_components(x, self.partner_dims)
        y_scores, y_kept = leading_components(y, self.dims)
        channel, ceiling = self._noise(y_scores.shape[1])
        found = estimate(
            x_scores,
            y_scores,
            channel=channel,
            estimators=self._estimators(),
            groups=rows,
            seed=self.seed,
        )
        said: tuple[str, ...] = ()
        if n_rows < len(rows) / 2:
            said = (
                f"{len(rows)} samples come from {n_rows} rows; those of one row resemble each "
                "other, so the interval is too narrow.",
            )
        if self.channel == "dropout":
            said += (
                "Dropout leaves survivors exact, so the information about continuous values has "
                "no finite value; what is estimated is what critics of this resolution can tell.",
            )
        return MINEResult.of(
            found,
            partner=partner,
            n_rows=n_rows,
            channel=self._described(channel),
            ceiling=ceiling,
            dims=(x_scores.shape[1], y_scores.shape[1]),
            variance_kept=(x_kept, y_kept),
            warnings=said,
        )

    def _noise(self, dims: int) -> tuple[Channel | None, float | None]:
        """The channel for components of unit variance, and the most it lets through [nats]."""
        if self.channel == "dropout":
            return None, None
        if self.channel == "quantisation":
            return Quantisation(self.bits, -_RANGE, _RANGE), dims * self.bits * math.log(2)
        return (
            channels.AdditiveGaussian(self.noise),
            dims * channels.additive_gaussian(1.0, self.noise**2),
        )

    def _described(self, channel: Channel | None) -> str | None:
        if self.channel == "dropout":
            return "the network's own dropout, as trained"
        if isinstance(channel, channels.AdditiveGaussian) and channel.deviation == self.noise:
            return f"additive Gaussian noise of {self.noise:.0%} of each component's sd"
        if isinstance(channel, Quantisation) and channel.high == _RANGE:
            return f"quantisation of each component to {self.bits} bits on +-{_RANGE:g} sd"
        return channel.describe() if channel is not None else None

    def _estimators(self) -> Sequence[str] | None:
        return ("mine-as-published",) if self.mode == "as_published" else self.estimators


def leading_components(values: Tensor, width: int) -> tuple[Floats, float]:
    """The first `width` principal components of `values` [samples, features], of unit variance.

    Returns them, float64 [samples, <= width] (directions that float32 rounding may have made are
    left out), and their share of the variance.

    Raises:
        DataError: where nothing varies.
    """
    centred = values.double() - values.double().mean(0)
    n, d = centred.shape
    eigenvalues, basis = torch.linalg.eigh(centred.T @ centred if d <= n else centred @ centred.T)
    total = float(eigenvalues.clamp_min(0).sum())
    if not total > 1e-12 * float(values.double().square().sum()):
        raise DataError(
            f"the activations are constant over {n} samples, so they tell nothing; leave the site "
            "out"
        )
    kept = min(width, int((eigenvalues > 1e-10 * eigenvalues[-1]).sum()))
    leading = basis[:, -kept:].flip(1)
    scores = centred @ leading if d <= n else leading
    share = float(eigenvalues[-kept:].sum()) / total
    return (scores / scores.std(0, correction=0)).numpy(), min(share, 1.0)


def _draws(model: Any) -> bool:
    """Whether a forward pass of `model`, as it is, draws dropout."""
    return any(
        m.training and m.p > 0
        for m in modules_of(model)
        if isinstance(m, nn.modules.dropout._DropoutNd)
    )


def _infinite(where: str) -> str:
    return (
        f"the information through {where} is infinite, since a deterministic network passes on "
        "every decimal of its input; state the noise: channel='gaussian' or 'quantisation', or "
        "'dropout' with train_mode=True"
    )


def _itself(name: str, n_samples: int, n_rows: int) -> MINEResult:
    """A continuous site beside itself, without noise between the two."""
    return MINEResult(
        nats=math.inf,
        interval=(math.inf, math.inf),
        recommended="none",
        estimates={},
        errors={},
        warnings=(f"{name} is the partner itself, with no noise between: the value is infinite.",),
        channel="the network's own dropout, as trained",
        ceiling=None,
        partner=name,
        n_samples=n_samples,
        n_rows=n_rows,
        dims=(0, 0),
    )
