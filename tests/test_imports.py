"""Importing the whole package loads no optional library: each is imported where it is used."""

from __future__ import annotations

import functools
import subprocess
import sys

import early

OPTIONAL = (
    "transformer_lens", "transformers", "datasets", "torchvision", "PIL", "nnsight", "aiohttp",
    "plotly", "torchmetrics", "skimage", "vllm", "lightning", "pytorch_lightning",
)  # fmt: skip

ALL = """
import importlib, pkgutil, sys
import polycode_plugins
for module in pkgutil.walk_packages(polycode_plugins.__path__, "polycode_plugins."):
    # Of these the first is a program and the others are for those who have their library.
    if not module.name.endswith(
        ("__main__", ".torchmetrics", ".training.trainer", ".training.lightning")
    ):
        importlib.import_module(module.name)
"""
NONE = "import torch"


def imported(source: str) -> set[str]:
    """The optional libraries that a program imports which has torch already."""
    source += f"\nimport sys\nprint(*[name for name in {OPTIONAL!r} if name in sys.modules])"
    done = early.Program(functools.partial(exec, source, {})).end()
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


def test_no_module_imports_an_optional_library():
    assert imported(NONE) == set()  # it would not be seen
    assert imported(ALL) == set()


WRONG = (
    ["analyze", "--metrics", "spectrm"],
    ["analyze", "--adapter", "modul"],
    ["compare", "--explainer", "ngra"],
    ["explain", "--explainer", "ngra"],
    ["sites", "--adapter", "modul"],
)


def test_a_command_begins_without_numpy_and_torch():
    script = (
        "import sys\nfrom polycode_plugins.commands import main\n"
        f"assert [main.main(given) for given in {WRONG!r}] == [2] * {len(WRONG)}\n"
        "print(*{'numpy', 'torch'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == []
