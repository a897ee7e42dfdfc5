"""The job array of the page on data, run by local processes as it stands."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from places import ROOT

import polycode_plugins as pc
from polycode_plugins.loading import embedded_model

COUNT = 2


@pytest.mark.slow
def test_the_job_array_gives_what_one_process_gives(tmp_path: Path):
    page = (ROOT / "docs" / "data.md").read_text("utf-8")
    array, merge = re.findall(r"```bash\n(.*?)```", page, re.DOTALL)
    text = tmp_path / "text.txt"
    words = "some plain words of a document that is not long\n\n"
    text.write_text("".join(f"{i} {words}" for i in range(40)))
    shown = {
        "MODEL": str(embedded_model()),
        "TEXT": str(text),
        "SLURM_ARRAY_TASK_COUNT": str(COUNT),
        "OMP_NUM_THREADS": "1",
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }
    tasks = [{"SLURM_ARRAY_TASK_ID": str(index)} for index in range(COUNT)]
    for script, more in [*((array, task) for task in tasks), (merge, {})]:
        done = subprocess.run(
            ["bash", "-e", "-c", script],
            cwd=tmp_path, env={**os.environ, **shown, **more}, capture_output=True, text=True,
            check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
    joined = pc.Analysis.load(tmp_path / "whole")
    whole = pc.analyze(embedded_model(), text)
    assert joined.run["rows"]["digest"] == whole.run["rows"]["digest"]
    assert joined.run["shards"] == [[0, COUNT], [1, COUNT]]
    for site in whole:
        one, other = (a[site, "spectrum"].eigenvalues for a in (whole, joined))
        assert abs(one - other).max() <= 1e-5 * one[0]  # float32 passes hold other rows together
