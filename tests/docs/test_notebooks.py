"""The example notebooks run from top to bottom, and hold their outputs, which are small."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import matplotlib
import nbformat
import notebook_kernel
import pytest
from places import ROOT

NOTEBOOKS = {p.stem: p for p in sorted((ROOT / "examples" / "notebooks").glob("*.ipynb"))}
IN_A_KERNEL = "torchvision"  # which imports the least

# As they stand, but for their amounts.
LESS = {
    "torchvision": {"limit=48": "limit=6", "moving-dot:60": "moving-dot:8"},
    "transformer_lens": {"[:50]": "[:20]"},
    "comparison": {"limit=800": "limit=250", "limit=400": "limit=150"},
}

LARGEST = 200_000  # bytes of a notebook
NEEDS = {"smollm2": "smollm2"}  # of what `make real` gets


def read(name: str) -> nbformat.NotebookNode:
    notebook = nbformat.read(NOTEBOOKS[name], as_version=4)
    for much, less in LESS.get(name, {}).items():
        assert any(much in cell.source for cell in notebook.cells), much
        for cell in notebook.cells:
            cell.source = cell.source.replace(much, less)
    return notebook


def test_each_holds_its_outputs_and_installs_what_it_needs():
    assert IN_A_KERNEL in NOTEBOOKS
    for path in NOTEBOOKS.values():
        code = [c for c in nbformat.read(path, as_version=4).cells if c.cell_type == "code"]
        assert "%pip install" in code[0].source, path
        assert any(cell.outputs for cell in code), f"run {path} and keep its outputs"
        kinds = {o.get("name", o.output_type) for cell in code for o in cell.outputs}
        assert kinds <= {"stdout", "execute_result", "display_data"}, path
        assert path.stat().st_size < LARGEST, path


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
def test_a_notebook_runs_in_a_kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(os.environ, "MPLBACKEND", "agg")
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    outputs = []
    with notebook_kernel.kernel(tmp_path) as client:
        for cell in read(IN_A_KERNEL).cells:
            if cell.cell_type == "code":
                kept = {"timeout": notebook_kernel.SECONDS, "output_hook": outputs.append}
                said = client.execute_interactive(cell.source, **kept)["content"]
                assert said["status"] == "ok", "\n".join(said["traceback"])
    kinds = {message["header"]["msg_type"] for message in outputs}
    assert "execute_result" in kinds


@pytest.mark.parametrize("name", sorted({*NOTEBOOKS} - {IN_A_KERNEL}))
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
def test_a_notebook_runs(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """In this process, which has imported already what a kernel would import anew."""
    from IPython.core.interactiveshell import InteractiveShell
    from traitlets.config import Config

    real = Path(os.environ.get("POLYCODE_CACHE") or ROOT / "build" / "real")
    if name in NEEDS and not (real / NEEDS[name]).is_dir():
        pytest.skip(f"{NEEDS[name]} is not in {real} (make real)")
    monkeypatch.setenv("POLYCODE_CACHE", str(real))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setitem(sys.modules, "__main__", sys.modules["__main__"])
    monkeypatch.chdir(tmp_path)
    matplotlib.use("agg")
    shell = InteractiveShell(config=Config({"HistoryManager": {"enabled": False}}))
    for cell in read(name).cells:
        if cell.cell_type == "code":
            shell.run_cell(cell.source).raise_error()
