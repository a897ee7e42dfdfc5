"""What is left, and said, when a command is stopped between its results and its report."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import forks
import pytest

import polycode_plugins as pc
from polycode_plugins.commands import main

SITES = ["--sites", "blocks.0.hook_resid_post", "--limit", "40", "--quiet"]


@pytest.mark.parametrize("closed", ["stdout", "stderr"])
def test_a_program_whose_pipe_is_closed_ends_without_a_word(closed: str):
    command = [sys.executable, "-m", "polycode_plugins", "plugins", "--no-import"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    for name, stream in (("stdout", process.stdout), ("stderr", process.stderr)):
        assert stream is not None
        if name == closed:
            stream.close()
    open_ = process.stderr if closed == "stdout" else process.stdout
    assert open_ is not None
    said = open_.read().decode()
    open_.close()
    assert process.wait() == 0, said
    assert (said == "") if closed == "stdout" else ("spectrum" in said)


def test_a_closed_pipe_has_its_results_and_report(tmp_path: Path):
    done = forks.command("analyze", *SITES, "--out", tmp_path / "run", unread=("stdout",))
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr
    assert (tmp_path / "run" / "report.html").is_file()


def test_messages_that_nobody_reads_end_no_run(tmp_path: Path):
    with_progress = SITES[:-1]
    done = forks.command("analyze", *with_progress, "--out", tmp_path / "run", unread=("stderr",))
    assert done.returncode == 0
    assert "blocks.0.hook_resid_post" in done.stdout
    assert (tmp_path / "run" / "report.html").is_file()


def test_a_stop_before_the_report_names_the_command_that_writes_it(
    tmp_path: Path, monkeypatch, capsys
):
    from polycode_plugins.report import folder

    out = str(tmp_path / "run")

    def stopped(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(folder, "write_folder", stopped)
        assert main.main(["analyze", *SITES, "--out", out]) == 130
    assert f"'polycode report {out}' writes the report" in capsys.readouterr().err
    assert main.main(["analyze", *SITES, "--out", out]) == 2
    assert f"'polycode report {out}' writes it" in capsys.readouterr().err
    assert main.main(["report", out]) == 0
    assert (tmp_path / "run" / "report.html").is_file()
    assert main.main(["analyze", *SITES, "--out", out]) == 2
    assert "polycode report" not in capsys.readouterr().err


def test_a_second_interruption_ends_the_program_without_a_word(monkeypatch):
    before = signal.getsignal(signal.SIGINT)

    def speaking() -> int:
        raise KeyboardInterrupt

    try:
        for first in (speaking, lambda: 130):
            signal.signal(signal.SIGINT, before)
            monkeypatch.setattr(main, "main", first)
            assert main.program() == 130
            child = os.fork()
            if not child:
                os.kill(os.getpid(), signal.SIGINT)
                os._exit(1)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 130
        signal.signal(signal.SIGINT, before)
        monkeypatch.setattr(main, "main", lambda: 0)
        assert main.program() == 0
        assert signal.getsignal(signal.SIGINT) is before
    finally:
        signal.signal(signal.SIGINT, before)


def test_an_interrupted_stream_says_to_repeat_the_command(tmp_path: Path, monkeypatch, capsys):
    from polycode_plugins.runs.passes import _Run

    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(_Run, "take", stopped)
    assert main.main(["analyze", *SITES, "--out", str(tmp_path / "run")]) == 130
    assert "repeat the same command to go on" in capsys.readouterr().err
    assert main.main(["analyze", *SITES]) == 130
    assert "without --out nothing is kept" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("shards", [2])
def test_merge_records_the_commands_of_all(tmp_path: Path, shards, capsys):
    folders = [str(tmp_path / str(i)) for i in range(shards)]
    for i, folder in enumerate(folders):
        given = ["analyze", *SITES, "--shard", f"{i}/{shards}", "--out", folder, "--no-report"]
        assert main.main(given) == 0
    whole = str(tmp_path / "whole")
    assert main.main(["merge", *folders, "--out", whole, "--no-report"]) == 0
    run = pc.Analysis.load(whole).run
    assert [c.split()[1] for c in run["commands"]] == ["analyze", "analyze", "merge"]
    assert run["shards"] == [[0, 2], [1, 2]]
    assert main.main(["merge", *folders, "--out", whole]) == 2
    assert "polycode report" in capsys.readouterr().err


def test_memory_reaches_the_run(capsys):
    assert main.main(["analyze", *SITES, "--memory", "1MiB"]) == 2
    assert "of a limit of 1.0 MiB" in capsys.readouterr().err
    assert main.main(["analyze", *SITES, "--memory", "much"]) == 2
    assert "such as 8GiB" in capsys.readouterr().err
