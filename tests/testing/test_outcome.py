"""What a check says of a plugin that raises: the exception, and the plugin's own line."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from polycode_plugins import testing
from polycode_plugins.errors import PluginError
from polycode_plugins.metrics import Spectrum
from polycode_plugins.metrics.spectrum import metric as spectrum
from polycode_plugins.testing import outcome

LIBRARY = "def strict(value):\n    raise RuntimeError('boom')\n"
PLUGIN = """
from dataclasses import dataclass
from polycode_plugins.metrics import Spectrum
import a_strict_library
from torch import nn

class Layer(nn.Module):
    def forward(self, x):
        return a_strict_library.strict(x)

@dataclass(frozen=True)
class Raising(Spectrum):
    def compute(self, accumulators, site):
        return Layer()(site)
"""


def reasons(kind: type[Spectrum]) -> dict[str, str]:
    report = testing.run(testing.MetricCase(make=lambda: kind(fit="huber", ranks=(1, None))))
    return {o.check: o.reason for o in report.outcomes if o.state == "failed"}


@pytest.mark.parametrize("folder", ["mine", "lib/site-packages"])
def test_an_exception_is_placed_in_the_code_of_the_plugin(folder, tmp_path, monkeypatch):
    home, libraries = tmp_path / folder, tmp_path / "lib" / "site-packages"
    for path in (home, libraries):
        path.mkdir(parents=True, exist_ok=True)
        monkeypatch.syspath_prepend(str(path))
    (libraries / "a_strict_library.py").write_text(LIBRARY)
    (home / "a_raising_plugin.py").write_text(PLUGIN)
    import a_raising_plugin

    try:
        report = testing.run(testing.MetricCase(make=a_raising_plugin.Raising))
    finally:
        for name in ("a_raising_plugin", "a_strict_library"):
            del sys.modules[name]
    failed = {o.check: o.reason for o in report.outcomes if o.state == "failed"}
    said = failed["chunks_equal_one_shot"]
    assert said.startswith("it raised RuntimeError: boom (")
    assert said.endswith("a_raising_plugin.py, line 9, in forward)")


def test_the_place_is_shown_from_the_folder_one_is_in(monkeypatch):
    class Raising(Spectrum):
        def accumulators(self):
            raise OSError(2, "gone")

    monkeypatch.chdir(Path(__file__).parent)
    assert "(test_outcome.py, line " in reasons(Raising)["chunks_equal_one_shot"]


def test_a_built_in_that_raises_is_placed_too(monkeypatch):
    monkeypatch.setattr(spectrum, "first_direction", None)
    said = reasons(Spectrum)["chunks_equal_one_shot"]
    assert said.startswith("it raised TypeError")
    assert "spectrum/metric.py, line " in said
    assert said.endswith("in _read)")


# -- expected failures -----------------------------------------------------------------------------


class Kind:
    """A case whose checks are these."""

    expected_failures = {"fails": "not written yet", "raises": "a library", "passes": "long ago"}  # noqa: RUF012


def fails(case):
    outcome.fail("it is 3 and not 4")


def raises(case):
    raise SystemExit(1)


def passes(case):
    pass


def does_not_apply(case):
    outcome.skip("no site")


def test_expected_failures_are_no_failures_until_they_are_gone():
    case = Kind()
    checks = [
        testing.Check(f, case, case.expected_failures.get(f.__name__))
        for f in (fails, raises, passes, does_not_apply)
    ]
    found = {o.check: o for o in testing.run_all("x", checks).outcomes}
    assert found["fails"].state == found["raises"].state == "expected"
    assert found["fails"].reason == "not written yet (it is 3 and not 4)"
    assert found["raises"].reason == "a library (it raised SystemExit: 1)"
    assert found["passes"].state == "failed"
    assert "expected to fail (long ago) and no longer does: take 'passes'" in found["passes"].reason
    assert found["does_not_apply"].state == "skipped"
    with pytest.raises(testing.Skipped, match="not written yet"):
        checks[0]()
    with pytest.raises(testing.CheckFailed, match="no longer does"):
        checks[2]()


def test_a_case_names_what_it_expects_to_fail():
    wrong = testing.KnownAnswer(testing.decaying(), {"n_samples": 7})
    case = testing.MetricCase(
        make=lambda: Spectrum(fit="huber", ranks=(1, None)),
        known=[wrong],
        expected_failures={"known_answers": "a number of samples that is wrong"},
    )
    (check,) = [c for c in testing.checks(case) if c.name == "known_answers"]
    (other,) = [c for c in testing.checks(case) if c.name == "results_are_json"]
    report = testing.run_all("x", [check, other])
    assert report.ok
    assert report.to_dict()["expected"] == 1
    assert "1 passed, 0 failed, 0 skipped, 1 failed as expected" in str(report)
    assert not testing.run_all("x", [check]).ok  # nothing passed
    unknown = testing.MetricCase(make=Spectrum, expected_failures={"known_answer": "x"})
    with pytest.raises(PluginError, match=r"'known_answer', which is no check .*'known_answ"):
        testing.checks(unknown)
