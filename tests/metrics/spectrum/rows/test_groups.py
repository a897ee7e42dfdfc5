"""How many independent samples correlated ones are worth: planted, and measured in a stream."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.linalg import toeplitz
from scipy.signal import lfilter

from polycode_plugins.activations import Activations
from polycode_plugins.errors import DataError, StateError
from polycode_plugins.metrics import Spectrum
from polycode_plugins.metrics.accumulators import Covariance
from polycode_plugins.metrics.spectrum.rows import groups as groups_
from polycode_plugins.metrics.spectrum.rows.dependence import RowDependence
from polycode_plugins.metrics.spectrum.rows.groups import RowGroups, ranks_of

AXES = ("batch", "position", "feature")
SCALE = np.arange(1, 121) ** -0.5


def gathered(values: np.ndarray, batch: int = 10**6, **fields) -> RowGroups:
    groups = RowGroups()
    tensor = torch.from_numpy(values)
    fields.setdefault("rows", torch.arange(len(values)))
    for start in range(0, len(values), batch):
        part = slice(start, start + batch)
        given = {k: None if v is None else v[part] for k, v in fields.items()}
        groups.update(Activations(tensor[part], AXES, **given))
    return groups


def normal(documents: int, length: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((documents, length, 120)) * SCALE


def autoregression(documents: int, length: int, lag: float, seed: int = 0) -> np.ndarray:
    return lfilter([np.sqrt(1 - lag**2)], [1, -lag], normal(documents, length + 60, seed), axis=1)[
        :, 60:
    ]


def mean_of(draw, seeds: int = 6) -> list[RowDependence]:
    return [gathered(draw(seed)).dependence() for seed in range(seeds)]


def test_independent_samples_are_worth_themselves():
    found = [gathered(normal(100, 20, s)).dependence() for s in range(20)]
    assert all(f.effective(2000) == 2000 for f in found)
    assert np.mean([f.square for f in found]) == pytest.approx(1.0, abs=0.01)
    assert np.std([f.square for f in found]) < 2 * np.mean([f.error for f in found])


@pytest.mark.parametrize("copies", [2, 5])
def test_repeated_tokens_count_once(copies):
    found = mean_of(lambda s: normal(60, 12, s).repeat(copies, axis=1))
    assert np.mean([f.correlation.square for f in found]) == pytest.approx(copies, rel=0.03)
    assert np.mean([f.correlation.cube for f in found]) == pytest.approx(copies**2, rel=0.08)


@pytest.mark.parametrize("lag", [0.5, 0.8])
def test_moments_of_an_autoregression(lag):
    correlation = toeplitz(lag ** np.arange(60))
    square = np.square(correlation).sum() / 60
    cube = np.trace(correlation @ correlation @ correlation) / 60
    found = mean_of(lambda s: autoregression(80, 60, lag, s))
    assert np.mean([f.correlation.square for f in found]) == pytest.approx(square, rel=0.03)
    assert np.mean([f.correlation.cube for f in found]) == pytest.approx(cube, rel=0.1)


def test_heavy_tails_are_no_correlation_but_show():
    rng = np.random.default_rng(0)
    student = normal(50, 40) / np.sqrt(rng.chisquare(8, size=(50, 40, 1)) / 6)
    found = gathered(student).dependence()
    assert found.correlation.independent
    assert found.tails == pytest.approx(1.5, abs=0.2)
    assert found.widest.square > 1.2
    assert found.widest.common == (0.0,)  # spread no more than by an autoregression
    assert found.widest.lag[0] > 0.3
    laplace = rng.laplace(size=(50, 40, 120)) / np.sqrt(2) * SCALE
    assert gathered(laplace).dependence().correlation.independent


def test_rows_of_one_sample_are_never_correlated_however_heavy_their_tails():
    rng = np.random.default_rng(0)
    for n in (100, 400):
        values = normal(n, 1) / np.sqrt(rng.chisquare(1, size=(n, 1, 1)))
        found = gathered(values).dependence()
        assert found.correlation.independent
        assert found.tails > 2


def test_a_few_documents_that_hold_most_of_the_correlation_are_found():
    values = normal(100, 20)
    values[:3] = values[:3, :1]  # three documents of one token, repeated
    found = gathered(values).dependence()
    # 97% of the samples are worth 1 each, and 3% are 20 times the same; with so much weight in few
    # documents the sketch measures them partly against themselves.
    assert 1.1 < found.correlation.square < 0.97 + 0.03 * 20
    assert found.error > 0.05
    assert found.correlation.doubts


def test_windows_of_one_document_belong_together():
    values = np.repeat(normal(60, 10), 3, axis=0)  # the same window three times
    alone = gathered(values).dependence()
    together = gathered(values, documents=torch.arange(180) // 3).dependence()
    assert together.correlation.square == pytest.approx(3, rel=0.05)
    assert alone.correlation.square < 1.5


def test_any_batches_and_merges_give_the_same():
    values = autoregression(90, 16, 0.6)
    whole = gathered(values)
    batched = gathered(values, batch=7)
    left, right = RowGroups(), RowGroups()
    for at in range(90):
        side = left if at % 3 else right
        rows = torch.tensor([at])
        side.update(Activations(torch.from_numpy(values[at : at + 1]), AXES, rows=rows))
    right.merge(left)
    right.merge(RowGroups())
    for other in (batched, right):
        assert other.n_samples == whole.n_samples
        for name, tensor in whole._folded().state().items():
            found = other._folded().state()[name]
            assert torch.allclose(found.double(), tensor.double(), atol=1e-10), name
    assert right.dependence().square == pytest.approx(whole.dependence().square, rel=1e-9)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_rows_without_numbers_fall_into_the_same_groups_however_they_come(dtype):
    values = torch.from_numpy(autoregression(90, 16, 0.6)).to(dtype)

    def taken(part: torch.Tensor) -> RowGroups:
        groups = RowGroups()
        groups.update(Activations(part, AXES))
        return groups

    whole, total = taken(values), RowGroups()
    pieces = [taken(part) for part in values.split(3)]  # fewer documents than tell anything
    assert not any(piece.dependence().measured for piece in pieces)
    for piece in pieces[::-1]:
        total.merge(piece)
    resumed = RowGroups()
    for part in values.split(7):
        revived = RowGroups()
        revived.load_state(resumed.state())
        revived.update(Activations(part, AXES))
        resumed = revived
    numbered = gathered(values.double().numpy()).dependence().square
    for groups in (whole, total, resumed):
        assert groups.n_samples == 90 * 16
        assert groups.dependence().square == pytest.approx(whole.dependence().square, rel=1e-5)
        assert groups.dependence().square == pytest.approx(numbered, rel=0.1)


def test_merged_pieces_are_dealt_out_like_samples_that_came():
    values = torch.from_numpy(normal(100, 100))
    total = RowGroups()
    for part in values.split(5):
        piece = RowGroups()
        piece.update(Activations(part, AXES))
        total.merge(piece)
    assert len(total.state()["rows"]) <= 8192  # memory does not grow with the pieces
    assert total.dependence().correlation.independent


def test_sparse_rows_without_numbers_are_told_apart():
    groups = RowGroups()
    groups.update(Activations(torch.eye(2000), ("batch", "feature")))
    held = torch.bincount(groups.state()["row_documents"], minlength=64)
    assert float(((held - 31.25) ** 2 / 31.25).mean()) < 2  # as evenly as chance deals them


def test_single_samples_without_numbers_are_known_by_their_values():
    values = torch.from_numpy(normal(400, 1)[:, 0])
    found = []
    for order in (torch.arange(400), torch.arange(399, -1, -1)):
        groups = RowGroups()
        for part in values[order].repeat(3, 1).split(70):
            groups.update(Activations(part, ("batch", "feature")))
        found.append(groups.dependence())
    assert found[0].square == pytest.approx(found[1].square, rel=1e-9)
    assert found[0].square == pytest.approx(3, rel=0.1)  # what comes again is no new document


def test_rows_that_come_again_are_known_in_batches_and_states():
    values = torch.from_numpy(normal(200, 1)[:, 0])
    again = values[torch.arange(200).repeat(3)]
    whole, parts = RowGroups(), RowGroups()
    whole.update(Activations(again, ("batch", "feature")))
    for part in again.split(70):
        revived = RowGroups()
        revived.load_state(parts.state())
        parts = revived
        parts.update(Activations(part, ("batch", "feature")))
    assert parts.dependence().square == pytest.approx(whole.dependence().square, rel=1e-6)
    assert whole.dependence().square == pytest.approx(3, rel=0.1)
    once = RowGroups()
    once.update(Activations(values, ("batch", "feature")))
    assert once.dependence().square == pytest.approx(1, abs=0.2)


def test_rows_without_numbers_that_differ_in_late_values_only_are_not_one():
    generator = np.random.default_rng(0)
    values = generator.standard_normal((3000, 120))
    silent = generator.random(3000) < 0.4
    values[silent, :64] = 0  # a document of its own, were only the first values looked at
    groups = RowGroups()
    groups.update(Activations(torch.from_numpy(values), ("batch", "feature")))
    assert groups.state()["row_documents"][silent].unique().numel() == 64
    numbered = gathered(values[:, None]).dependence()
    assert groups.dependence().tails == pytest.approx(numbered.tails, abs=0.05)


def test_the_state_comes_back():
    first, second = autoregression(160, 60, 0.6), autoregression(50, 16, 0.6, seed=1)
    groups = gathered(first, batch=30)
    assert {"rows", "means"} <= set(groups.state())  # some dealt out, some not
    revived = RowGroups()
    revived.load_state(groups.state())
    assert revived.dependence() == groups.dependence()
    for one in (groups, revived):
        one.update(Activations(torch.from_numpy(second), AXES, rows=torch.arange(160, 210)))
    assert revived.dependence() == groups.dependence()
    assert revived.n_samples == groups.n_samples == 10400
    empty = RowGroups()
    empty.load_state(RowGroups().state())
    assert empty.n_samples == 0
    for damage in ({}, {"counts": torch.ones(3)}, groups.state() | {"means": torch.zeros(2, 2)}):
        with pytest.raises(StateError):
            RowGroups().load_state(damage)


def test_masked_samples_and_far_means_do_not_count():
    values = normal(60, 20) + 1000 * (np.arange(120) == 3)
    mask = torch.rand(60, 20, generator=torch.Generator().manual_seed(0)) < 0.7
    shown = np.where(mask.numpy()[:, :, None], values, 1e6)
    found = gathered(shown, mask=mask)
    assert found.n_samples == int(mask.sum())
    assert found.dependence().square == pytest.approx(1.0, abs=0.05)


@pytest.mark.parametrize("scale", [1e-25, 1e25])
def test_values_whose_squares_do_not_fit_float32_are_measured(scale):
    values = normal(60, 12).repeat(3, axis=1)
    found = gathered((values * scale).astype(np.float32)).dependence()
    assert found.square == pytest.approx(gathered(values).dependence().square, rel=1e-4)


def test_float32_is_enough_beside_a_far_mean():
    values = (autoregression(60, 40, 0.7) + 1000 * (np.arange(120) == 3)).astype(np.float32)
    exact = gathered(values.astype(np.float64)).dependence()
    assert gathered(values).dependence().square == pytest.approx(exact.square, rel=1e-4)


def test_float32_is_enough_beside_a_few_rows_that_are_far_from_all_others():
    values = autoregression(200, 32, 0.9)
    values[:, 0] += 3e3 * np.random.default_rng(1).standard_normal(120)
    exact = gathered(values).dependence()
    found = gathered(values.astype(np.float32)).dependence()
    assert found.square == pytest.approx(exact.square, rel=1e-3)
    assert found.tails == pytest.approx(exact.tails, rel=1e-3)


def test_autocast_around_it_changes_nothing():
    values = torch.from_numpy((autoregression(60, 40, 0.7) + 1000).astype(np.float32))
    plain = Spectrum().measure(values)
    with torch.autocast("cpu", torch.bfloat16):
        found = Spectrum().measure(values)
    assert found.effective_samples == plain.effective_samples < 2000
    assert found.exponent == plain.exponent


def test_positions_as_features_take_whole_rows():
    groups = RowGroups("features")
    mask = torch.ones(80, 4, dtype=torch.bool)
    mask[5] = False
    values = torch.from_numpy(normal(80, 4))
    groups.update(Activations(values, AXES, mask=mask, rows=torch.arange(80)))
    assert groups.n_samples == 79
    assert groups.dependence().correlation.independent


@pytest.mark.parametrize(("documents", "length"), [(5, 100), (20, 2), (1, 500)])
def test_too_little_is_said_to_be_unknown(documents, length):
    found = gathered(normal(documents, length)).dependence()
    assert not found.measured
    assert found.effective(100) == 100


@pytest.mark.parametrize(
    "values", [np.ones((40, 8, 5)), np.random.default_rng(0).random((40, 8, 1))]
)
def test_constants_and_single_features_are_unknown(values):
    assert not gathered(values).dependence().measured


def test_one_document_that_holds_most_samples_leaves_it_unknown():
    found = gathered(normal(100, 10), documents=(torch.arange(100) - 80).clamp_min(0)).dependence()
    assert found.groups >= 8
    assert not found.measured


def test_widths_must_agree():
    groups = gathered(normal(5, 5))
    with pytest.raises(DataError, match="width 3 follow"):
        groups.update(Activations(torch.ones(2, 2, 3), AXES))
    with pytest.raises(StateError, match="cannot be merged"):
        groups.merge(RowGroups("features"))


def test_ranks_of_directions_do_not_hang_on_the_order_of_rows():
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(600, 100, generator=generator, dtype=torch.float64)
    rows *= torch.arange(1.0, 101) ** -0.75
    directions = torch.randn(100, 8, generator=generator, dtype=torch.float64)
    found = []
    for order in (torch.arange(600), torch.randperm(600, generator=generator)):
        covariance = Covariance()
        for part in rows[order].split(50):
            covariance.update(Activations(part, ("batch", "feature")))
        ranks, weights = ranks_of(covariance, directions)
        assert weights.sum(axis=1) == pytest.approx(1.0)
        found.append((np.log(ranks) * weights).sum(axis=1))
    assert found[0] == pytest.approx(found[1], rel=1e-9)


def test_steps_and_all_eigenvectors_tell_the_same_ranks(monkeypatch):
    generator = torch.Generator().manual_seed(1)
    values = torch.randn(600, 100, generator=generator, dtype=torch.float64)
    covariance = Covariance()
    covariance.update(Activations(values * torch.arange(1.0, 101) ** -0.75, ("batch", "feature")))
    directions = torch.randn(100, 8, generator=generator, dtype=torch.float64)
    exact = ranks_of(covariance, directions)
    monkeypatch.setattr(groups_, "EXACT", 50)
    steps = ranks_of(covariance, directions)
    means = [(np.log(ranks) * weights).sum(axis=1) for ranks, weights in (exact, steps)]
    assert exact[0].shape == (1, 100)
    assert means[1] == pytest.approx(means[0], abs=0.05)


def test_batches_of_either_precision_go_into_the_same_groups():
    values = autoregression(90, 16, 0.6)
    groups = RowGroups()
    for at, dtype in ((0, torch.float64), (30, torch.float32), (60, torch.float64)):
        part = torch.from_numpy(values[at : at + 30]).to(dtype)
        groups.update(Activations(part, AXES, rows=torch.arange(at, at + 30)))
    assert groups.dependence().square == pytest.approx(
        gathered(values).dependence().square, rel=1e-5
    )


def test_groups_that_have_samples_are_counted_with_one_sample_each():
    groups = gathered(normal(12, 1))
    filled = groups._folded().state()["counts"][:64]
    assert 0 < groups.dependence().groups == int((filled > 0).sum()) <= 12
    assert int(filled.max()) <= 3


def test_what_was_dealt_out_is_merged_as_well():
    values = autoregression(320, 30, 0.6)
    whole, rows = gathered(values), torch.arange(320)
    first = gathered(values[:280], rows=rows[:280])
    second = gathered(values[280:], rows=rows[280:])
    first._fold()  # as more samples than are kept would make it
    second.merge(first)
    assert second.n_samples == 320 * 30
    assert second.dependence().square == pytest.approx(whole.dependence().square, rel=1e-9)
