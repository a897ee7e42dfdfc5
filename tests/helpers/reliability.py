"""`benchmarks/reliability` as a program, whole or with a fault planted in what it tries."""

from __future__ import annotations

import runpy
import sys

from places import ROOT

from polycode_plugins.files import storage

#: What it imports for analyses of a model of one's own.
IMPORTS = (
    *("filelock", "sklearn.linear_model", "torch.distributed", "tqdm", "pandas"),
    *("pyarrow.pandas_compat", "pyarrow.parquet"),
    *("polycode_plugins.adapters.module", "polycode_plugins.experiments"),
    *("polycode_plugins.metrics.spectrum.metric", "polycode_plugins.runs.analyze"),
)


def program(*arguments: str, late: bool = False) -> None:
    """late: files do not wait for run.json, but replace the earlier ones before."""
    if late:
        storage.following = lambda path: path
    sys.argv = ["reliability", *arguments]
    runpy.run_path(str(ROOT / "benchmarks" / "reliability"), run_name="__main__")
