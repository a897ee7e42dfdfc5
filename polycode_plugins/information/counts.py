"""Mutual information from counts, where both sides take few values, and the entropy of labels.

Cells that hold few samples each bias the logarithm of their counts upwards: of independent labels
with r and c values the plug-in value is about (r - 1)(c - 1) / 2N too high, and formulas that put
the number of cells that occur in place of the number there are (Miller & Madow 1955) see only a
part of that. Here single counts are corrected (Grassberger 2003), and what is left is measured: the
same estimator on shuffled pairs, where nothing is shared, says its own chance level.
"""

from __future__ import annotations

import numpy as np

from polycode_plugins.errors import DataError
from polycode_plugins.information.samples import Estimate, Floats, Labels

#: Shuffled pairings that make the chance level.
SHUFFLES = 20
#: Share of the entropy that shuffled pairs may say; beyond, the counts tell nothing.
_HOPELESS = 0.9


def plug_in(x: Labels, y: Labels, *, seed: int = 0) -> Estimate:
    """Information [nats] between two labellings [samples], each numbered from 0, bias-corrected.

    With I and h from Grassberger's counts (h the smaller entropy) and b the mean of I over shuffled
    pairs, the value is h (I - b) / (h - b), the adjusted mutual information of Vinh et al. 2010 in
    nats: it is 0 on average for independent labels, and h where one labelling decides the other,
    which no cell's depth biases. Between the two the bias is not known: I - b is right where all
    cells are possible, I where most are not, and the slack reaches from the one to the other. It
    reaches down by twice what the simpler correction by digamma (Grassberger 1988) says more, too:
    cells of less than a sample each leave a part of the bias in both, which that bounds down to
    about a fifteenth of a sample to a cell.

    Raises `DataError` where shuffled pairs say nearly as much as the entropy.
    """
    from scipy.special import digamma

    n, symbols = len(x), int(y.max()) + 1
    in_x, in_y = np.bincount(x)[x], np.bincount(y)[y]
    margins = _log(np.array([n]))[0] - _log(in_x) - _log(in_y)

    def counted(order: Labels | None) -> Floats:
        """Samples in the cell of each, with y in the order given."""
        pairs = x * symbols + (y if order is None else y[order])
        _, cell, counts = np.unique(pairs, return_inverse=True, return_counts=True)
        return np.asarray(counts[cell.reshape(-1)], dtype=np.float64)

    cells = counted(None)
    value = float((_log(cells) + margins).mean())
    rng = np.random.default_rng(seed)
    shuffled = [
        float(_log(counted(rng.permutation(n))).mean() + margins.mean()) for _ in range(SHUFFLES)
    ]
    chance, spread = float(np.mean(shuffled)), float(np.std(shuffled, ddof=1))
    bound = float(min(_log(np.array([n]))[0] - _log(c).mean() for c in (in_x, in_y)))
    if chance > _HOPELESS * bound:
        raise DataError(
            f"{n} samples of {int(x.max()) + 1} and {symbols} values are so few of each that "
            f"shuffled pairs say {chance / bound:.0%} of the entropy; pass more samples or merge "
            "values."
        )
    scale = bound / (bound - chance)
    nats = scale * (value - chance)
    local = np.log(cells) + np.log(n) - np.log(in_x) - np.log(in_y)
    error = scale * max(float(local.std()) / np.sqrt(n), spread)
    simple = float((digamma(cells) + digamma(n) - digamma(in_x) - digamma(in_y)).mean())
    slack = max(nats - (value - chance), 2 * (simple - value), 0.0), max(value - nats, 0.0)
    return Estimate(nats, float(error), chance=chance, slack=slack)


def entropy(labels: Labels) -> float:
    """Entropy [nats] of `labels` with the Miller-Madow correction: what no information exceeds."""
    share = np.bincount(labels) / len(labels)
    share = share[share > 0]
    return float(-(share * np.log(share)).sum() + (len(share) - 1) / (2 * len(labels)))


def _log(counts: Labels | Floats) -> Floats:
    """Grassberger 2003, equation 35: of n samples, what stands for ln n with least bias."""
    from scipy.special import digamma

    n = np.asarray(counts, dtype=np.float64)
    half = 0.5 * (digamma((n + 1) / 2) - digamma(n / 2))
    return np.asarray(digamma(n) + np.where(n % 2 == 0, half, -half))
