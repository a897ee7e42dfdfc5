"""The result: what it warns of, and how it is drawn."""

from __future__ import annotations

import json
from dataclasses import fields

import numpy as np
import pytest
from gaussian_codes import gaussian, power_law

from polycode_plugins.metrics import Capacity, CapacityResult


def test_doubtful_readings_warn():
    rows = gaussian(power_law())
    assert Capacity().measure(rows).warnings == ()
    coarse = Capacity(relative_step=3.0).measure(rows)
    assert any("wider than most units" in w for w in coarse.warnings)
    fine = Capacity(precision="float32", relative_step=1e-5).measure(rows.float())
    assert any("precision='float64'" in w for w in fine.warnings)
    assert Capacity(relative_step=1e-5).measure(rows).warnings == ()
    variances = np.concatenate([np.full(30, 1.0), 1e-4 * power_law(70, 2.0)])
    broken = Capacity().measure(gaussian(variances, rotate=False))
    assert any("do not follow one power law" in w for w in broken.warnings)
    nothing = Capacity(step=1e9).measure(rows)
    assert nothing.redundancy_fraction is None
    assert "of the flat code." not in nothing.describe()
    assert nothing.flat_entropy == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("samples", [20, 4000])
def test_json_round_trip(samples):
    result = Capacity(dropout=0.1).measure(gaussian(power_law(), samples=samples))
    again = CapacityResult.from_dict(json.loads(json.dumps(result.to_dict())))
    for field in fields(CapacityResult):
        one, other = getattr(result, field.name), getattr(again, field.name)
        if field.name == "eigenvalues":
            np.testing.assert_array_equal(one, other)
        else:
            assert one == other, field.name
    assert again.describe() == result.describe()
    share = result.redundancy / result.flat_entropy
    assert (
        f", {share:.1%} of the {result.flat_entropy:.4g} bits of the flat code." in again.describe()
    )


def test_plot_ends_at_the_entropies():
    result = Capacity().measure(gaussian(power_law(), samples=20_000))
    ax = result.plot()
    ends = {line.get_label(): line.get_ydata()[-1] for line in ax.get_lines()}
    assert ends["flat"] == pytest.approx(result.flat_entropy)
    assert ends["measured"] == pytest.approx(result.entropy_naive)
    law = next(bits for label, bits in ends.items() if label.startswith("power law"))
    # The theorem leaves out what rounding adds to components that are not far above the step.
    exact = power_law(exponent=result.power_law.exponent)
    exact *= result.total_variance / exact.sum()
    added = np.log2(1 + result.step**2 / 12 / exact) / 2
    assert law == pytest.approx(result.power_law.corrected + (added - added[0]).sum(), abs=1e-6)


def test_assumptions_name_every_choice():
    result = Capacity(step=0.25, noise=0.5, exponent=1.25, bits=8, dropout=0.125).measure(
        gaussian(power_law())
    )
    said = " ".join(result.assumptions)
    for word in ("Gaussian", "0.25", "0.5", "1.250", "8 bits", "0.125", "independent"):
        assert word in said
    assert Capacity.result.reading
