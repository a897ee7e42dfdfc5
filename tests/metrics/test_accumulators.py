"""The streamed covariance against one shot, for every split, order and merge tree."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch._subclasses.fake_tensor import FakeTensorMode

from polycode_plugins.activations import Activations, Site
from polycode_plugins.errors import DataError, StateError
from polycode_plugins.metrics import Spectrum, accumulators, decomposition, moments, triangle
from polycode_plugins.metrics.accumulators import Covariance
from polycode_plugins.runs.gathering import Statistics

AXES = ("batch", "feature")


def rows(n: int, width: int, seed: int = 0, *, mean: float = 0.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(n, width, generator=generator, dtype=torch.float64)
    return values * torch.arange(1, width + 1) ** -0.5 + mean


def gathered(values: torch.Tensor, sizes: list[int] | None = None, **options: str) -> Covariance:
    covariance = Covariance(**options)
    for part in values.split(sizes) if sizes else [values]:
        covariance.update(Activations(part, AXES))
    return covariance


def relative_error(found: torch.Tensor, expected: np.ndarray) -> float:
    return float(np.abs(found.numpy() - expected).max() / np.abs(expected).max())


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks and panels so small that a few hundred rows fold many times."""
    shrink(monkeypatch)


def shrink(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(moments, "BLOCK_VALUES", 64)
    monkeypatch.setattr(moments, "BLOCK_ROWS", (8, 16))
    monkeypatch.setattr(triangle, "_panel", lambda width: 3)


@st.composite
def merge_trees(draw: st.DrawFn) -> tuple[int, int, list[int], list[int], float, int]:
    """(samples, width, batch sizes, order and shape of merges, mean, seed)."""
    width = draw(st.integers(1, 12))
    sizes = draw(st.lists(st.integers(1, 40), min_size=1, max_size=12))
    merges = draw(st.lists(st.integers(0, 10**6), min_size=len(sizes), max_size=len(sizes)))
    return (
        sum(sizes),
        width,
        sizes,
        merges,
        draw(st.sampled_from([0.0, -3.0, 1e3])),
        draw(st.integers(0, 2**16)),
    )


@settings(max_examples=150, deadline=None)
@given(merge_trees())
def test_every_split_order_and_merge_tree_equals_one_shot(tree):
    n, width, sizes, merges, mean, seed = tree
    values = rows(n, width, seed, mean=mean)
    with pytest.MonkeyPatch.context() as patch:
        shrink(patch)
        parts = [gathered(part) for part in values.split(sizes)]
        while len(parts) > 1:
            pick = merges.pop()
            a = parts.pop(pick % len(parts))
            b = parts.pop(pick // 7 % len(parts))
            a.merge(b)
            parts.append(a)
        (merged,) = parts
        assert merged.n_samples == n
        mean_of_all = values.mean(dim=0).numpy()
        assert np.abs(merged.mean().numpy() - mean_of_all).max() <= 1e-12 * max(1, abs(mean))
        if n > 1:
            expected = np.atleast_2d(np.cov(values.numpy().T))
            assert relative_error(merged.covariance(), expected) < 1e-10


def test_merge_is_commutative_and_an_empty_one_is_its_identity(small_blocks):
    values = rows(100, 7)
    a, b = gathered(values[:60]), gathered(values[60:])
    left, right = gathered(values[:60]), gathered(values[60:])
    left.merge(b)
    right.merge(a)
    assert relative_error(left.covariance(), right.covariance().numpy()) < 1e-13
    before = left.covariance().clone()
    left.merge(Covariance())
    assert torch.equal(left.covariance(), before)
    empty = Covariance()
    empty.merge(left)
    assert relative_error(empty.covariance(), before.numpy()) < 1e-14


def test_merging_leaves_the_other_as_it_was(small_blocks):
    values = rows(100, 7)
    a, b = gathered(values[:60]), gathered(values[60:])
    before = {k: v.clone() for k, v in b.state().items()}
    a.merge(b)
    a.update(Activations(values, AXES))
    assert all(torch.equal(v, before[k]) for k, v in b.state().items())


@pytest.mark.parametrize("n", [5, 40, 41, 200, 3000])
def test_eigenvalues_agree_with_numpy(n):
    values = rows(n, 40, mean=2.0)
    found = gathered(values, [n]).eigenvalues()
    expected = np.linalg.eigvalsh(np.cov(values.numpy().T))[::-1][: min(40, n - 1)]
    assert found.shape == expected.shape
    # Relative to each eigenvalue, where rounding of the largest does not swamp it.
    assert np.abs(found.numpy() / expected - 1).max() < 1e-8


def test_the_gram_matrix_gives_the_eigenvectors_of_the_covariance():
    values = rows(30, 80)
    few = gathered(values)
    eigenvalues, vectors = few.eigenvectors(10)
    covariance = torch.from_numpy(np.cov(values.numpy().T))
    assert torch.allclose(covariance @ vectors.T, vectors.T * eigenvalues, atol=1e-12)
    assert torch.allclose(vectors @ vectors.T, torch.eye(10, dtype=torch.float64), atol=1e-12)
    many_values, many = gathered(rows(500, 80)).eigenvectors(10)
    assert many.shape == (10, 80)
    assert many_values.shape == (10,)
    assert bool((many.gather(1, many.abs().argmax(1, keepdim=True)) > 0).all())


def test_rows_are_kept_while_they_are_fewer_than_the_width():
    covariance = gathered(rows(20, 5000))
    assert set(covariance.state()) == {"count", "rows"}
    assert covariance.eigenvalues().shape == (19,)


def test_a_far_mean_costs_no_digits_of_the_variance():
    values = rows(6000, 8)
    values[:, 3] += 1000.0
    single = values.float()
    expected = np.cov(single.double().numpy().T)
    for precision, bound in [("float64", 1e-12), ("float32", 2e-6)]:
        found = gathered(single, [500] * 12, precision=precision).covariance().numpy()
        scale = np.sqrt(np.outer(np.diag(expected), np.diag(expected)))
        assert (np.abs(found - expected) / scale).max() < bound
    # The fault this guards against: raw float32 moments.
    raw = (single.T @ single / 6000 - torch.outer(single.mean(0), single.mean(0))).numpy()
    assert np.abs(raw[3, 3] / expected[3, 3] - 1) > 1e-3


def test_float32_products_stay_within_their_stated_bound():
    values = rows(20_000, 64, mean=5.0).float()
    exact = gathered(values).covariance().numpy()
    found = gathered(values, precision="float32").covariance().numpy()
    scale = np.sqrt(np.outer(np.diag(exact), np.diag(exact)))
    error = (np.abs(found - exact) / scale).max()
    assert 0 < error < 2 * (4096 + 2) * 2**-24
    assert error < 1e-5


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_low_precision_input_is_read_without_further_loss(dtype):
    values = rows(700, 20).to(dtype)
    found = gathered(values, [100] * 7).covariance()
    assert relative_error(found, np.cov(values.double().numpy().T)) < 1e-12


def test_the_state_round_trips_and_goes_on_bit_by_bit(small_blocks):
    values = rows(333, 9)
    whole = gathered(values[:100])
    resumed = Covariance()
    resumed.load_state(whole.state())
    for part in values[100:].split(37):
        whole.update(Activations(part, AXES))
        resumed.update(Activations(part, AXES))
    a, b = whole.state(), resumed.state()
    assert a.keys() == b.keys()
    assert all(torch.equal(a[k], b[k]) for k in a)


def test_reading_does_not_change_the_state():
    values = rows(300, 9)
    read, unread = gathered(values[:150]), gathered(values[:150])
    read.covariance()
    read.eigenvalues()
    read.update(Activations(values[150:], AXES))
    unread.update(Activations(values[150:], AXES))
    assert all(torch.equal(v, unread.state()[k]) for k, v in read.state().items())


def test_what_was_passed_in_may_change_afterwards():
    values = rows(50, 4)
    covariance = Covariance()
    batch = values.clone()
    covariance.update(Activations(batch, AXES))
    batch.zero_()
    assert relative_error(covariance.covariance(), np.cov(values.numpy().T)) < 1e-13


def test_masked_activations_that_changed_are_read_anew():
    values = rows(200, 12)
    batch = Activations(values, AXES, mask=torch.arange(200) < 150)
    metric = Spectrum(ranks=(1, 12), fit="huber")
    before = metric.measure(batch).total_variance
    values.mul_(2)
    assert metric.measure(batch).total_variance == pytest.approx(4 * before)


def test_autocast_around_it_changes_nothing():
    values = rows(6000, 12).float()
    metric = Spectrum(precision="float32", ranks=(1, 12), fit="huber")
    with torch.autocast("cpu", torch.bfloat16):
        found = metric.measure(values).eigenvalues
        hook = metric.as_hook()
        hook(values, hook=SimpleNamespace(name="site"))
        hooked = hook.compute()["site"].eigenvalues
        statistics = Statistics([metric], [Site("site")])
        statistics.receive("site", Activations(values, AXES))
        streamed = statistics.compute("site", metric).eigenvalues
    expected = metric.measure(values).eigenvalues
    for eigenvalues in (found, hooked, streamed):
        assert np.array_equal(eigenvalues, expected)


@pytest.mark.parametrize("held", [100, 6000])  # as rows, as moments
@pytest.mark.parametrize("more", [100, 6000])
def test_a_state_goes_on_where_the_next_rows_are(held, more):
    with FakeTensorMode():  # a GPU that is not there: it says which devices meet, and no numbers
        covariance, other = Covariance(), Covariance()
        covariance.update(Activations(torch.ones(held, 12), AXES))
        covariance.update(Activations(torch.ones(more, 12, device="cuda"), AXES))
        other.update(Activations(torch.ones(more, 12), AXES))
        covariance.merge(other)
        assert covariance.covariance().device.type == "cuda"
        other.merge(covariance)
        assert other.covariance().device.type == "cpu"
        assert other.n_samples == held + 3 * more


def test_masked_samples_do_not_count():
    values = torch.randn(4, 6, 5, generator=torch.Generator().manual_seed(0)).double()
    mask = torch.rand(4, 6, generator=torch.Generator().manual_seed(1)) < 0.6
    values[~mask] = 1e6
    covariance = Covariance()
    covariance.update(Activations(values, ("batch", "position", "feature"), mask=mask))
    assert covariance.n_samples == int(mask.sum())
    assert relative_error(covariance.covariance(), np.cov(values[mask].numpy().T)) < 1e-12


def test_positions_as_features():
    values = torch.randn(50, 3, 2, 2, generator=torch.Generator().manual_seed(0)).double()
    axes = ("batch", "channel", "height", "width")
    as_features = Covariance("features")
    as_features.update(Activations(values, axes))
    assert as_features.width == 12
    eigenvalues = np.linalg.eigvalsh(np.cov(values.reshape(50, -1).numpy().T))[::-1]
    assert np.allclose(as_features.eigenvalues().numpy(), eigenvalues, rtol=1e-10)
    as_samples = Covariance("samples")
    as_samples.update(Activations(values, axes))
    assert (as_samples.width, as_samples.n_samples) == (3, 200)


def test_memory_does_not_grow_with_the_number_of_samples():
    def held(n: int) -> int:
        covariance = Covariance()
        for _ in range(n):
            covariance.update(Activations(torch.ones(512, 16), AXES))
        return sum(t.numel() * t.element_size() for t in covariance.state().values())

    bound = 4096 * 16 * 4 + 16 * 17 * 8 // 2 + 16 * 8 + 8  # a block of rows, scatter, mean, count
    assert max(held(n) for n in range(1, 36)) <= bound


def test_total_variance_in_both_regimes():
    for n in (10, 5000):
        values = rows(n, 30)
        expected = np.trace(np.cov(values.numpy().T))
        assert gathered(values).total_variance() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("n", [5, 40, 300, 6000])
def test_means_and_variances_need_no_matrix(n, monkeypatch):
    values = rows(n, 30, mean=1000.0)
    covariance = gathered(values, [n // 2, n - n // 2])
    monkeypatch.setattr(Covariance, "_folded", None)  # what folds
    assert np.allclose(covariance.mean().numpy(), values.numpy().mean(axis=0), rtol=1e-14)
    assert np.allclose(covariance.variances().numpy(), values.numpy().var(axis=0, ddof=1))


def test_moments_and_pending_rows_give_one_mean_and_variance(small_blocks):
    values = rows(101, 7, mean=3.0)
    covariance = gathered(values, [33, 33, 30, 5])
    assert {"mean", "rows"} <= set(covariance.state())
    assert np.allclose(covariance.mean().numpy(), values.numpy().mean(axis=0), rtol=1e-13)
    variances = values.numpy().var(axis=0, ddof=1)
    assert np.allclose(covariance.variances().numpy(), variances, rtol=1e-12)


def test_eigenvalues_are_worked_out_once_and_anew_after_more_data(monkeypatch):
    calls = []
    real = decomposition.eigen
    monkeypatch.setattr(decomposition, "eigen", lambda *a, **k: calls.append(1) or real(*a, **k))
    values = rows(300, 20)
    covariance = gathered(values[:100])
    first = covariance.eigenvalues()
    first.zero_()  # what was given out is the caller's
    assert float(covariance.eigenvalues()[0]) > 0
    assert len(calls) == 1
    covariance.update(Activations(values[100:200], AXES))
    second = covariance.eigenvalues()
    covariance.merge(gathered(values[200:]))
    third = covariance.eigenvalues()
    assert len(calls) == 3
    assert np.allclose(second, gathered(values[:200]).eigenvalues(), rtol=1e-10)
    assert np.allclose(third, gathered(values).eigenvalues(), rtol=1e-10)
    covariance.load_state(gathered(values[:100]).state())
    assert np.allclose(covariance.eigenvalues(), gathered(values[:100]).eigenvalues(), rtol=1e-10)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: Covariance().covariance(), DataError, "at least 2 samples and 0 came"),
        (lambda: gathered(rows(1, 3)).eigenvalues(), DataError, "at least 2 samples and 1 came"),
        (lambda: gathered(rows(9, 3)).update(Activations(rows(9, 4), AXES)), DataError, "width 4"),
        (lambda: gathered(rows(9, 3)).merge(gathered(rows(9, 4))), DataError, "width 4"),
        (lambda: Covariance().merge(Covariance("features")), StateError, "cannot be merged"),
        (lambda: Covariance(precision="float16"), DataError, "precision is"),
        (lambda: Covariance().load_state({}), StateError, "damaged"),
        (
            lambda: Covariance().load_state({"count": torch.tensor(3)}),
            StateError,
            "counts samples and has no mean",
        ),
        (
            lambda: Covariance().load_state(
                {
                    "count": torch.tensor(3),
                    "mean": torch.zeros(3),
                    "scatter": torch.zeros(5),
                }
            ),
            StateError,
            "does not fit a width of 3",
        ),
    ],
)
def test_bad_input_is_one_clear_sentence(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_rows_that_would_not_fit_are_refused(monkeypatch):
    monkeypatch.setattr(accumulators, "MAX_ROW_BYTES", 10_000)
    with pytest.raises(DataError, match="positions='samples'"):
        gathered(rows(200, 1000))


@pytest.mark.parametrize("texts", [6, 3000])
def test_the_memory_foretold_is_what_is_kept(texts):
    """Few samples are kept as they came, of which the number is known; many as half a matrix."""
    generator = torch.Generator().manual_seed(0)
    covariance, axes = Covariance(), ("batch", "position", "feature")
    first = Activations(torch.randn(6, 4, 30, generator=generator), axes)
    told, unknown = covariance.memory(first, texts), covariance.memory(first, None)
    for _ in range(texts // 6):
        covariance.update(first)
    kept = sum(t.numel() * t.element_size() for t in covariance._pending)
    if covariance._moments is not None:
        kept += sum(t.numel() * t.element_size() for t in covariance._moments.panels)
    assert covariance.keeps_rows is (texts == 6)
    if covariance.keeps_rows:
        assert kept == told.held == 24 * 30 * 4
        assert unknown.held > told.held
    else:
        assert kept <= told.held == unknown.held


@pytest.mark.parametrize("n", [20, 200])  # fewer rows than features, and more
def test_the_multiplier_is_the_covariance(n):
    values = rows(n, 40, mean=3.0)
    covariance = gathered(values, 7)
    vectors = torch.randn(40, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    expected = torch.from_numpy(np.cov(values.numpy().T)) @ vectors
    assert torch.allclose(covariance.multiplier()(vectors), expected, atol=1e-12)


@pytest.mark.parametrize("n", [30, 500])
def test_a_reading_works_out_once_what_it_says_and_sees_what_comes(n, monkeypatch):
    values = rows(n, 40, mean=1.0)
    covariance, plain = gathered(values[:-9]), gathered(values)
    before = covariance.state()
    folds, decompositions = [], []
    fold, eigen = moments.Moments.add, decomposition.eigen
    monkeypatch.setattr(moments.Moments, "add", lambda *a: folds.append(1) or fold(*a))
    monkeypatch.setattr(
        decomposition, "eigen", lambda *a, **k: decompositions.append(1) or eigen(*a, **k)
    )
    with covariance.reading():
        _, vectors = covariance.eigenvectors()
        with covariance.reading():
            assert covariance.eigenvalues().shape == (len(vectors),)
        assert torch.equal(covariance.leading_direction(), vectors[0])
        covariance.covariance()
        assert len(decompositions) == 1
        assert len(folds) == 1
        assert all(torch.equal(value, before[name]) for name, value in covariance.state().items())
        covariance.update(Activations(values[-9:], ("batch", "feature")))
        assert covariance.mean() == pytest.approx(plain.mean())
        assert covariance.eigenvalues().numpy() == pytest.approx(plain.eigenvalues().numpy())
    assert covariance._read is None


@pytest.mark.parametrize("precision", ["float64", "float32"])
@pytest.mark.parametrize("mean", [0.0, 1e3])
def test_one_thread_and_several_give_the_same(precision, mean, monkeypatch):
    """Products by the symmetric product of BLAS, and by panels."""
    values = rows(3000, 200, mean=mean).float()
    values += torch.linspace(0, 3, 3000)[:, None]  # the means of the blocks differ
    exact = np.cov(values.double().numpy().T)
    found = []
    for threads in (1, 2):
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        sizes = [700, 300, 900, 1000, 100]
        found.append(gathered(values, sizes, precision=precision).covariance())
        assert relative_error(found[-1], exact) < (1e-13 if precision == "float64" else 1e-6)
    assert not torch.equal(*found)  # both ways were gone
