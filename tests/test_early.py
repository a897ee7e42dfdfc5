"""Programs in forks of the process that began early."""

from __future__ import annotations

import functools
import os
import signal
import sys
import time

import early


def test_a_program_has_the_paths_the_variables_and_the_folder_of_now(tmp_path, monkeypatch):
    (tmp_path / "just_written.py").write_text("VALUE = 7")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("JUST_SET", "8")
    monkeypatch.chdir(tmp_path)
    source = (
        "import os, just_written; print(just_written.VALUE, os.environ['JUST_SET'], os.getcwd())"
    )
    done = early.Program(functools.partial(exec, source, {})).end()
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.split() == ["7", "8", str(tmp_path)]
    assert "just_written" not in sys.modules


def test_what_one_program_does_to_itself_no_other_sees():
    spoilt = early.Program(
        functools.partial(exec, "import torch; torch.nn = None; 1 / 0", {})
    ).end()
    assert spoilt.returncode == 1
    assert "ZeroDivisionError" in spoilt.stderr
    done = early.Program(functools.partial(exec, "from torch import nn; nn.Linear(1, 1)", {})).end()
    assert (done.returncode, done.stderr) == (0, "")


def test_programs_run_side_by_side_and_can_be_killed():
    slow, quick = (early.Program(functools.partial(time.sleep, s)) for s in (60, 0))
    assert quick.end().returncode == 0
    os.kill(slow.pid, 0)  # is there
    slow.kill()
    assert slow.end().returncode == -signal.SIGKILL


def test_the_libraries_of_models_are_not_there_yet():
    """Or it were as large as what a worker becomes."""
    source = "import sys; print(*{'transformer_lens', 'transformers'} & set(sys.modules))"
    done = early.Program(functools.partial(exec, source, {})).end()
    assert (done.returncode, done.stdout.split()) == (0, [])
