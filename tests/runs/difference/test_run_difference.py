"""Two runs side by side: what is compared with what, intervals that hold, what is said."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import polycode_plugins as pc
from polycode_plugins.commands.main import main
from polycode_plugins.metrics import CKA, Action, Capacity
from polycode_plugins.report.difference_page import page_of, sentences
from polycode_plugins.runs.difference import between

DATA = torch.randn(300, 12, generator=torch.Generator().manual_seed(0))
METRICS = [Capacity(), CKA()]


def network(seed: int = 0) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(12, 12), nn.Tanh(), nn.Linear(12, 12), nn.Tanh())


def run(seed: int = 0, out: Path | None = None, data=DATA, metrics=METRICS, sites=("1", "3")):
    return pc.analyze(network(seed), data, metrics, list(sites), out=out)


def test_every_number_of_every_site_with_its_interval():
    one, other = run(0), run(1)
    found = pc.diff(one, other)
    frame = found.to_dataframe().set_index(["site", "metric", "field"])
    line = frame.loc[("3", "capacity", "redundancy")]
    a, b = one["3", "capacity"], other["3", "capacity"]
    assert (line["first"], line["second"]) == (a.redundancy, b.redundancy)
    assert line["difference"] == b.redundancy - a.redundancy
    # Two networks on the same rows err together, a little.
    share = line["correlation_counted"]
    assert 0 < share < line["correlation"] < 1
    down = math.hypot(b.redundancy - b.interval[0], a.interval[1] - a.redundancy)
    assert line["difference"] - down < line["low"] < line["difference"] - (1 - share) * down
    assert "redundancy_low" not in frame.index.get_level_values("field")
    ends = frame.loc[("3", "cka", "to_previous")]
    assert ends["low"] < ends["difference"] < ends["high"]
    assert found.headline("cka") == ["to_previous", "to_first", "to_last"]
    assert found.headline("capacity")[0] == "redundancy"
    assert "2 sites, metrics: capacity, cka" in repr(found)
    assert json.loads(json.dumps(found.to_dict(), allow_nan=False))["names"] == ["first", "second"]


def test_a_run_beside_itself_differs_in_nothing():
    found = pc.diff(run(0), run(0))
    assert all(d.difference == 0 and not d.evident for d in found.differences)
    assert found.changes == []
    assert found.likeness is not None
    assert found.likeness.same()["3"][0] == pytest.approx(1, abs=1e-6)
    assert any("same weights" in note for note in found.notes)
    assert any("Both runs read the same rows" in note for note in found.notes)


def test_intervals_of_differences_hold_the_truth():
    """Means of independent samples: the difference of two of them, 95% of the time."""
    rng = np.random.default_rng(0)
    inside = 0
    for _ in range(2000):
        means = rng.normal([3.0, 5.0], [1.0, 0.5])
        ends = [(m - 1.96 * s, m + 1.96 * s) for m, s in zip(means, (1.0, 0.5), strict=True)]
        low, high = between(means[0], ends[0], means[1], ends[1])
        inside += low <= 2.0 <= high
    assert 0.935 < inside / 2000 < 0.965
    # Upwards count the upper end of one and the lower of the other.
    assert between(0.0, (-3.0, 1.0), 10.0, (8.0, 14.0)) == (10 - math.hypot(2, 1), 15.0)


def test_other_rows_give_no_cka_and_a_sentence_why():
    found = pc.diff(run(0), run(0, data=DATA + 1))
    assert found.likeness is None
    assert "the runs are of other rows" in found.why
    assert any("Nothing proves that both runs read the same rows" in n for n in found.notes)
    assert "There is none" in next(
        s for s in page_of(found).sections if s.id == "likeness"
    ).parts[0].paragraphs[0]  # fmt: skip


def test_sites_of_other_names_are_asked_for():
    one, other = run(0, sites=["1", "3"]), run(0, sites=["0", "2"])
    with pytest.raises(pc.DataError, match=r"no site in common .*--pair FIRST=SECOND"):
        pc.diff(one, other)
    found = pc.diff(one, other, sites={"3": "2"})
    assert found.pairs == [("3", "2")]
    assert found.only == (["1"], ["0"])
    with pytest.raises(pc.SiteError, match="no site '9' in this run"):
        pc.diff(one, other, sites={"3": "9"})


def test_what_else_differs_is_said():
    one = run(0, metrics=[Capacity(), Action(path="rows", projections=20)])
    other = run(0, metrics=[Capacity(step=0.5), CKA()])
    found = pc.diff(one, other)
    assert found.metrics == ["capacity"]
    assert any("capacity had other settings: step is" in note for note in found.notes)
    assert any("Only one of the runs has action, cka" in note for note in found.notes)
    assert "no samples" in found.why
    with pytest.raises(pc.DataError, match="no metric in common: capacity and cka"):
        pc.diff(run(0, metrics=[Capacity()]), run(0, metrics=[CKA()]))


def test_a_planted_difference_is_evident_and_found_first():
    one = run(0)
    changed = network(0)
    with torch.no_grad():
        changed[2].weight[:, 2:] *= 0.05  # two directions carry the code
    other = pc.analyze(changed, DATA, METRICS, ["1", "3"])
    found = pc.diff(one, other)
    held = {d.site: d for d in found.of("capacity", "redundancy")}
    assert held["1"].difference == 0
    assert held["3"].evident
    assert held["3"].difference > 0
    said = sentences(found)
    assert "redundancy differs evidently at 1 of 2 sites" in said[0]
    assert "the most at 3, by" in said[0]
    assert "by chance alone about" in said[2]
    assert "by a CKA of" in said[-1]


def test_the_page_and_the_command(tmp_path: Path, capsys):
    run(0, tmp_path / "a"), run(1, tmp_path / "b")
    page = tmp_path / "diff.html"
    status = main(["diff", str(tmp_path / "a"), str(tmp_path / "b"), "--report", str(page)])
    said = capsys.readouterr()
    assert status == 0, said.err
    assert "capacity: redundancy" in said.out
    assert "CKA of the same site" in said.out
    assert "Both runs read the same rows" in said.err
    html = page.read_text(encoding="utf-8")
    for id in ("map", "metric-0", "metric-1-to-previous-difference", "likeness-matrix", "compared"):
        assert f'id="{id}"' in html
    assert "a and b side by side" in html
    assert main(["diff", str(tmp_path / "a"), str(tmp_path / "b"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["names"] == ["a", "b"]
    assert found["likeness"]["first"] == ["1", "3"]
    assert main(["diff", str(tmp_path / "a"), str(tmp_path / "b"), "--pair", "1"]) == 2
    assert "--pair '1' is not FIRST=SECOND" in capsys.readouterr().err
    assert main(["diff", str(tmp_path / "a"), str(tmp_path / "none")]) == 2
