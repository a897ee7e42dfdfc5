"""What a check says of a plugin that raises: the exception, and the plugin's own line."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from polycode_plugins import testing
from polycode_plugins.metrics import Spectrum
from polycode_plugins.metrics.spectrum import metric as spectrum

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
    assert said.endswith("in compute)")
