"""The spectrum metric as a whole: documents, odd data, odd precisions, wide layers, files."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from gaussian_spectra import power_law
from scipy.signal import lfilter

import polycode_plugins as pc
from polycode_plugins.activations import Activations, Site
from polycode_plugins.errors import DataError
from polycode_plugins.metrics import Capacity, Covariance, Spectrum, SpectrumResult, decomposition
from polycode_plugins.runs.gathering import Statistics
from polycode_plugins.runs.measure import measure

AXES = ("batch", "position", "feature")
WIDTH = 100


def rows(n: int, width: int = WIDTH, seed: int = 0, exponent: float = 1.0) -> np.ndarray:
    rng = np.random.default_rng([seed, n])
    return rng.standard_normal((n, width)) * np.sqrt(power_law(width, exponent))


def measured(values: np.ndarray, **options) -> SpectrumResult:
    return Spectrum(**options).measure(values)


def in_documents(values: np.ndarray, **options) -> SpectrumResult:
    batch = Activations(torch.from_numpy(values), AXES, documents=torch.arange(len(values)))
    return Spectrum(**options).measure(batch)


def test_independent_samples_count_in_full():
    result = measured(rows(600))
    assert result.effective_samples == result.n_samples == 600
    assert result.effective_from == "documents"
    assert result.exponent == pytest.approx(1, abs=0.06)
    assert result.participation_ratio == pytest.approx(
        power_law(100, 1).sum() ** 2 / 1.635, rel=0.1
    )
    assert result.total_variance == pytest.approx(power_law(100, 1).sum(), rel=0.1)
    assert result.explained_variance[-1] == pytest.approx(1)


def planted(kind: str, seed: int) -> np.ndarray:
    """[documents, tokens, 300] of exponent 1, whose tokens are correlated."""
    rng, scale = np.random.default_rng([7, seed]), np.sqrt(power_law(300, 1.0))
    if kind == "repeated":
        return rng.standard_normal((60, 8, 300)).repeat(3, axis=1) * scale
    noise = rng.standard_normal((40, 60 + 25, 300))
    return lfilter([0.75**0.5], [1, -0.5], noise, axis=1)[:, 60:] * scale


@pytest.mark.parametrize(("kind", "share"), [("repeated", 1 / 3), ("autoregression", 0.62)])
def test_correlated_tokens_cost_the_exponent_its_width_and_not_its_truth(kind, share):
    found = [in_documents(planted(kind, seed)) for seed in range(8)]
    counts = [r.effective_samples / r.n_samples for r in found]
    assert np.mean(counts) == pytest.approx(share, rel=0.06)
    errors = np.array([r.exponent - 1 for r in found])
    assert abs(errors.mean()) < 0.012
    assert np.mean([r.interval[0] <= 1 <= r.interval[1] for r in found]) >= 0.85
    assert np.mean([r.power_law.broken for r in found]) <= 0.25
    true = power_law(300, 1).sum() ** 2 / np.square(power_law(300, 1)).sum()
    assert np.mean([r.participation_ratio for r in found]) == pytest.approx(true, rel=0.04)
    # The fault this guards against: the same tokens, a document each. Equal ones are known.
    loose = [measured(planted(kind, seed).reshape(-1, 300)) for seed in range(2)]
    if kind == "repeated":
        counts = [r.effective_samples / r.n_samples for r in loose]
        assert np.mean(counts) == pytest.approx(share, rel=0.06)
        return
    assert all(r.power_law.broken or r.interval[0] > 1 for r in loose)
    assert np.mean([r.exponent for r in loose]) - 1 > 4 * abs(errors.mean())


def test_heavy_tailed_rows_are_not_silent():
    rng = np.random.default_rng(0)
    for degrees in (1, 4):
        tailed = rows(400) / np.sqrt(rng.chisquare(degrees, size=(400, 1)) / degrees)
        result = measured(tailed)
        assert result.power_law.broken or result.power_law.irregular
        assert result.effective_samples == 400
    extreme = measured(rows(70) / np.sqrt(rng.chisquare(1, size=(70, 1))))
    assert extreme.interval is None
    assert extreme.power_law.irregular
    assert "too heavy-tailed" in extreme.power_law.describe()
    cauchy = measured(rng.standard_cauchy((1000, 100)) * np.sqrt(power_law(100, 1.0)))
    assert cauchy.power_law.broken
    assert cauchy.power_law.irregular
    assert cauchy.tails is not None
    assert cauchy.tails > 5


@pytest.mark.parametrize("copies", [2, 4])
def test_duplicated_rows_do_not_pass_for_new_ones(copies):
    result = measured(np.repeat(rows(400), copies, axis=0))
    assert result.effective_samples == pytest.approx(400, rel=0.05)
    assert result.tails == pytest.approx(1, rel=0.05)
    assert result.interval[0] < 1 < result.interval[1]
    assert not result.power_law.broken


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_low_precision_input_changes_what_it_must_and_no_more(dtype):
    values = torch.from_numpy(rows(600))
    exact, rounded = measured(values), measured(values.to(dtype))
    assert rounded.exponent == pytest.approx(exact.exponent, abs=0.003)
    again = measured(values.to(dtype).double())
    assert rounded.exponent == pytest.approx(again.exponent, abs=1e-9)


def test_one_coordinate_far_from_zero():
    values = rows(600)
    values[:, 3] += 1000
    plain = measured(rows(600))
    assert measured(values.astype(np.float32)).exponent == pytest.approx(plain.exponent, abs=1e-4)


@pytest.mark.parametrize("scale", [1e-150, 1e-20, 1e20, 1e150])
def test_the_unit_does_not_matter(scale):
    plain, scaled = measured(rows(150)), measured(rows(150) * scale)
    assert scaled.exponent == pytest.approx(plain.exponent, abs=1e-6)
    assert scaled.effective_rank == pytest.approx(plain.effective_rank, rel=1e-9)


def test_rank_deficient_activations_are_fitted_over_the_rank_they_have():
    mixed = rows(1000, 40) @ np.random.default_rng(3).standard_normal((40, 100))
    result = measured(mixed)
    assert result.power_law.ranks == (11, 40)
    dead = rows(1000) * (np.arange(100) < 60)
    result = measured(dead, ranks=(3, 100))
    assert result.power_law.ranks == (3, 60)
    assert result.interval[0] < 1 < result.interval[1]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (rows(1), "at least 2 samples"),
        (rows(2), "at least 3 samples"),
        (rows(8), r"pass for example ranks=\(1, 7\)"),
        (rows(100, 1), "leave the site out"),
        (rows(100, 4), "leave the site out"),
        (np.ones((50, 20)), "constant over 50"),
        (np.full((50, 20), 1000.1, np.float32), "constant over 50"),
        (np.zeros((50, 20)), "constant"),
        (rows(50) * np.inf, "NaN or infinite"),
    ],
)
def test_what_has_no_spectrum_is_one_clear_sentence(values, message):
    with pytest.raises(DataError, match=message):
        measured(values)


def test_few_samples_give_a_wide_interval_and_say_what_was_assumed():
    result = measured(rows(20))
    assert result.effective_from == "not measured"
    assert result.tails is None
    assert result.interval[1] - result.interval[0] > 0.4
    assert result.interval[0] < 1 < result.interval[1]


def test_intervals_of_one_text_say_that_they_take_its_tokens_for_independent():
    one = np.asarray(rows(400))[None]
    said = [str(w) for w in Spectrum().measure(one).warnings]
    assert any("take them for independent and are too narrow" in w for w in said)
    many = np.asarray(rows(800)).reshape(40, 20, -1)
    assert not any("for independent" in str(w) for w in Spectrum().measure(many).warnings)


def test_a_wide_layer_needs_no_matrix_of_its_width(monkeypatch):
    monkeypatch.setattr(Covariance, "_fold", None)
    found = [measured(rows(40, 20_000, seed)) for seed in range(4)]
    for result in found:
        assert result.width == 20_000
        assert result.eigenvalues.shape == (39,)
    assert sum(r.interval[0] < 1 < r.interval[1] for r in found) >= 3


def test_spectrum_and_capacity_decompose_once(monkeypatch):
    calls = []
    real = decomposition.eigen
    monkeypatch.setattr(decomposition, "eigen", lambda *a, **k: calls.append(1) or real(*a, **k))
    metrics = [Spectrum(), Capacity()]
    statistics = Statistics(metrics, [Site("x")])
    statistics.receive("x", Activations(torch.from_numpy(rows(300)), ("batch", "feature")))
    spectrum, capacity = (statistics.compute("x", m) for m in metrics)
    assert len(calls) == 1
    assert np.array_equal(spectrum.eigenvalues, capacity.eigenvalues)


def test_eigenvectors_come_with_their_eigenvalues():
    values = rows(500)
    result = measured(values, eigenvectors=3)
    assert result.eigenvectors.shape == (3, 100)
    variances = ((values - values.mean(axis=0)) @ result.eigenvectors.T).var(axis=0, ddof=1)
    assert np.allclose(variances, result.eigenvalues[:3])


@pytest.mark.parametrize("fit", ["debiased", "huber", "stringer", "alpha-req"])
def test_results_survive_json_and_say_what_they_are(fit):
    result = measured(rows(300), fit=fit)
    back = SpectrumResult.from_dict(json.loads(json.dumps(result.to_dict())))
    assert back.scalars() == result.scalars()
    assert np.array_equal(back.eigenvalues, result.eigenvalues)
    assert result.slope == -result.exponent
    assert (result.interval is None) == (fit != "debiased")
    assert result.scalars()["effective_samples"] == 300
    assert fit in result.power_law.describe() or fit == "debiased"
    assert result.plot().get_xscale() == "log"


@pytest.mark.parametrize("values", [torch.ones(5), np.ones(5), torch.tensor(1.0), [1.0, 2.0]])
def test_one_list_of_numbers_is_no_matrix(values):
    with pytest.raises(DataError, match=r"give a matrix \[samples, features\]"):
        Spectrum().measure(values)
    with pytest.raises(DataError, match=r"^'a': .*give a matrix"):
        measure({"a": values})


@pytest.mark.parametrize("fit", ["debiased", "huber"])
def test_two_samples_are_counted_as_two(fit):
    with pytest.raises(DataError, match="needs at least 3 samples and 2 came"):
        Spectrum(fit=fit, ranks=(1, None)).measure([[1.0, 2.0], [3.0, 4.0]])


@pytest.mark.parametrize("kind", [Spectrum, Capacity])
@pytest.mark.parametrize("ranks", [(5, 1), (0, 9), (None, 9), (1.0, 9), (1,), (1, 2, 3), 7])
def test_ranks_that_are_no_range_are_refused_when_they_are_given(kind, ranks):
    with pytest.raises(pc.DataError, match=r"are no range; give first and last rank"):
        kind(ranks=ranks)


def test_ranks_too_few_for_a_fit_are_refused_when_they_are_given():
    with pytest.raises(pc.DataError, match=r"ranks \(3, 6\) are 4 and a fit needs 5.*\(3, None\)"):
        Spectrum(ranks=(3, 6))
    assert Spectrum(ranks=(3, 7)).ranks == (3, 7)


def test_one_fit_serves_all_metrics_of_a_site():
    from polycode_plugins.metrics import Capacity
    from polycode_plugins.metrics.spectrum.law import power_law

    batch = torch.from_numpy(rows(400, 80, seed=3))
    spectrum = Spectrum().measure(batch)
    before = power_law._fitted.cache_info()
    capacity = Capacity().measure(batch)
    after = power_law._fitted.cache_info()
    assert (after.hits, after.misses) == (before.hits + 1, before.misses)
    assert capacity.power_law.fit == spectrum.power_law


def test_the_grade_and_the_domain_stand_in_the_table():
    result = measured(rows(900, 120))
    scalars = result.scalars()
    assert scalars["domain_first"] == result.power_law.domain.first
    assert scalars["domain_exponent_low"] <= scalars["domain_exponent"]
    assert result.power_law.grade.startswith("one law over ranks")
    assert SpectrumResult.from_dict(result.to_dict()).power_law == result.power_law


@pytest.mark.parametrize(("scale", "told"), [(5.0, True), (20.0, False)])
def test_an_interval_as_broad_as_all_exponents_is_none(scale, told):
    """One row that rules made it reach from 0 to 6.4, beside "one power law"."""
    rng = np.random.default_rng(0)
    values = rng.standard_normal((100, 16, 100)) * np.arange(1, 101) ** -0.5
    values[3, 0] += scale * rng.standard_normal(100) / 10
    axes = ("batch", "position", "feature")
    batch = Activations(torch.from_numpy(values), axes, documents=torch.arange(100))
    found = Spectrum().measure(batch).power_law
    assert (found.interval is not None) == told
    assert found.verdict == ("one power law" if told else "irregular")
    assert ("too heavy-tailed" in found.describe()) != told
