"""The job array of the page on data, run by local processes as it stands."""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from pathlib import Path

import forks
from places import ROOT

import polycode_plugins as pc
from polycode_plugins.loading import embedded_model

COUNT = 2


def commands(script: str, folder: Path, **variables: str) -> list[list[str]]:
    """The arguments of each `polycode` that a script runs, as the shell passes them."""
    with tempfile.TemporaryDirectory() as home:
        stand_in, log = Path(home) / "polycode", Path(home) / "log"
        stand_in.write_text(f"#!/bin/bash\nprintf '%s\\0' \"$@\" $'\\n' >> {log}\n")
        stand_in.chmod(0o755)
        path = f"{home}{os.pathsep}{os.environ['PATH']}"
        environment = {**os.environ, **variables, "PATH": path}
        subprocess.run(["bash", "-e", "-c", script], cwd=folder, env=environment, check=True)
        return [line.split("\0") for line in log.read_text().split("\0\n\0")[:-1]]


def test_the_job_array_gives_what_one_process_gives(tmp_path: Path, monkeypatch):
    page = (ROOT / "docs" / "data.md").read_text("utf-8")
    array, merge = re.findall(r"```bash\n(.*?)```", page, re.DOTALL)
    text = tmp_path / "text.txt"
    words = "some plain words of a document that is not long\n\n"
    text.write_text("".join(f"{i} {words}" for i in range(40)))
    shown = {
        "MODEL": str(embedded_model()),
        "TEXT": str(text),
        "SLURM_ARRAY_TASK_COUNT": str(COUNT),
    }
    tasks = [{"SLURM_ARRAY_TASK_ID": str(index)} for index in range(COUNT)]
    monkeypatch.chdir(tmp_path)
    for script, more in [*((array, task) for task in tasks), (merge, {})]:
        (given,) = commands(script, tmp_path, **shown, **more)
        done = forks.command(*given)
        assert done.returncode == 0, done.stderr
    joined = pc.Analysis.load(tmp_path / "whole")
    whole = pc.analyze(embedded_model(), text)
    assert joined.run["rows"]["digest"] == whole.run["rows"]["digest"]
    assert joined.run["shards"] == [[0, COUNT], [1, COUNT]]
    for site in whole:
        one, other = (a[site, "spectrum"].eigenvalues for a in (whole, joined))
        assert abs(one - other).max() <= 1e-5 * one[0]  # float32 passes hold other rows together
