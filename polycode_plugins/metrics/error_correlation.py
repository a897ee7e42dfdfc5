"""How the errors of two numbers go together that were computed from the same rows.

The error of each is a sum over documents, which are independent, of the influences of their samples
(see `influences`). With f and g the sums of a document,

    correlation = sum f g / sqrt(sum f^2 sum g^2)

over documents, and its own error comes from leaving out one of these at a time. What was kept are k
samples of each row, chosen at random among its T: products of one sample with itself stand for T/k
of them, those of two samples of a row for T (T - 1) / (k (k - 1)), those of two rows of a document
for the product of both T/k (Horvitz & Thompson 1952, J. Am. Stat. Assoc. 47), so that the sums are
those of all samples, without bias.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from polycode_plugins.errors import DataError

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

#: Documents that those kept must be worth.
LEAST_DOCUMENTS = 20.0
#: Standard errors between the correlation and what an interval counts on.
CAUTION = 1.0
#: Power of the correlation of those parts of errors that influences do not have.
REMOTE = 4
#: Most that an interval counts on: estimates are no more exact than that, nor are influences.
MOST = 0.9999
#: Standard error beyond which the samples say nothing of the correlation.
UNTOLD = 0.5


@dataclass(frozen=True)
class ErrorCorrelation:
    """Correlation of the sampling errors of two numbers.

    Attributes:
        estimate: between -1 and 1, of what influences say of the errors.
        error: its standard error (jackknife over documents).
        documents: how many documents of one size those kept are worth.
        spreads: standard errors of both numbers as influences give them.
    """

    estimate: float
    error: float
    documents: float
    spreads: tuple[float, float]

    @property
    def low(self) -> float:
        """The careful end, with which intervals are rather too wide: lower than the estimate by one
        standard error; 0 where the estimate is within that of 0."""
        low = self.estimate - CAUTION * self.error
        if self.estimate >= 0:
            return min(max(low, 0.0), MOST)
        return max(low, -1.0) if self.estimate + CAUTION * self.error < 0 else 0.0

    def counted(self, errors: tuple[float, float]) -> float:
        """What the interval of the difference counts on, -1 to 1.

        errors: standard errors of both numbers as their own intervals have them. What they have
        beyond `spreads` comes of what is not known of the rows' dependence, say, which rests on
        higher moments of the same rows: it goes together as the power `REMOTE` of the correlation
        if both go the same way.
        """
        known = [
            min(1.0, spread / error) if error > 0 else 1.0
            for spread, error in zip(self.spreads, errors, strict=True)
        ]
        rest = np.sqrt((1 - known[0] ** 2) * (1 - known[1] ** 2))
        if self.low <= 0:
            return self.low
        return min(float(known[0] * known[1] * self.low + rest * self.low**REMOTE), MOST)


@dataclass(frozen=True, eq=False)
class KeptDocuments:
    """Which documents the samples that were kept are of, part by part: what a row has of one.

    Attributes:
        part: int64 [samples], from 0. document: int64 [parts], from 0.
        times: float64 [parts] samples that there are for each that was kept, T/k of the row.
        pairs: float64 [parts] pairs that there are for each pair that was kept; 0 where none was.
        kept: samples of these rows that were kept. held: how many there are, about.
        share: of the rows, that is here at all.
        single: whether of most rows one sample was kept, so that nothing tells how those of one
            row go together.
    """

    part: Integers
    document: Integers
    times: Floats
    pairs: Floats
    kept: int
    held: float
    share: float
    single: bool

    @classmethod
    def of(
        cls,
        rows: Integers,
        documents: Integers,
        n_samples: int,
        n_rows: int,
        *,
        even: bool = False,
    ) -> KeptDocuments:
        """Those of kept samples.

        Args:
            rows: [samples], the row of each. documents: [samples], likewise.
            n_samples: of the site, kept or not.
            n_rows: of the data.
            even: whether all rows have as many samples, as images have.
        """
        names, row, counts = np.unique(rows, return_inverse=True, return_counts=True)
        kept: Floats = counts.astype(np.float64)
        held, share = kept.copy(), 1.0
        if len(rows) < n_samples:
            # Every row gives one sample before any gives a second.
            short = (kept < kept.max() - 1) & (not even)
            if kept.max() == 1:
                share = min(1.0, len(names) / max(n_rows, 1))
            left = (n_samples * share - kept[short].sum()) / max(int((~short).sum()), 1)
            held[~short] = np.maximum(held[~short], left)
        there, seen = held * (held - 1), kept * (kept - 1)
        pairs = np.divide(there, seen, out=np.zeros_like(there), where=seen > 0)
        if known := there[seen > 0].sum():
            pairs *= there.sum() / known  # for rows of which one was kept
        alone = (kept == 1) & (held > 1)
        of, document = np.unique(documents, return_inverse=True)
        # One number for a row and a document: to sort pairs takes ten times as long.
        parts, part = np.unique(
            row.reshape(-1) * len(of) + document.reshape(-1), return_inverse=True
        )
        of_row, of_document = np.divmod(parts, max(len(of), 1))
        return cls(
            part=part.reshape(-1),
            document=of_document,
            times=(held / kept)[of_row],
            pairs=pairs[of_row],
            kept=len(rows),
            held=float(held.sum()),
            share=share,
            single=bool(held[alone].sum() > held.sum() / 2),
        )

    @property
    def worth(self) -> float:
        """How many documents of one size these are worth, (sum n)^2 / sum n^2."""
        sizes = np.bincount(self.document[self.part], weights=self.times[self.part])
        return float(sizes.sum() ** 2 / np.square(sizes).sum())

    def centred(self, influences: Floats) -> Floats:
        """[samples] less their mean over all samples."""
        return np.asarray(influences - np.average(influences, weights=self.times[self.part]))

    def products(self, first: Floats, second: Floats, *, independent: bool) -> Floats:
        """[documents] of the product of both sums over all samples of each document, or, for
        independent samples, of the sum of products of each with itself: without bias.

        first, second: [samples], centred.
        """
        count = len(self.document)
        own, one, other = (
            np.bincount(self.part, weights=v, minlength=count).astype(np.float64)
            for v in (first * second, first, second)
        )
        if independent:
            return np.asarray(np.bincount(self.document, weights=self.times * own) / self.share)
        each = self.times * own + self.pairs * (one * other - own)
        one, other = self.times * one, self.times * other
        found, same, left, right = (
            np.bincount(self.document, weights=v) for v in (each, one * other, one, other)
        )
        return np.asarray(found / self.share + (left * right - same) / self.share**2)


def error_correlation(
    kept: KeptDocuments, first: Floats, second: Floats, *, independent: bool = False
) -> ErrorCorrelation:
    """Correlation of the errors of two numbers.

    Args:
        kept: the documents of the samples.
        first, second: [samples], influences on both; see `Influences`.
        independent: whether samples of one document are.

    Raises:
        DataError: for too few documents, or samples of each, to say.
    """
    if kept.worth < LEAST_DOCUMENTS:
        raise DataError(
            f"the documents that both kept are worth {kept.worth:.0f} of one length, and it takes "
            f"{LEAST_DOCUMENTS:.0f} to say how errors go together; give more documents"
        )
    if not independent and kept.single:
        raise DataError(
            f"one sample was kept of most rows, which have about {kept.held / kept.kept:.0f} that "
            "depend on one another; keep more, with more samples of the metric 'cka'"
        )
    one, other = kept.centred(first), kept.centred(second)
    parts = [
        kept.products(a, b, independent=independent)
        for a, b in ((one, other), (one, one), (other, other))
    ]
    totals = np.array([part.sum() for part in parts])
    without = totals[:, None] - np.stack(parts)
    unsure = DataError(
        f"of about {kept.held:.0f} samples of these rows {kept.kept} were kept, too few to say how "
        "errors go together; keep more, with more samples of the metric 'cka'"
    )
    if not (totals[1:] > 0).all() or not (without[1:] > 0).all():
        raise unsure
    estimate = float(totals[0] / np.sqrt(totals[1] * totals[2]))
    moved = without[0] / np.sqrt(without[1] * without[2])
    count = len(moved)
    error = float(np.sqrt((count - 1) / count * np.square(moved - moved.mean()).sum()))
    error = max(error, (1 - min(estimate**2, 1.0)) / np.sqrt(count - 1))
    if not error < UNTOLD:
        raise unsure
    whole = kept.held / kept.share
    one_error, other_error = (float(v) for v in np.sqrt(totals[1:] * count / (count - 1)) / whole)
    return ErrorCorrelation(
        float(np.clip(estimate, -1.0, 1.0)), error, kept.worth, (one_error, other_error)
    )
