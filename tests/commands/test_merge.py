"""Shards of one analysis join to the whole however they are grouped, also from the shell."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import polycode_plugins as pc
from polycode_plugins.commands import main

DATA = torch.randn(70, 5, generator=torch.Generator().manual_seed(0)).double()
METRICS = [
    pc.metrics.Spectrum(fit="huber", ranks=(1, 500)),
    pc.metrics.Action(kind="static", projections=5),
]
PARTS = 6


def part(index: int, count: int, **options: object) -> pc.Analysis:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(5, 12), nn.Tanh()).double()
    settings_ = {"seed": 0, "sites": ["1"], "metrics": METRICS, **options}
    return pc.analyze(model, DATA, batch_size=4, shard=(index, count), **settings_)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def whole() -> pc.Analysis:
    return part(0, 1)


@pytest.fixture(scope="module")
def parts() -> list[pc.Analysis]:
    return [part(i, PARTS) for i in range(PARTS)]


def same(joined: pc.Analysis, whole: pc.Analysis) -> None:
    a, b = joined["1", "spectrum"], whole["1", "spectrum"]
    assert abs(a.eigenvalues - b.eigenvalues).max() <= 1e-12 * b.eigenvalues[0]
    assert (a.n_samples, a.width) == (b.n_samples, b.width)
    assert joined["1", "action"].expected == pytest.approx(whole["1", "action"].expected, rel=1e-10)
    assert joined.run["rows"]["count"] == len(DATA)
    assert joined.run["rows"]["digest"] == whole.run["rows"]["digest"]


@settings(max_examples=6, deadline=None, derandomize=True, database=None)
@given(st.data())
def test_every_grouping_of_the_parts_is_the_whole(whole, parts, data):
    held = list(parts)
    while len(held) > 1:
        a, b = data.draw(st.permutations(range(len(held))))[:2]
        joined = held[a].merge(held[b])
        held = [p for i, p in enumerate(held) if i not in (a, b)] + [joined]
    same(held[0], whole)


def test_a_part_that_is_in_a_joined_one_already_is_refused(parts):
    joined = parts[2].merge(parts[5])
    with pytest.raises(pc.StateError, match="row 5 of the data is in both parts"):
        joined.merge(parts[5])
    same_rows = part(1, 3)  # the rows 1, 4, 7 ..: those of the parts 1 and 4 of six
    with pytest.raises(pc.StateError, match="is in both parts"):
        parts[4].merge(same_rows)


@pytest.fixture
def folders(parts, tmp_path: Path) -> list[str]:
    return [str(p.save(tmp_path / f"part{i}")) for i, p in enumerate(parts)]


def test_the_command_joins_in_any_order(whole, folders, tmp_path, capsys):
    out = tmp_path / "whole"
    order = [3, 0, 5, 1, 4, 2]
    assert main.main(["merge", *(folders[i] for i in order), "--out", str(out), "--no-report"]) == 0
    assert capsys.readouterr().out.strip() == str(out)
    same(pc.Analysis.load(out), whole)


def test_the_command_refuses_what_does_not_belong_together(folders, tmp_path, capsys):
    def refused(*given: str) -> str:
        out = tmp_path / "out"
        assert main.main(["merge", *given, "--out", str(out), "--no-report"]) == 2
        assert not out.exists()
        (said,) = capsys.readouterr().err.splitlines()
        return said

    assert "row 0 of the data is in both parts" in refused(folders[0], folders[0])
    other_seed = part(1, PARTS, seed=1).save(tmp_path / "seed")
    assert "different analyses: seed is 0 in one and 1" in refused(folders[0], str(other_seed))
    other_sites = part(1, PARTS, sites=["0"]).save(tmp_path / "sites")
    assert "the sites differ in '0'" in refused(folders[0], str(other_sites))
    record = Path(folders[1]) / "run.json"
    content = json.loads(record.read_text())
    record.write_text(json.dumps(content | {"format": 2}))
    assert "has format 2 and this version reads up to 1" in refused(folders[0], folders[1])
    record.write_text(json.dumps(content | {"complete": False}))
    assert "was interrupted" in refused(folders[0], folders[1])
    assert "run.json is missing" in refused(folders[0], str(tmp_path / "nowhere"))


def test_what_was_attached_or_measured_is_not_merged():
    values = torch.randn(30, 8, 6, generator=torch.Generator().manual_seed(0))
    metric = pc.metrics.Spectrum(fit="huber", ranks=(1, None))
    parts = [pc.measure({"a": part}, metric) for part in values.split(15)]
    with pytest.raises(pc.StateError, match=r"was measured has rows without numbers.*TorchMetric"):
        parts[0].merge(parts[1])
