"""`polycode reproduce`."""

from __future__ import annotations

import json
from itertools import islice
from pathlib import Path

import polycode_plugins
from polycode_plugins import experiments
from polycode_plugins.commands import main
from polycode_plugins.data import text_documents

TINY = Path(polycode_plugins.__file__).parent / "data" / "tiny-gpt2"


def test_the_command_lists_and_refuses(capsys, tmp_path):
    assert main.main(["reproduce", "--list", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in listed] == experiments.available()
    assert main.main(["reproduce"]) == 2
    assert main.main(["reproduce", "nothing-like-it", "--out", str(tmp_path)]) == 2
    assert "--list" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_device_that_is_not_there_is_one_sentence(tmp_path, capsys):
    command = ["reproduce", "superposition-ratio", "--scale", "smoke", "--out", str(tmp_path)]
    assert main.main([*command, "--set", "device=nowhere"]) == 2
    assert "the device 'nowhere' cannot be used" in capsys.readouterr().err


def test_figures_of_language_models_take_a_folder_and_texts(tmp_path, capsys):
    texts = tmp_path / "texts.jsonl"
    documents = islice(text_documents("embedded:validation"), 40)
    texts.write_text("".join(json.dumps({"text": d.text}) + "\n" for d in documents))
    page = tmp_path / "page.md"
    out = str(tmp_path / "out")
    made = ["reproduce", "language-model-spectra", "--scale", "smoke", "--out", out]
    own = ["--model", str(TINY), "--text", str(texts)]
    smaller = ["documents=30", "groups=2", "followed=1", "shortest=10", "projections=20"]
    settings = [word for one in smaller for word in ("--set", one)]
    assert main.main([*made, *own, *settings, "--markdown", str(page)]) == 0
    record = json.loads((tmp_path / "out/language-model-spectra/experiment.json").read_text())
    assert record["settings"]["model"] == str(TINY)
    assert record["settings"]["texts"] == str(texts)
    text = page.read_text("utf-8")
    assert text.startswith("# The papers' figures with tiny-gpt2\n")
    assert f"`polycode reproduce language-model-spectra --model {TINY} --text {texts} --set" in text
    assert main.main([*made, *settings]) == 2  # the folder is of another model
    assert "another settings" in capsys.readouterr().err


def test_a_model_for_a_figure_that_has_none_is_refused(tmp_path, capsys):
    made = ["reproduce", "dropout-codes", "--scale", "smoke", "--out", str(tmp_path)]
    assert main.main([*made, "--model", str(TINY)]) == 2
    assert "dropout-codes has no setting 'model'" in capsys.readouterr().err
