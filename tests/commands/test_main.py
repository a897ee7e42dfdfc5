"""The command line as a whole: usage, mistakes, interruptions."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from command_line import run

from polycode_plugins.commands import main
from polycode_plugins.runs import analyze


@pytest.mark.parametrize(
    "given",
    ["spectrum.ranks=5", "spectrum.ranks=1,2,3", "spectrum.seed=abc", "spectrum.positions=up",
     "spectrum.epsilon=null", "spectrum.fit=[]", "spectrum.label=3", "spectrum.eigenvectors=0.5"],
)  # fmt: skip
def test_a_setting_that_is_not_taken_is_one_sentence(given, capsys):
    assert main.main(["analyze", "--limit", "8", "--quiet", "--set", given]) == 2
    (said,) = capsys.readouterr().err.splitlines()
    assert said.startswith("polycode: ")
    assert "spectrum" in said


@pytest.mark.parametrize(
    "arguments",
    [
        ["analyze", "--option", "device=nowhere"],
        ["analyze", "--option", "dtype=7"],
        ["analyze", "--option", 'device={"a": 1}'],
        ["explain", "--explainer", "ngram", "--set", "size=[]"],
        ["explain", "--explainer", "token-lookup", "--set", "n=-1"],
        ["analyze", "--model", "\x00"],
        ["analyze", "--text", "\x00"],
        ["analyze", "--sites", "[", "--limit", "4"],
        ["report", "\x00"],
        ["check", "\x00:x"],
        ["check", ":"],
        ["check", "os:"],
        ["merge", "/dev/null", "--out", "/dev/null"],
    ],
)
def test_odd_arguments_are_one_sentence(arguments, capsys):
    assert main.main(arguments) == 2
    said = capsys.readouterr().err.splitlines()
    assert sum(line.startswith("polycode: ") for line in said) == 1
    assert all(character.isprintable() for line in said for character in line)


def test_usage_errors_and_help(capsys):
    with pytest.raises(SystemExit) as caught:
        run("analyze", "--no-such-flag")
    assert caught.value.code == 2
    assert run() == 0
    assert "analyze" in capsys.readouterr().out


def test_help_does_not_wait_for_torch():
    script = (
        "import sys; from polycode_plugins.commands import main\n"
        "try: main.main(['--help'])\n"
        "except SystemExit: print('torch' in sys.modules, file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stderr.strip() == "False"


def test_an_interruption_says_whether_anything_is_kept(tmp_path, capsys, monkeypatch):
    def stopped(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(analyze, "analyze", stopped)
    assert run("analyze") == 130
    assert capsys.readouterr().err.splitlines() == [
        "analysing the embedded tiny-gpt2 on the embedded data ...",
        "polycode: interrupted; without --out nothing is kept",
    ]
    assert run("analyze", "--out", tmp_path) == 130
    assert "repeat the same command to go on" in capsys.readouterr().err


def test_progress_goes_to_standard_error(capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    assert run("analyze", "--limit", "40", "--json", "--sites", "blocks.0.hook_resid_post") == 0
    printed, said = capsys.readouterr()
    json.loads(printed)
    assert "streaming" in said
    assert "computing" in said
