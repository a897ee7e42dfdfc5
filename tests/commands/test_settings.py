"""Settings from a file, names that are nearly right, and completion."""

from __future__ import annotations

import json
import subprocess

import pytest
from command_line import run

from polycode_plugins.commands.main import parser_of_all
from polycode_plugins.commands.parsing.parser import subcommands
from polycode_plugins.commands.parsing.settings import expanded
from polycode_plugins.errors import DataError

FILE = """
metrics = ["spectrum", "action"]
limit = 8
quiet = true
include_special = false
sites = ["blocks.0.hook_resid_post", "blocks.1.hook_resid_post"]
[spectrum]
fit = "huber"
ranks = [1, 40]
[option]
device = "cpu"
"""


def arguments(path, *given, command="analyze"):
    parsers = subcommands(parser_of_all())
    return expanded([command, "--settings", str(path), *given], parsers)


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "run.toml"
    path.write_text(FILE)
    return path


def test_a_file_becomes_arguments_and_the_command_line_goes_first(file):
    assert arguments(file, "--limit", "3", "--sites=x") == [
        "analyze",
        "--metrics=spectrum,action",
        "--quiet",
        "--set=spectrum.fit=huber",
        "--set=spectrum.ranks=[1, 40]",
        "--option=device=cpu",
        "--limit",
        "3",
        "--sites=x",
    ]
    assert "--sites=blocks.1.hook_resid_post" in arguments(file)


def test_a_run_records_what_the_file_said(file, tmp_path):
    assert run("analyze", "--settings", file, "--context", "32", "--out", tmp_path / "run") == 0
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert [m["metric"] for m in record["metrics"]] == ["spectrum", "action"]
    assert record["metrics"][0]["options"]["fit"] == "huber"
    assert record["options"]["limit"] == 8
    assert "--set=spectrum.fit=huber" in record["command"]
    assert "--settings" not in record["command"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("limt = 3", "did you mean 'limit'"),
        ("quiet = 3", "true or false"),
        ("limit = ", "cannot be read"),
        ("limit = true", "a text, a number"),
    ],
)
def test_what_a_file_misstates_is_one_sentence(tmp_path, text, said, capsys):
    path = tmp_path / "run.toml"
    path.write_text(text)
    with pytest.raises(DataError, match=said):
        arguments(path)
    assert run("analyze", "--settings", path) == 2
    assert capsys.readouterr().err.startswith("polycode: ")


def test_a_table_where_none_is_taken(tmp_path):
    path = tmp_path / "run.toml"
    path.write_text("[spectrum]\nfit = 'huber'")
    assert arguments(path, command="report")[1] == "--settings"  # which it then does not take


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["anlyze"], "did you mean 'analyze'"),
        (["analyze", "--limt", "3"], "did you mean '--limit'"),
        (["compare", "--calibrate", "liner"], "did you mean 'linear'"),
    ],
)
def test_what_is_nearly_right_is_suggested_in_one_line(given, said, capsys):
    with pytest.raises(SystemExit) as caught:
        run(*given)
    assert caught.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("polycode: ")
    assert said in line


@pytest.mark.parametrize("command", ["", *subcommands(parser_of_all())])
def test_every_help_has_an_example(command, capsys):
    with pytest.raises(SystemExit) as caught:
        run(*[command] if command else [], "--help")
    assert caught.value.code == 0
    said = capsys.readouterr().out
    assert "\n  polycode " in said
    if command in ("", "analyze"):
        assert "metrics: action, capacity" in said


def test_completion_knows_commands_options_and_plugins(capsys):
    for shell in ("bash", "zsh", "fish"):
        assert run("completion", shell) == 0
        said = capsys.readouterr().out
        assert "token-lookup" in said
        assert "explainer-model" in said
    assert run("completion", "bash") == 0
    script = capsys.readouterr().out
    ask = "COMP_WORDS=({}); COMP_CWORD={}; _polycode; echo ${{COMPREPLY[@]}}"
    for words, expected in (
        ("polycode ana", "analyze"),
        ("polycode analyze --batch", "--batch-size"),
        ("polycode analyze --metrics spe", "spectrum"),
    ):
        line = ask.format(words, len(words.split()) - 1)
        done = subprocess.run(
            ["bash", "-c", f"{script}\n{line}"], capture_output=True, text=True, check=True
        )
        assert done.stdout.split() == [expected]
