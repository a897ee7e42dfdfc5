"""The README's code runs as it stands, with the embedded model in the place of gpt2."""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd

import polycode_plugins as pc
from polycode_plugins.loading import embedded_model

README = Path(__file__).parents[1] / "README.md"
TEXTS = ["Return the square root of x, a non-negative number. " * 12] * 12


def blocks() -> list[str]:
    return re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)


def test_the_uses_run_in_order(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {"texts": TEXTS}
    for source in blocks():
        source = source.replace('"gpt2"', repr(str(embedded_model())))
        exec(
            compile(source, str(README), "exec", dont_inherit=True), names
        )  # the point is to run it as it stands
    assert "blocks.5.hook_resid_post" in capsys.readouterr().out
    analysis = names["analysis"]
    assert isinstance(analysis, pc.Analysis)
    frame = analysis.to_dataframe()
    assert isinstance(frame, pd.DataFrame)
    assert frame["norm.rms_norm"].is_monotonic_increasing
    assert "norm" in (tmp_path / "report.html").read_text(encoding="utf-8")
