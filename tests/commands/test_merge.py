"""Shards of one analysis join to the whole however they are grouped, also from the shell."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from command_line import SMALL, run
from merged_parts import COUNT, part, parts, same, whole

import polycode_plugins as pc
from polycode_plugins.commands import main


@pytest.fixture
def folders(tmp_path: Path) -> list[str]:
    return [str(p.save(tmp_path / f"part{i}")) for i, p in enumerate(parts())]


def test_the_command_joins_in_any_order(folders, tmp_path, capsys):
    out = tmp_path / "whole"
    order = [3, 0, 5, 1, 4, 2]
    assert main.main(["merge", *(folders[i] for i in order), "--out", str(out), "--no-report"]) == 0
    assert capsys.readouterr().out.strip() == str(out)
    same(pc.Analysis.load(out), whole())


def test_the_command_refuses_what_does_not_belong_together(folders, tmp_path, capsys):
    def refused(*given: str) -> str:
        out = tmp_path / "out"
        assert main.main(["merge", *given, "--out", str(out), "--no-report"]) == 2
        assert not out.exists()
        (said,) = capsys.readouterr().err.splitlines()
        return said

    assert "row 0 of the data is in both parts" in refused(folders[0], folders[0])
    other_seed = part(1, COUNT, seed=1).save(tmp_path / "seed")
    assert "different analyses: seed is 0 in one and 1" in refused(folders[0], str(other_seed))
    other_sites = part(1, COUNT, sites=["0"]).save(tmp_path / "sites")
    assert "the sites differ in '0'" in refused(folders[0], str(other_sites))
    record = Path(folders[1]) / "run.json"
    content = json.loads(record.read_text())
    record.write_text(json.dumps(content | {"format": 2}))
    assert "has format 2 and this version reads up to 1" in refused(folders[0], folders[1])
    record.write_text(json.dumps(content | {"complete": False}))
    assert "was interrupted" in refused(folders[0], folders[1])
    assert "run.json is missing" in refused(folders[0], str(tmp_path / "nowhere"))


def test_shards_merge_to_the_whole_run(tmp_path, text, capsys):
    common = [
        "analyze",
        "--text",
        text,
        "--sites",
        "blocks.5.hook_resid_post",
        *SMALL,
        "--no-report",
    ]
    assert run(*common, "--out", tmp_path / "whole") == 0
    for i in range(2):
        assert run(*common, "--shard", f"{i}/2", "--out", tmp_path / str(i)) == 0
    assert (
        run("merge", tmp_path / "0", tmp_path / "1", "--out", tmp_path / "both", "--no-report") == 0
    )
    whole, both = pc.Analysis.load(tmp_path / "whole"), pc.Analysis.load(tmp_path / "both")
    site = "blocks.5.hook_resid_post"
    a = torch.from_numpy(whole[site, "spectrum"].eigenvalues)
    b = torch.from_numpy(both[site, "spectrum"].eigenvalues)
    assert float((a - b).abs().max() / a.max()) < 1e-5  # other batches round differently in float32
    capsys.readouterr()
    assert run("merge", tmp_path / "0", tmp_path / "0", "--out", tmp_path / "twice") == 2
    assert "count it twice" in capsys.readouterr().err
    assert run("merge", tmp_path / "0", tmp_path / "1", "--out", tmp_path / "both") == 2


def test_several_parts_are_joined_in_one_go_as_one_run_has_them():
    count = 10
    many = [part(i, count) for i in range(count)]
    joined = pc.Analysis.merged(many)
    same(joined, whole())
    assert joined.run["parts"] == count
    assert joined.run["shards"] == [[i, count] for i in range(count)]
    assert joined.n_samples("1") == whole().n_samples("1")
    same(pc.Analysis.merged(reversed(many)), whole())
    with pytest.raises(pc.StateError, match="is in both parts"):
        pc.Analysis.merged([*many, many[7]])
    with pytest.raises(pc.DataError, match="nothing to merge"):
        pc.Analysis.merged([])
