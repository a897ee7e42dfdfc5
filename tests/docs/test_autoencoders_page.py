"""What docs/autoencoders.md shows works, and what it says of formats is so."""

from __future__ import annotations

import re

from page_python import run, texts
from places import ROOT

from polycode_plugins.commands.main import parser_of_all
from polycode_plugins.explainers.records.autoencoders import FITS
from polycode_plugins.explainers.units.autoencoder import sae_lens

PAGE = (ROOT / "docs" / "autoencoders.md").read_text(encoding="utf-8")


def test_the_python_runs_as_it_stands(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    names = run("docs/autoencoders.md", {"texts": texts()})
    made = names["comparison"]
    assert made.kinds == ["neuron", "projection", "feature"]
    assert len(made) == 15
    origin = made.directions["blocks.2.hook_resid_post", "feature", "trained"].origin
    assert origin["explained_variance"] > 0.5
    assert not any("of the variance" in warning for warning in made.run["warnings"])
    assert "second='feature'" in capsys.readouterr().out


def test_the_commands_are_understood():
    block = PAGE.split("```")[1]
    lines = [line.split() for line in block.strip().splitlines()]
    assert len(lines) == 2
    for words in lines:
        assert words[0] == "polycode"
        assert parser_of_all().parse_args(words[1:]).run is not None


def test_the_formats_and_versions_are_those_of_the_code():
    table = PAGE.split("## What is read")[1].split("## Which site")[0]
    for name in sae_lens.ARCHITECTURES:
        assert name.replace("transcoder", "transcoders").split("_")[-1] in table or name in table
    assert f"below {FITS} a warning" in PAGE
    script = (ROOT / "scripts" / "test_packages.sh").read_text(encoding="utf-8")
    for package, version in re.findall(r"(sae-lens|eai-sparsify)==([\d.]+)", script):
        name = {"sae-lens": "SAELens", "eai-sparsify": "sparsify"}[package]
        assert f"{name} {version}" in PAGE
