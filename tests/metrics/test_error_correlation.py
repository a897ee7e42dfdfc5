"""How the errors of two numbers go together: what is planted is found, from parts of rows too."""

from __future__ import annotations

import numpy as np
import pytest

from polycode_plugins.errors import DataError
from polycode_plugins.metrics.error_correlation import (
    ErrorCorrelation,
    KeptDocuments,
    error_correlation,
)

DOCUMENTS, TOKENS = 60, 20
ROWS = np.repeat(np.arange(DOCUMENTS), TOKENS)


def influences(rng: np.random.Generator, within: float, between: float, rows=ROWS):
    """Two influences: correlated `within` from sample to sample, `between` in documents' means."""
    own, common = (
        rng.standard_normal((size, 2)) @ np.linalg.cholesky([[1, r], [r, 1]]).T
        for size, r in ((len(rows), within), (rows.max() + 1, between))
    )
    both = own + common[rows]
    return both[:, 0], both[:, 1]


def planted(within: float, between: float) -> float:
    """The correlation of sums over a document."""
    return (TOKENS * within + TOKENS**2 * between) / (TOKENS + TOKENS**2)


def every(rows=ROWS, documents=None) -> KeptDocuments:
    documents = rows if documents is None else documents
    return KeptDocuments.of(rows, documents, len(rows), int(rows.max()) + 1)


def some(rng: np.random.Generator, kept: int) -> tuple[KeptDocuments, np.ndarray]:
    """So many random samples of each document."""
    order = rng.permuted(np.tile(np.arange(TOKENS), (DOCUMENTS, 1)), axis=1)[:, :kept]
    at = (np.arange(DOCUMENTS)[:, None] * TOKENS + order).ravel()
    return KeptDocuments.of(ROWS[at], ROWS[at], len(ROWS), DOCUMENTS), at


def first_of(rng: np.random.Generator, size: int) -> np.ndarray:
    """So many samples: one of each row before any gives a second."""
    draw = rng.permuted(np.tile(np.arange(TOKENS), (DOCUMENTS, 1)), axis=1).ravel()
    return np.lexsort((rng.random(DOCUMENTS)[ROWS], draw))[:size]


@pytest.mark.parametrize("between", [-0.8, 0.0, 0.9])
def test_what_is_planted_is_found(between):
    """Samples go together by .5, documents otherwise: it is sums over documents that count."""
    found = []
    for seed in range(200):
        errors = error_correlation(
            every(), *influences(np.random.default_rng([0, seed]), 0.5, between)
        )
        found.append((errors.estimate, errors.error))
    mean, error = np.mean(found, axis=0)
    spread = float(np.std([one for one, _ in found]))
    true = planted(0.5, between)
    assert mean == pytest.approx(true, abs=4 * spread / np.sqrt(200) + (1 - true**2) / DOCUMENTS)
    assert error == pytest.approx(spread, rel=0.2)


@pytest.mark.parametrize(("size", "between"), [(300, 0.05), (90, 0.9), (450, 0.05)])
@pytest.mark.parametrize("several", [1, 3])
def test_parts_of_documents_say_what_whole_ones_do(size, between, several):
    """Of all rows 5 of 20 samples, or of half of them one and two of the others, or 7 and 8."""
    documents = ROWS // several
    found = []
    for seed in range(300):
        rng = np.random.default_rng([1, seed])
        one, other = influences(rng, 0.5, between, documents)
        at = first_of(rng, size)
        kept = KeptDocuments.of(ROWS[at], documents[at], len(ROWS), DOCUMENTS)
        assert kept.held == pytest.approx(len(ROWS))
        parts = kept.products(one[at], other[at], independent=False).sum()
        whole = every(documents=documents).products(one, other, independent=False).sum()
        found.append((parts, whole))
    parts, whole = np.array(found).T
    assert np.mean(parts - whole) == pytest.approx(0, abs=3 * np.std(parts - whole) / np.sqrt(300))
    tokens = TOKENS * several
    assert np.mean(whole) == pytest.approx(
        DOCUMENTS / several * (tokens * 0.5 + tokens**2 * between),
        abs=4 * np.std(whole) / np.sqrt(300),
    )


def test_a_part_of_all_rows_says_what_all_do():
    """Rows of one sample each, 20 of a document, of which a quarter was kept."""
    rows, found = np.arange(len(ROWS)), []
    for seed in range(300):
        rng = np.random.default_rng([8, seed])
        one, other = influences(rng, 0.5, 0.9)
        at = rng.choice(rows, 300, replace=False)
        kept = KeptDocuments.of(at, ROWS[at], len(rows), len(rows))
        assert kept.share == 0.25
        found.append(
            (
                kept.products(one[at], other[at], independent=False).sum(),
                every().products(one, other, independent=False).sum(),
            )
        )
    parts, whole = np.array(found).T
    assert np.mean(parts - whole) == pytest.approx(0, abs=3 * np.std(parts - whole) / np.sqrt(300))


def test_an_origin_means_nothing():
    one, other = influences(np.random.default_rng(7), 0.5, 0.5)
    at = first_of(np.random.default_rng(7), 300)
    kept = KeptDocuments.of(ROWS[at], ROWS[at], len(ROWS), DOCUMENTS)
    found = error_correlation(kept, one[at], other[at])
    moved = error_correlation(kept, one[at] + 30, other[at] - 20)
    assert moved.estimate == pytest.approx(found.estimate)
    assert moved.spreads == pytest.approx(found.spreads)


def test_a_document_of_several_rows_and_a_row_of_several_documents():
    rng = np.random.default_rng(2)
    documents = np.where(np.arange(len(ROWS)) % TOKENS < 7, ROWS // 2, 1000 + ROWS)
    one, other = influences(rng, 0.5, 0.5)
    sums = [
        one[documents == name].sum() * other[documents == name].sum()
        for name in np.unique(documents)
    ]
    kept = every(documents=documents)
    np.testing.assert_allclose(kept.products(one, other, independent=False), sums)
    assert kept.worth < len(sums)
    order = rng.permutation(len(ROWS))
    turned = KeptDocuments.of(ROWS[order], documents[order], len(ROWS), DOCUMENTS)
    np.testing.assert_allclose(turned.products(one[order], other[order], independent=False), sums)


def test_spreads_are_the_standard_errors_of_means():
    means, spreads = [], []
    for seed in range(300):
        pair = influences(np.random.default_rng([3, seed]), 0.5, 0.5)
        means.append([v.mean() for v in pair])
        spreads.append(error_correlation(every(), *pair).spreads)
    np.testing.assert_allclose(np.mean(spreads, axis=0), np.std(means, axis=0), rtol=0.15)


def test_independent_samples_need_no_second_one_of_a_row():
    rng = np.random.default_rng(4)
    one, other = influences(rng, 0.7, 0.0)
    kept, at = some(rng, 1)
    with pytest.raises(DataError, match="one sample was kept of most rows, which have about 20"):
        error_correlation(kept, one[at], other[at])
    errors = error_correlation(kept, one[at], other[at], independent=True)
    assert -1 < errors.estimate < 1
    assert errors.spreads[0] == pytest.approx(one[at].std() / len(ROWS) ** 0.5, rel=0.02)


def test_too_few_are_refused():
    few = np.repeat(np.arange(12), 20)
    with pytest.raises(
        DataError, match=r"worth 12 of one length, and it takes 20 .*more documents"
    ):
        error_correlation(every(few), *influences(np.random.default_rng(5), 0.5, 0.5, few))
    # One long document among many short ones.
    long = np.concatenate([ROWS, np.full(2000, DOCUMENTS)])
    with pytest.raises(DataError, match="worth 3 of one length"):
        error_correlation(every(long), *influences(np.random.default_rng(5), 0.5, 0.5, long))
    # Two of two hundred tokens of each, whose sums say nothing of the documents'.
    rng = np.random.default_rng(6)
    short = np.repeat(np.arange(30), 2)
    kept = KeptDocuments.of(short, short, 30 * 200, 30)
    with pytest.raises(DataError, match=r"of about 6000 samples of these rows 60 were kept"):
        error_correlation(kept, *rng.standard_normal((2, 60)))


def test_what_is_counted_on_is_careful():
    sure = (1.0, 1.0)
    assert ErrorCorrelation(0.8, 0.1, 50, sure).counted(sure) == pytest.approx(0.7)
    assert ErrorCorrelation(0.05, 0.1, 50, sure).counted(sure) == 0
    assert ErrorCorrelation(-0.05, 0.1, 50, sure).counted(sure) == 0
    # Errors that go against one another make a difference less sure: rather more so.
    assert ErrorCorrelation(-0.5, 0.1, 50, sure).counted(sure) == pytest.approx(-0.6)
    # An interval of width 0 would be surer than any number is.
    assert ErrorCorrelation(1.0, 0.0, 50, sure).counted(sure) == 0.9999
    # Half of the variance of each is not that of influences.
    half = (2**-0.5, 2**-0.5)
    counted = ErrorCorrelation(0.8, 0.1, 50, half).counted(sure)
    assert counted == pytest.approx((0.7 + 0.7**4) / 2)
    # The other number has no such part, so nothing goes together with it.
    assert ErrorCorrelation(0.8, 0.1, 50, (half[0], 2.0)).counted(sure) == pytest.approx(
        0.7 * half[0]
    )
