"""The command line: the main job, and every mistake as one sentence with exit status 2."""

from __future__ import annotations

import json

import pandas as pd
import pytest
import torch
from command_line import SMALL, run

import polycode_plugins as pc
from polycode_plugins.commands import comparison_tables
from polycode_plugins.commands.analyze import metrics_of
from polycode_plugins.loading import embedded_model
from polycode_plugins.metrics import Spectrum


def test_analyze_a_folder_on_a_text_of_ones_own(tmp_path, text, capsys):
    out = tmp_path / "out"
    status = run(
        "analyze", "--model", embedded_model(), "--text", text,
        "--sites", "blocks.*.mlp.hook_post", "--out", out, *SMALL,
    )  # fmt: skip
    printed, said = capsys.readouterr()
    assert status == 0, said
    assert "blocks.5.mlp.hook_post" in printed
    files = {p.name for p in out.iterdir() if not p.name.startswith(".")}
    assert files == {"run.json", "state.safetensors", "results.parquet", "report.html"}
    analysis = pc.Analysis.load(out)
    assert [s.name for s in analysis.sites] == [f"blocks.{i}.mlp.hook_post" for i in range(6)]
    assert analysis.run["command"].startswith("polycode analyze --model ")
    assert analysis["blocks.0.mlp.hook_post", "spectrum"].width == 512

    assert run("report", out, "--out", tmp_path / "again.html") == 0
    assert "blocks.3.mlp.hook_post" in (tmp_path / "again.html").read_text()


def test_the_embedded_default_needs_no_arguments(capsys):
    assert run("analyze", "--limit", "64", "--quiet", "--json") == 0
    rows = json.loads(capsys.readouterr().out)
    assert [r["site"] for r in rows] == [f"blocks.{i}.hook_resid_post" for i in range(6)]
    assert all(r["spectrum.exponent"] > 0 and r["spectrum.width"] == 128 for r in rows)


def test_settings_reach_the_metric(capsys):
    assert run(
        "analyze", "--limit", "40", "--quiet", "--json", "--sites", "blocks.0.hook_resid_post",
        "--set", "spectrum.fit=huber", "--set", "spectrum.ranks=2,60",
    ) == 0  # fmt: skip
    (row,) = json.loads(capsys.readouterr().out)
    assert row["spectrum.fit"] == "huber"


def test_a_name_that_gives_random_weights_says_so(capsys):
    images = ["--images", "moving-dot:3", "--sites", "layer4", "--limit", "3", "--quiet"]
    assert run("analyze", "--model", "resnet18", *images) == 0
    assert "random weights: --option weights=DEFAULT loads" in capsys.readouterr().err


def test_what_makes_the_numbers_doubtful_is_said_beside_the_table(capsys):
    assert run("analyze", "--limit", "1", "--quiet", "--sites", "blocks.0.hook_resid_post") == 0
    printed, said = capsys.readouterr()
    assert "exponent" in printed
    assert "spectrum: At blocks.0.hook_resid_post: there are no more samples than units" in said


def test_a_column_without_a_number_is_undefined_too(capsys):
    comparison_tables._print(
        pd.DataFrame({"site": ["a", "b"], "low": [None, None], "x": [None, 0.25]})
    )
    printed = capsys.readouterr().out
    assert printed.count("undefined") == 3
    assert "0.250" in printed
    assert "None" not in printed


MISTAKES = {
    "model": (["--model", "./no/such/model"], "the folder './no/such/model' does not exist"),
    "hub name": (["--model", "surely-not-a-model-7"], "'surely-not-a-model-7' does not load"),
    "adapter": (["--adapter", "transformer-lense"], "did you mean 'transformer-lens'"),
    "adapter option": (["--option", "colour=red"], "does not take this option"),
    "metric": (["--metrics", "spectrun"], "did you mean 'spectrum'"),
    "no metric": (["--metrics", ","], "names no metric"),
    "setting": (["--set", "spectrum.fits=huber"], "has no setting 'fits'"),
    "setting's form": (["--set", "spectrum:fit"], "is not METRIC.SETTING=VALUE"),
    "setting of nothing": (["--set", "fit=huber"], "for example --set spectrum.fit=huber"),
    "setting of another": (["--set", "action.kind=static"], "--metrics spectrum,action"),
    "setting of a misspelt one": (["--set", "spectrm.fit=huber"], "did you mean 'spectrum'"),
    "fit": (["--set", "spectrum.fit=hubert"], "hubert"),
    "texts for images": (["--model", "resnet18", "--text", "{tmp}/short.txt"], "reads images"),
    "device": (["--model", "resnet18", "--option", "device=gpu"], "unknown device 'gpu'"),
    "site": (["--sites", "blocks.0.hook_resid_pst"], "did you mean 'blocks.0.hook_resid_post'"),
    "site's glob": (["--sites", "*.hook_resid_post"], "'**' crosses them"),
    "file": (["--text", "no/such/file.txt"], "no/such/file.txt"),
    "empty file": (["--text", "{tmp}/empty.txt"], "empty"),
    "short text": (["--text", "{tmp}/short.txt"], "--context"),
    "no text in folder": (["--text", "{tmp}/folder"], "folder"),
    "bad JSON": (["--text", "{tmp}/bad.jsonl"], "bad.jsonl:2 cannot be read as JSON"),
    "missing field": (["--text", "{tmp}/other.jsonl"], "body"),
    "binary file": (["--text", "{tmp}/binary.txt"], "UTF-8"),
    "batch size": (["--batch-size", "0"], "batch_size must be"),
    "shard": (["--shard", "2/2"], "0 <= index < count"),
    "shard's form": (["--shard", "half"], "is not I/N"),
    "shard's digits": (["--shard", "\u00b2/4"], "is not I/N"),
    "shard's length": (["--shard", f"0/{'9' * 10_000}"], "is not I/N"),
    "setting's depth": (["--set", "spectrum.fit=" + "[" * 100_000], "fit"),
    "few samples": (["--limit", "1", "--context", "2"], "sample"),
    "no window left": (["--shard", "7/9", "--limit", "3"], "no row to analyse"),
    "out is a file": (["--out", "{tmp}/short.txt"], "is a file"),
    "out has others": (["--out", "{tmp}/folder-with-file"], "holds other files"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_sentence_and_leaves_nothing(mistake, tmp_path, capsys):
    (tmp_path / "empty.txt").write_text("")
    (tmp_path / "short.txt").write_text("Too short.")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder-with-file").mkdir()
    (tmp_path / "folder-with-file" / "mine.txt").write_text("mine")
    (tmp_path / "bad.jsonl").write_text('{"text": "fine"}\n{"text": \n')
    (tmp_path / "other.jsonl").write_text('{"body": "fine"}\n')
    (tmp_path / "binary.txt").write_bytes(b"\xff\xfe\x00\x81")
    before = sorted(p.relative_to(tmp_path) for p in tmp_path.rglob("*"))
    given, expected = MISTAKES[mistake]
    arguments = [a.replace("{tmp}", str(tmp_path)) for a in given]
    if "--out" not in arguments:
        arguments += ["--out", str(tmp_path / "out")]
    if "--limit" not in arguments:
        arguments += ["--limit", "8"]
    status = run("analyze", "--quiet", *arguments)
    printed, said = capsys.readouterr()
    assert status == 2, said
    assert expected in said
    message = [line for line in said.splitlines() if line.startswith("polycode: ")]
    assert len(message) == 1
    assert "Traceback" not in said
    assert printed == ""
    assert sorted(p.relative_to(tmp_path) for p in tmp_path.rglob("*")) == before


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_nan_in_activations_names_the_site_and_the_batch(value, tmp_path):
    model = torch.nn.Sequential(torch.nn.Linear(4, 16), torch.nn.Tanh())
    data = torch.randn(40, 4)
    data[25, 1] = value
    with pytest.raises(pc.DataError, match=r"batch 3 of site '0' are NaN or infinite"):
        pc.analyze(model, data, sites=["0"], batch_size=8, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_constant_layer_is_named():
    class Constant(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.live = torch.nn.Linear(4, 16)
            self.dead = torch.nn.Identity()

        def forward(self, x):
            self.dead(torch.full((len(x), 16), 2.5))
            return self.live(x)

    with pytest.raises(pc.DataError, match=r"site 'dead'.*constant"):
        pc.analyze(Constant(), torch.randn(40, 4), sites=["live", "dead"])


def test_all_ranks_are_asked_for_in_the_shell():
    (metric,) = metrics_of("spectrum", ["spectrum.ranks=1,null", "spectrum.fit=huber"])
    assert metric == Spectrum(fit="huber", ranks=(1, None))
