"""A planted direction that few rows make is found, named, and taken out."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from gaussian_spectra import power_law

import polycode_plugins as pc
from polycode_plugins.activations import Activations, Site
from polycode_plugins.errors import DataError
from polycode_plugins.metrics import Covariance, Spectrum, SpectrumResult
from polycode_plugins.metrics.spectrum.first_direction import FirstDirection, first_direction
from polycode_plugins.metrics.spectrum.priority_sample import PrioritySample
from polycode_plugins.metrics.spectrum.rows.correlation import INDEPENDENT
from polycode_plugins.runs.gathering import Statistics

WIDTH = 40


def rows(n: int, far: int = 0, distance: float = 0.0, seed: int = 0) -> np.ndarray:
    """Exponent 1; evenly spread rows are moved along one feature."""
    values = np.random.default_rng([seed, n]).standard_normal((n, WIDTH))
    values *= np.sqrt(power_law(WIDTH, 1.0))
    if far:
        values[:: n // far][:far, 30] += distance
    return values


def direction(values: np.ndarray, batch: int = 500, **options) -> FirstDirection:
    covariance, sample = Covariance(**options), PrioritySample()
    for part in torch.from_numpy(values).split(batch):
        for one in (covariance, sample):
            one.update(Activations(part, ("batch", "feature")))
    values = covariance.eigenvalues().numpy()
    return first_direction(covariance, sample, values, rows=INDEPENDENT)


@pytest.mark.parametrize("n", [30, 60, 3000])  # rows kept as they came, and moments
@pytest.mark.parametrize("far", [1, 3, 20])
def test_the_rows_that_rule_are_counted_named_and_taken_out(n, far):
    values = rows(n, min(far, n // 15), 40.0 if n < 3000 else 60.0)
    far = min(far, n // 15)
    found = direction(values)
    planted = set(np.arange(0, n, n // far)[:far].tolist())
    assert {row.row for row in found.rows[:far]} == planted
    if max(1, 0.025 * n) < found.half_rows:
        assert not found.rules
        return
    assert found.rules
    assert abs(found.half_rows - (far + 1) // 2) <= 1
    assert found.half_share == pytest.approx(found.half_rows / n)
    assert found.covered > 0.9
    left = found.remainder
    assert left.n_rows == far
    assert left.n_samples == n - far
    others = np.delete(values, sorted(planted), axis=0)
    spectrum = np.linalg.eigvalsh(np.cov(others.T))[::-1]
    assert left.total_variance == pytest.approx(spectrum.sum(), rel=1e-9)
    assert left.first_share == pytest.approx(spectrum[0] / spectrum.sum(), rel=1e-9)
    alone = Spectrum(ranks=(1, None)).measure(others).dimensions
    assert left.dimensions.participation_ratio.value == pytest.approx(
        alone.participation_ratio.value, rel=1e-6
    )


def test_gaussian_rows_rule_nothing_however_large_the_share():
    values = rows(4000)
    values[:, 0] *= 5
    found = direction(values)
    assert found.share > 0.8
    assert found.half_share == pytest.approx(0.124, rel=0.3)
    assert not found.rules
    assert found.remainder is None


@pytest.mark.parametrize(("distance", "rules"), [(27.0, False), (32.0, True)])
def test_a_direction_rules_from_a_fifth_of_the_variance_on(distance, rules):
    values = np.random.default_rng(0).standard_normal((2000, WIDTH))
    values[::100, 3] += distance
    found = direction(values)
    assert (found.share > 0.2) is rules
    assert found.half_share < 0.025
    assert found.rules is rules


@pytest.mark.parametrize(("far", "rules"), [(80, True), (130, False)])
def test_rows_are_few_up_to_a_fortieth(far, rules):
    found = direction(rows(2000, far, 30.0))
    assert found.share > 0.5
    assert found.half_rows == pytest.approx(far / 2, rel=0.15)
    assert found.rules is rules


def test_more_rows_than_are_kept_are_estimated_and_not_taken_out():
    values = rows(40_000, 800, 40.0)
    found = direction(values)
    assert found.rules
    assert found.half_rows == pytest.approx(400, rel=0.2)
    assert found.remainder is None
    assert "more rows than are kept" in found.why
    result = Spectrum().measure(values)
    (said,) = [w for w in result.warnings if "one direction holds" in w]
    assert "There are no numbers without them" in said


def test_the_warning_names_share_rows_place_and_what_changes():
    values = rows(40 * 50).reshape(50, 40, WIDTH)
    values[:30, 0, 5] += 40
    batch = Activations(torch.from_numpy(values), ("batch", "position", "feature"))
    result = Spectrum().measure(batch)
    found = result.first_direction
    assert found.places[0] == ((0,), 1.0)
    (said,) = [w for w in result.warnings if "one direction holds" in w]
    assert f"{found.share:.0%} of the variance" in said
    assert f"{found.half_rows:.0f} of 2,000 rows make half" in said
    assert f"row {found.rows[0].row}, position 0" in said
    assert "At position 0 stand 100% of them" in said
    assert "Without 30 of them" in said
    assert result.dimensions.effective_rank.interval is None
    assert "a few rows make the first direction" in result.dimensions.effective_rank.why
    plain = Spectrum().measure(rows(2000))
    assert not [w for w in plain.warnings if "one direction holds" in w]
    assert plain.dimensions.effective_rank.interval is not None


def test_rounded_products_give_no_remainder_and_say_so():
    found = direction(rows(9000, 5, 90.0), precision="float32")
    assert found.rules
    assert found.remainder is None
    assert "use 'float64'" in found.why


def test_results_survive_json_and_those_of_earlier_versions_are_read():
    result = Spectrum().measure(rows(2000, 10, 40.0))
    fields = json.loads(json.dumps(result.to_dict()))
    assert fields["warnings"] == list(result.warnings)
    again = SpectrumResult.from_dict(fields)
    assert again.first_direction == result.first_direction
    assert again.dimensions == result.dimensions
    assert again.warnings == result.warnings
    for name in ("warnings", "first_direction", "dimensions", "effective_rank_naive"):
        del fields[name]
    fields["effective_rank"] = result.effective_rank_naive
    old = SpectrumResult.from_dict(fields)
    assert old.first_direction is None
    assert old.effective_rank_naive == result.effective_rank_naive
    assert old.effective_rank == pytest.approx(result.effective_rank, rel=1e-9)
    assert old.scalars()["half_rows"] is None


def test_states_of_before_rows_were_kept_are_read_and_joined():
    batch = Activations(torch.from_numpy(rows(500, 3, 40.0)), ("batch", "feature"))
    new, old = (Statistics([Spectrum()], [Site("x")]) for _ in range(2))
    new.receive("x", batch)
    state = {k: t for k, t in new.state().items() if "priority-sample" not in k}
    old.load_state(state)
    found = old.compute("x", Spectrum())
    assert found.exponent == new.compute("x", Spectrum()).exponent
    assert found.first_direction.half_rows is None
    assert "kept no rows" in found.first_direction.why
    old.merge(new)
    assert old.compute("x", Spectrum()).first_direction.half_rows is None


def test_taking_out_what_never_came_is_refused():
    covariance = Covariance()
    covariance.update(Activations(torch.randn(20, 30), ("batch", "feature")))
    with pytest.raises(DataError, match="never came"):
        covariance.without(torch.randn(1, 30))
    with pytest.raises(DataError, match="leave no covariance"):
        covariance.without(torch.randn(19, 30))


@pytest.mark.parametrize("n", [3, 25, 400])
def test_the_leading_direction_is_the_first_eigenvector(n):
    covariance = Covariance()
    covariance.update(Activations(torch.from_numpy(rows(n)), ("batch", "feature")))
    _, vectors = covariance.eigenvectors(1)
    assert torch.allclose(covariance.leading_direction(), vectors[0], atol=1e-7)
    flat = Covariance()
    flat.update(Activations(torch.eye(12).repeat(5, 1), ("batch", "feature")))
    assert flat.leading_direction().norm() == pytest.approx(1)


def test_analyze_and_attach_name_the_same_tokens(tmp_path):
    texts = ["The king is dead, and long live the queen of all the bees. " * 20] * 5
    model = pc.load("tiny-gpt2").model
    site = "blocks.0.hook_resid_post"
    analysis = pc.analyze(model, texts, sites=site, batch_size=4, out=tmp_path / "run")
    found = analysis[site, "spectrum"].first_direction
    batches = list(pc.load(model).batches(texts, pc.DataOptions(batch_size=4)))
    with pc.attach(model, site) as probe:
        for batch in batches:
            model(batch.inputs["input_ids"])
    other = probe.compute()[site, "spectrum"].first_direction
    ids = torch.cat([batch.inputs["input_ids"] for batch in batches])
    for one in (found, other):
        for row in one.rows:
            assert row.token == ids[row.row, row.place[0]]
            assert row.text
    assert [r.row for r in found.rows] == [r.row for r in other.rows]
    read = pc.Analysis.load(tmp_path / "run")
    assert read[site, "spectrum"].first_direction == found
    parts = [pc.analyze(model, texts, sites=site, batch_size=4, shard=(i, 2)) for i in range(2)]
    merged = parts[0].merge(parts[1])[site, "spectrum"].first_direction
    assert [r.text for r in merged.rows] == [r.text for r in found.rows]
    assert merged.half_rows == pytest.approx(found.half_rows)


@pytest.mark.parametrize(
    ("share", "half_rows", "half_share", "rules"),
    [
        (0.2, 50.0, 0.025, True),
        (0.199, 50.0, 0.025, False),
        (0.2, 51.0, 0.0251, False),
        (0.5, 1.0, 1 / 20, True),  # one row of so few that a fortieth is less than one
        (0.5, 1.0, 1 / 19, False),
        (0.5, 2.0, 1 / 20, False),
        (0.5, None, None, False),
    ],
)
def test_the_ends_of_what_rules(share, half_rows, half_share, rules):
    assert FirstDirection(share, half_rows, half_share, covered=1.0).rules is rules
