"""The example notebooks run from top to bottom, and none is committed with its outputs."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import matplotlib
import nbformat
import pytest
from nbclient import NotebookClient
from places import ROOT

NOTEBOOKS = {p.stem: p for p in sorted((ROOT / "examples" / "notebooks").glob("*.ipynb"))}
IN_A_KERNEL = "transformer_lens"


def test_none_has_outputs():
    assert IN_A_KERNEL in NOTEBOOKS
    for path in NOTEBOOKS.values():
        cells = nbformat.read(path, as_version=4).cells
        assert not any(cell.get("outputs") for cell in cells), f"strip the outputs of {path}"


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
def test_a_notebook_runs_in_a_kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    notebook = nbformat.read(NOTEBOOKS[IN_A_KERNEL], as_version=4)
    monkeypatch.setitem(os.environ, "MPLBACKEND", "agg")
    client = NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}})
    client.execute()  # raises where a cell does


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted({*NOTEBOOKS} - {IN_A_KERNEL}))
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
def test_a_notebook_runs(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """In this process, which has imported already what a kernel would import anew."""
    from IPython.core.interactiveshell import InteractiveShell
    from traitlets.config import Config

    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setitem(sys.modules, "__main__", sys.modules["__main__"])
    monkeypatch.chdir(tmp_path)
    matplotlib.use("agg")
    shell = InteractiveShell(config=Config({"HistoryManager": {"enabled": False}}))
    for cell in nbformat.read(NOTEBOOKS[name], as_version=4).cells:
        if cell.cell_type == "code":
            shell.run_cell(cell.source).raise_error()
