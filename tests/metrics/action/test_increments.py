"""Increments along paths against numpy's diff, for every split, order and merge tree."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from polycode_plugins.activations import Activations
from polycode_plugins.errors import DataError, StateError
from polycode_plugins.metrics import moments
from polycode_plugins.metrics.action import increments, runs
from polycode_plugins.metrics.action.increments import Increments

FLAT = ("batch", "feature")
TEXT = ("batch", "position", "feature")
IMAGE = ("batch", "channel", "height", "width")


def walk(time: int, *shape: int, seed: int = 0, start: float = 0.0) -> torch.Tensor:
    """A random walk [time, ...] in float64."""
    generator = torch.Generator().manual_seed(seed)
    steps = torch.randn(time, *shape, generator=generator, dtype=torch.float64)
    return start + steps.cumsum(0)


def gathered(values: torch.Tensor, axes=FLAT, mask=None, rows=None, **options) -> Increments:
    found = Increments(**options)
    found.update(Activations(values, axes, mask=mask, rows=rows))
    return found


def scatter(*paths: np.ndarray) -> np.ndarray:
    steps = np.concatenate([np.diff(path, axis=0) for path in paths])
    return steps.T @ steps


def check(found: Increments, *paths: torch.Tensor, n_paths: int | None = None) -> None:
    """All that `found` says of paths [time, width]: S, eigenvalues, counts, variance."""
    arrays = [np.asarray(path, dtype=np.float64) for path in paths]
    expected = scatter(*arrays)
    points = np.concatenate(arrays)
    assert found.n_steps == sum(len(p) - 1 for p in arrays)
    assert found.n_paths == (sum(len(p) > 1 for p in arrays) if n_paths is None else n_paths)
    assert found.n_samples == len(points)
    scale = np.abs(expected).max()
    assert np.abs(found.second_moment().numpy() - expected).max() <= 1e-10 * scale
    eigenvalues = np.linalg.eigvalsh(expected)[::-1][: min(found.n_steps, points.shape[1])]
    assert np.abs(found.eigenvalues().numpy() - eigenvalues).max() <= 1e-10 * scale
    assert found.total_variance() == pytest.approx(points.var(axis=0, ddof=1).sum(), rel=1e-10)
    assert np.allclose(found.mean().numpy(), points.mean(axis=0), rtol=1e-12, atol=1e-12)


def shrink(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks so small that a few rows fold many times."""
    monkeypatch.setattr(moments, "BLOCK_VALUES", 64)
    monkeypatch.setattr(moments, "BLOCK_ROWS", (8, 16))
    monkeypatch.setattr(increments, "BLOCK_VALUES", 12)


# -- paths along positions ---------------------------------------------------------------------


@pytest.mark.parametrize("width", [1, 3, 40])
def test_each_text_is_a_path(width):
    texts = walk(7, 5, width).transpose(0, 1)
    check(gathered(texts, TEXT), *texts)


def test_masked_positions_split_a_path_and_may_hold_anything():
    texts = walk(6, 4, 3).transpose(0, 1).clone()
    mask = torch.ones(4, 6, dtype=torch.bool)
    mask[0, :2] = False  # padding in front
    mask[1, 3] = False  # a hole: no step into it nor out of it
    mask[2, 1:] = False  # a single token: a point, but no path
    mask[3] = False
    kept = texts.clone()
    texts[~mask] = torch.nan
    found = gathered(texts, TEXT, mask=mask)
    check(found, kept[0, 2:], kept[1, :3], kept[1, 4:], kept[2, :1], n_paths=2)
    energies = [
        np.square(np.diff(kept[0, 2:], axis=0)).sum(),
        sum(np.square(np.diff(p, axis=0)).sum() for p in (kept[1, :3], kept[1, 4:])),
    ]
    count, mean, variance = found.path_energies()
    assert (count, mean, variance) == pytest.approx(
        (2, np.mean(energies), np.var(energies, ddof=1)), rel=1e-12
    )


def test_heads_are_features():
    heads = walk(6, 2, 2, 3).transpose(0, 1)  # [batch, position, head, feature]
    check(gathered(heads, ("batch", "position", "head", "feature")), *heads.flatten(2))


# -- paths along rows --------------------------------------------------------------------------


def test_rows_of_a_matrix_are_one_path():
    path = walk(50, 4)
    check(gathered(path), path)


def test_a_frame_is_one_point_of_channels_and_positions():
    frames = walk(12, 2, 3, 3)
    found = gathered(frames, IMAGE)
    # The order of features is Activations.matrix's; spectra and traces do not depend on it.
    points = Activations(frames, IMAGE).matrix("features")
    check(found, points)
    assert (found.path, found.positions, found.width) == ("rows", "features", 18)


def test_positions_as_samples_are_paths_of_their_own():
    frames = walk(12, 2, 3, 3)
    found = gathered(frames, IMAGE, positions="samples")
    check(found, *[frames[:, :, i, j] for i in range(3) for j in range(3)])
    assert found.width == 2


def test_rows_of_texts_when_asked_for():
    texts = walk(6, 5, 3)
    assert gathered(texts, TEXT).path == "position"
    check(gathered(texts, TEXT, path="rows"), texts.flatten(1))
    check(gathered(texts, TEXT, positions="features"), texts.flatten(1))


def test_a_masked_row_ends_a_path():
    path = walk(9, 3)
    mask = torch.arange(9) != 4
    for rows in (None, torch.arange(9)):
        check(gathered(path, mask=mask, rows=rows), path[:4], path[5:])


def test_rows_join_across_batches_and_across_what_is_merged():
    path = walk(9, 3)
    number = torch.arange(9)
    first, second = Increments(), Increments()
    for found, order in ((first, [0, 1, 5, 8]), (second, [7, 6, 3, 2, 4])):
        for i in order:
            found.update(Activations(path[i : i + 1], FLAT, rows=number[i : i + 1]))
    check(first, path[:2], path[5:6], path[8:])
    check(second, path[2:5], path[6:8])
    first.merge(second)
    check(first, path)


def test_rows_without_a_number_follow_in_order_of_arrival():
    path, other = walk(10, 3), walk(4, 3, seed=1)
    found = Increments()
    for part in path.split(3):
        found.update(Activations(part, FLAT))
    check(found, path)
    # Nobody knows which came first, so two streams are two paths; each can be the one that stays.
    one, two = gathered(path), gathered(other)
    one.merge(two)
    check(one, path, other)
    fresh = Increments()
    fresh.merge(one)
    check(fresh, path, other)


@st.composite
def streams(draw: st.DrawFn) -> tuple[int, int, list[list[int]], list[int], float, int]:
    """(rows, width, batches of row numbers in any order, merges, offset, seed)."""
    n = draw(st.integers(2, 40))
    cuts = sorted(draw(st.sets(st.integers(1, n - 1), max_size=8)))
    batches = [list(range(a, b)) for a, b in zip([0, *cuts], [*cuts, n], strict=True)]
    if draw(st.booleans()):  # shards: every k-th row
        k = draw(st.integers(2, 4))
        batches = [b[i::k] for b in batches for i in range(k) if b[i::k]]
    batches = draw(st.permutations(batches))
    merges = draw(st.lists(st.integers(0, 10**6), min_size=len(batches), max_size=len(batches)))
    offset = draw(st.sampled_from([0.0, 1e3]))
    return n, draw(st.integers(1, 12)), batches, merges, offset, draw(st.integers(0, 99))


@settings(max_examples=150, deadline=None)
@given(streams(), st.sampled_from([FLAT, IMAGE]), st.booleans())
def test_every_order_of_rows_and_merge_tree_equals_one_shot(stream, axes, through_state):
    n, width, batches, merges, offset, seed = stream
    values = walk(n, *((width,) if axes == FLAT else (width, 1, 2)), seed=seed, start=offset)
    with pytest.MonkeyPatch.context() as patch:
        shrink(patch)
        parts = []
        for batch in batches:
            index = torch.tensor(batch)
            parts.append(gathered(values[index], axes, rows=index))
        while len(parts) > 1:
            pick = merges.pop()
            a = parts.pop(pick % len(parts))
            b = parts.pop(pick // 7 % len(parts))
            if through_state:
                b.load_state(a.fresh().state() | b.state())
            a.merge(b)
            parts.append(a)
        check(parts[0], Activations(values, axes).matrix("features"))


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.integers(1, 5), min_size=1, max_size=6),
    st.integers(1, 8),
    st.integers(1, 9),
    st.integers(0, 99),
    st.permutations(range(6)),
)
def test_any_split_and_order_of_texts_equals_one_shot(sizes, time, width, seed, order):
    texts = walk(time, sum(sizes), width, seed=seed).transpose(0, 1)
    mask = torch.rand(texts.shape[:2], generator=torch.Generator().manual_seed(seed)) < 0.8
    whole = gathered(texts, TEXT, mask=mask)
    with pytest.MonkeyPatch.context() as patch:
        shrink(patch)
        pieces = list(zip(texts.split(sizes), mask.split(sizes), strict=True))
        total = Increments()
        for i in [i for i in order if i < len(pieces)]:
            total.merge(gathered(pieces[i][0], TEXT, mask=pieces[i][1]))
        assert (total.n_steps, total.n_paths) == (whole.n_steps, whole.n_paths)
        if total.n_steps:
            expected = whole.second_moment()
            error = (total.second_moment() - expected).abs().max()
            assert error <= 1e-10 * expected.abs().max()
            assert total.path_energies() == pytest.approx(whole.path_energies(), rel=1e-9)
            assert total.total_variance() == pytest.approx(whole.total_variance(), rel=1e-10)


@pytest.mark.parametrize("steps", [3, 19, 20, 21, 60])
def test_both_regimes_and_the_border_between_them(steps):
    path = walk(steps + 1, 20)
    with pytest.MonkeyPatch.context() as patch:
        shrink(patch)
        parts = [gathered(path[:2], rows=torch.arange(2))]
        parts.append(gathered(path[2:], rows=torch.arange(2, steps + 1)))
        parts[1].merge(parts[0])
        check(parts[1], path)


def test_wide_and_short_paths_need_no_square_matrix():
    path = torch.randn(5, 100_000, generator=torch.Generator().manual_seed(0))
    found = gathered(path)
    held = sum(t.numel() * t.element_size() for t in found.state().values())
    assert held < 10 * path.numel() * 8
    assert float(found.eigenvalues().sum()) == pytest.approx(
        np.square(np.diff(path.double().numpy(), axis=0)).sum(), rel=1e-12
    )


# -- precision ---------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_low_precision_input_is_read_without_further_loss(dtype):
    path = (walk(30, 5) + 100).to(dtype)
    check(gathered(path), path.double())


def test_float32_products_are_near_and_keep_float32():
    path = walk(300, 5).float()
    found = gathered(path, precision="float32")
    assert found.state()["steps.rows"].dtype == torch.float32
    expected = scatter(path.double().numpy())
    assert np.abs(found.second_moment().numpy() - expected).max() < 1e-5 * np.abs(expected).max()


# -- state, and what is refused ----------------------------------------------------------------


@pytest.mark.parametrize("numbered", [True, False])
def test_the_state_round_trips_and_goes_on(numbered):
    path = walk(60, 4)
    number = torch.arange(60) if numbered else None
    whole = gathered(path[:20], rows=None if number is None else number[:20])
    resumed = Increments()
    resumed.load_state(whole.state())
    for found in (whole, resumed):
        rest = None if number is None else number[20:]
        found.update(Activations(path[20:], FLAT, rows=rest))
    assert whole.state().keys() == resumed.state().keys()
    assert all(torch.equal(v, resumed.state()[k]) for k, v in whole.state().items())
    check(resumed, path)


def test_an_empty_state_round_trips():
    empty = Increments()
    empty.load_state(Increments().state())
    assert (empty.n_samples, empty.n_steps, empty.n_paths) == (0, 0, 0)


def test_merging_leaves_the_other_as_it_was_and_nothing_is_kept_by_reference():
    path = walk(12, 3)
    batch = path[6:].clone()
    other = gathered(batch, rows=torch.arange(6, 12))
    batch.zero_()
    before = {k: v.clone() for k, v in other.state().items()}
    found = gathered(path[:6], rows=torch.arange(6))
    found.merge(other)
    found.update(Activations(path[:1], FLAT, rows=torch.tensor([12])))
    assert all(torch.equal(v, before[k]) for k, v in other.state().items())
    other.merge(gathered(path[:6], rows=torch.arange(6)))
    check(other, path)


def test_rows_that_wait_too_long_are_refused(monkeypatch):
    monkeypatch.setattr(runs, "MAX_EDGE_BYTES", 20 * 3 * 8)
    path = walk(100, 3)
    in_order = Increments()
    for part, number in zip(path.split(5), torch.arange(100).split(5), strict=True):
        in_order.update(Activations(part, FLAT, rows=number))
    check(in_order, path)
    with pytest.raises(DataError, match="wait for their neighbours"):
        gathered(path[::4], rows=torch.arange(0, 100, 4))


def three(**options) -> Increments:
    return gathered(walk(3, 4), rows=torch.arange(3), **options)


def damaged(**changes) -> None:
    Increments().load_state({**three().state(), **changes})


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: Increments("time"), DataError, "path is"),
        (lambda: Increments(positions="all"), DataError, "positions is"),
        (lambda: Increments("position", "features"), DataError, "no path along them"),
        (lambda: Increments(precision="half"), DataError, "precision is"),
        (lambda: gathered(walk(3, 4), path="position"), DataError, "one position axis"),
        (lambda: gathered(walk(3, 4, 2, 2), IMAGE, path="position"), DataError, "path='rows'"),
        (lambda: Increments().eigenvalues(), DataError, "among the 0 that came"),
        (lambda: gathered(walk(1, 4)).second_moment(), DataError, "among the 1 that came"),
        (
            lambda: gathered(walk(9, 4)[::2], rows=torch.arange(0, 9, 2)).eigenvalues(),
            DataError,
            "every n-th row",
        ),
        (lambda: three().update(Activations(walk(2, 5), FLAT)), DataError, "width 5"),
        (
            lambda: three().update(Activations(walk(2, 4), FLAT)),
            DataError,
            "with and without a number",
        ),
        (
            lambda: gathered(walk(2, 4)).update(
                Activations(walk(2, 4), FLAT, rows=torch.arange(7, 9))
            ),
            DataError,
            "with and without a number",
        ),
        (lambda: three().merge(gathered(walk(2, 4))), DataError, "without a number"),
        (lambda: three().merge(three()), DataError, "row 0 of the data came twice"),
        (
            lambda: three().update(Activations(walk(2, 4), FLAT, rows=torch.arange(1, 3))),
            DataError,
            "row 1 of the data came twice",
        ),
        (lambda: three().merge(Increments("rows")), StateError, "cannot be merged"),
        (
            lambda: gathered(walk(3, 2, 4), TEXT).merge(gathered(walk(3, 4))),
            DataError,
            "paths along rows cannot be merged with position",
        ),
        (
            lambda: gathered(walk(3, 2, 4), TEXT).update(Activations(walk(3, 4), FLAT)),
            DataError,
            "follows ones along position",
        ),
        (
            lambda: gathered(
                walk(2, 2, 4), TEXT, torch.tensor([[True, False], [True, True]]), path="rows"
            ),
            DataError,
            "partly masked",
        ),
        (
            lambda: gathered(walk(3, 2, 1, 3), IMAGE, positions="samples").merge(
                gathered(walk(3, 2, 1, 2), IMAGE, positions="samples")
            ),
            DataError,
            "inputs of one size",
        ),
        (lambda: damaged(counts=torch.tensor([0])), StateError, "damaged"),
        (lambda: damaged(counts=torch.tensor([7, 3, 0, -1])), StateError, "damaged"),
        (lambda: damaged(mean=torch.zeros(5)), StateError, "differ in width"),
        (lambda: damaged(runs=torch.tensor([[0, 1], [1, 2]])), StateError, "damaged|touch|twice"),
        (
            lambda: Increments().load_state(
                {k: v for k, v in three().state().items() if k.startswith("steps.")}
            ),
            StateError,
            "have no points",
        ),
        (lambda: Increments().load_state({}), StateError, "damaged"),
    ],
)
def test_bad_input_is_one_clear_sentence(make, error, message):
    with pytest.raises(error, match=message):
        make()
