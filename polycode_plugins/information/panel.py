"""Mutual information of two sample arrays by several estimators in one call."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from polycode_plugins.errors import DataError, near
from polycode_plugins.information import neighbours
from polycode_plugins.information.bounds import BOUNDS, LOWER_BOUNDS
from polycode_plugins.information.channels import Channel
from polycode_plugins.information.counts import entropy, plug_in
from polycode_plugins.information.folds import Folds, split
from polycode_plugins.information.gaussian import estimate_gaussian
from polycode_plugins.information.mine import Fitted, fit, untrained
from polycode_plugins.information.prepare import Pair, prepare
from polycode_plugins.information.published import TRAIN, VALIDATION, estimate_as_published
from polycode_plugins.information.recommend import (
    NAMES,
    Setting,
    evident,
    interval,
    recommend,
    remarks,
    unproven,
)
from polycode_plugins.information.samples import Estimate, Floats, Labels

#: The panel when none is named.
DEFAULT = ("gaussian", "ksg", "mine", "infonce", "smile")
KNOWN = ("gaussian", "ksg", *BOUNDS, "mine-as-published")
#: Folds of the variational bounds; every sample is held out once.
FOLDS = 4
#: Fewest samples that are split into folds, and most that critics are trained on.
FEWEST, MOST = 200, 50_000


@dataclass(frozen=True)
class MutualInformation:
    """Mutual information of x and y; everything in nats (natural logarithm), never below 0.

    nats: the recommended value, that of the estimator `recommended` (the rule is in
    `polycode_plugins.information.recommend`).
    interval: 95%, low and high, for the sampling error of that estimator, for its having been the
    largest of several where that is why it was chosen, and for what the correction of counts leaves
    open. Its bias is not in it: every estimator but "gaussian" and "smile" errs downwards where it
    errs, so the low end holds where the high end need not.
    estimates: {estimator: nats}; values that fell below 0 by chance are set to 0, and stand as
    they were in `unclipped`. Where values repeat, "ksg" is what exceeds shuffled pairs.
    errors: {estimator: standard error [nats]}.
    curves: {estimator: [checks, 3]}, training step, training bound and held-out bound [nats].
    warnings: sentences on what makes the number doubtful; empty is good.
    n_samples, shapes: of the arrays as passed. channel: the noise put on y, None for none.
    """

    nats: float
    interval: tuple[float, float]
    recommended: str
    estimates: dict[str, float]
    unclipped: dict[str, float]
    errors: dict[str, float]
    curves: dict[str, Floats]
    warnings: tuple[str, ...]
    n_samples: int
    shapes: tuple[tuple[int, ...], tuple[int, ...]]
    channel: str | None
    seed: int

    @property
    def spread(self) -> float:
        """Largest less smallest of `estimates` [nats]."""
        return max(self.estimates.values()) - min(self.estimates.values())


def estimate(
    x: Any,
    y: Any,
    *,
    estimators: Sequence[str] | None = None,
    channel: Channel | None = None,
    groups: Any = None,
    seed: int = 0,
    device: str | torch.device = "cpu",
    progress: bool = False,
) -> MutualInformation:
    """Mutual information [nats] of paired samples `x` and `y`, [samples] or [samples, features].

    Floats are coordinates; integers and booleans are labels, of which each distinct row is one.
    Continuous coordinates are replaced by their normal scores first, which changes no information
    and takes every tail away. `channel` puts its noise on y before anything else. `groups`
    [samples], any integers, says which samples depend on each other (tokens of a text, patches of
    an image): they are trained on or held out together.

    `estimators`, by default all but "nwj" and "mine-as-published":

    - "gaussian": canonical correlations, bias corrected (exact for Gaussian copulas).
    - "ksg": nearest neighbours (Kraskov et al. 2004, k = 10; Gao et al. 2017 where values repeat;
      Ross 2014 if one side is a label); counts (Grassberger 2003) if both sides are labels, or of
      so few values that there is a sample for each possible pair of them.
    - "mine", "nwj", "infonce", "smile": critics trained on 3 of 4 folds and valued on the fourth.
      The first one trains from scratch, the others start from its critics.
    - "mine-as-published": for reproduction only, never recommended beside others.

    An estimator that cannot give a finite value is left out, with a warning. Raises `DataError`
    for NaN, fewer than 32 samples, unequal lengths, and where y determines x linearly, so that the
    information is infinite. A constant side gives 0 nats, with a warning.
    """
    names = checked_names(estimators)
    seeds = [int(s) for s in np.random.SeedSequence(seed).generate_state(4)]
    pair = prepare(x, y, channel, seeds[0])
    said = list(pair.warnings)
    shapes = (pair.x.shape, pair.y.shape)
    described = channel.describe() if channel is not None else None
    if pair.x.constant or pair.y.constant:
        zeros = dict.fromkeys(names, 0.0)
        return MutualInformation(
            0.0, (0.0, 0.0), names[0], zeros, zeros, zeros, {}, tuple(said), pair.n_samples,
            shapes, described, seed,
        )  # fmt: skip
    grouped = _group_labels(groups, pair.n_samples)
    estimates, left_out = _run(names, pair, grouped, seeds[1:], device, progress)
    said += left_out
    if "mine-as-published" in names and pair.n_samples < TRAIN + VALIDATION:
        said.append(
            f"The published MINE takes {TRAIN + VALIDATION} samples; it was given "
            f"{pair.n_samples}, split in the same proportion, so its value is another."
        )
    if pair.n_samples > MOST and any(name in BOUNDS for name in names):
        said.append(f"Critics were trained and valued on {MOST} of the samples, drawn at random.")
    if not estimates:
        raise DataError("No estimator could be used: " + " ".join(left_out))
    setting = _setting(pair)
    if pair.atoms and "gaussian" in estimates and not set(estimates) & set(LOWER_BOUNDS):
        setting = replace(setting, held_out=_held_out(pair, grouped, seeds[1], device))
    sound = {k: v for k, v in estimates.items() if k != "mine-as-published"} or estimates
    if unproven(sound, setting):
        proof = _above_chance(pair, sound["ksg"], seeds[3])
        # Where nothing repeats, chance says 0 but for its own noise, which the value need not have.
        proven = replace(sound["ksg"], chance=proof.chance) if evident(proof) else proof
        estimates["ksg"] = sound["ksg"] = proven
    choice = recommend(sound, setting)
    chosen = choice.name
    said += remarks(sound, chosen, setting)
    nats = max(estimates[chosen].nats, 0.0)
    if nats > setting.limit:
        said.append(
            f"{NAMES[chosen]} gives {nats:.3f} nats, above the entropy of the values, "
            f"{setting.limit:.3f}; the value is cut there."
        )
        nats = setting.limit
    return MutualInformation(
        nats,
        interval(estimates[chosen], choice, setting.limit),
        chosen,
        {name: max(found.nats, 0.0) for name, found in estimates.items()},
        {name: found.nats for name, found in estimates.items()},
        {name: found.error for name, found in estimates.items()},
        {name: found.curve for name, found in estimates.items() if len(found.curve)},
        tuple(said),
        pair.n_samples,
        shapes,
        described,
        seed,
    )


def checked_names(estimators: Sequence[str] | None) -> tuple[str, ...]:
    """The names of the estimators to run.

    Raises:
        DataError: for an unknown one, none, and a text in place of a list.
    """
    names = DEFAULT if estimators is None else tuple(dict.fromkeys(estimators))
    if isinstance(estimators, str) or not names:
        raise DataError(f"estimators must be a list of names out of {', '.join(KNOWN)}.")
    for name in names:
        if name not in KNOWN:
            raise DataError(
                f"Unknown estimator {name!r}; known are {', '.join(KNOWN)}{near(name, KNOWN)}"
            )
    return names


def _setting(pair: Pair) -> Setting:
    sides = [side.codes for side in (pair.x, pair.y)]
    limit = min((entropy(codes) for codes in sides if codes is not None), default=math.inf)
    return Setting(
        pair.n_samples,
        pair.x_scores.shape[1],
        pair.y_scores.shape[1],
        pair.counted is not None,
        limit,
    )


def _run(
    names: tuple[str, ...],
    pair: Pair,
    groups: Labels | None,
    seeds: list[int],
    device: str | torch.device,
    progress: bool,
) -> tuple[dict[str, Estimate], list[str]]:
    """The estimates that came out finite, and a sentence for each that did not."""
    found: dict[str, Estimate] = {}
    left_out: list[str] = []
    folds: Folds | None = None
    start: Fitted | None = None
    for name in names:
        try:
            if name in BOUNDS:
                if folds is None:
                    folds = _folds(pair, groups, seeds[0], device)
                start = fit(name, folds, seed=seeds[1], start=start, progress=progress)
                result = start.estimate
            else:
                result = _PLAIN[name](pair, seeds[2], device, progress)
        except DataError as error:
            left_out.append(f"{NAMES[name]} was left out: {error}")
            continue
        if math.isfinite(result.nats) and math.isfinite(result.error):
            found[name] = result
        else:
            left_out.append(f"{NAMES[name]} was left out: it gave no finite value.")
    return found, left_out


def _group_labels(groups: Any, n_samples: int) -> Labels | None:
    if groups is None:
        return None
    named = np.asarray(groups.cpu() if isinstance(groups, torch.Tensor) else groups)
    if named.shape != (n_samples,):
        raise DataError(f"groups has shape {named.shape}; it must name one for each sample.")
    return np.unique(named, return_inverse=True)[1].astype(np.int64)


def _folds(pair: Pair, groups: Labels | None, seed: int, device: str | torch.device) -> Folds:
    if pair.n_samples < FEWEST:
        raise DataError(
            f"{pair.n_samples} samples are too few to train on a part and hold out another; pass "
            f"at least {FEWEST}."
        )
    x, y = pair.critic_arrays()
    if len(x) > MOST:
        rows = np.random.default_rng(seed).choice(len(x), MOST, replace=False)
        x, y, groups = x[rows], y[rows], groups[rows] if groups is not None else None
    gaussian = not (pair.x.discrete or pair.y.discrete)
    return split(x, y, folds=FOLDS, seed=seed, gaussian=gaussian, device=device, groups=groups)


def _held_out(
    pair: Pair, groups: Labels | None, seed: int, device: str | torch.device
) -> Estimate | None:
    """What the Gaussian critic shows of samples held out; None where these are too few."""
    try:
        return untrained(_folds(pair, groups, seed, device))
    except DataError:
        return None


def _gaussian(pair: Pair, seed: int, device: Any, progress: bool) -> Estimate:
    if pair.x.discrete or pair.y.discrete:
        raise DataError("labels have no covariance.")
    return estimate_gaussian(pair.x_scores, pair.y_scores)


def _neighbours(pair: Pair, seed: int, device: Any, progress: bool) -> Estimate:
    if pair.counted is not None:
        return plug_in(*pair.counted, seed=seed)
    x, y = pair.x.labels, pair.y.labels
    if y is not None:
        found = neighbours.ross(pair.x_scores, y, seed=seed)
    elif x is not None:
        found = neighbours.ross(pair.y_scores, x, seed=seed)
    else:
        found = neighbours.ksg(pair.x_scores, pair.y_scores, queries=pair.queries(), seed=seed)
    return _above_chance(pair, found, seed) if pair.atoms else found


def _above_chance(pair: Pair, found: Estimate, seed: int) -> Estimate:
    """The neighbour estimate `found` held against shuffled pairs."""
    x, y = pair.x.labels, pair.y.labels

    def terms(order: Labels) -> neighbours.Terms:
        if y is not None:
            return neighbours.ross_terms(pair.x_scores, y[order], seed=seed)
        if x is not None:
            return neighbours.ross_terms(pair.y_scores[order], x, seed=seed)
        return neighbours.ksg_terms(
            pair.x_scores, pair.y_scores[order], queries=pair.queries(), seed=seed
        )

    return neighbours.above_chance(found, terms, pair.n_samples, seed)


def _as_published(pair: Pair, seed: int, device: Any, progress: bool) -> Estimate:
    return estimate_as_published(
        pair.raw(pair.x), pair.raw(pair.y), seed=seed, device=device, progress=progress
    )


_PLAIN: dict[str, Callable[[Pair, int, Any, bool], Estimate]] = {
    "gaussian": _gaussian,
    "ksg": _neighbours,
    "mine-as-published": _as_published,
}
