"""Importing the whole package loads no optional library: each is imported where it is used."""

from __future__ import annotations

import subprocess
import sys

OPTIONAL = (
    "transformer_lens", "transformers", "datasets", "torchvision", "PIL", "nnsight", "aiohttp",
    "plotly", "torchmetrics", "skimage", "vllm", "lightning", "pytorch_lightning",
)  # fmt: skip

SCRIPT = """
import importlib, pkgutil, sys
import polycode_plugins
for module in pkgutil.walk_packages(polycode_plugins.__path__, "polycode_plugins."):
    # Of these the first is a program and the others are for those who have their library.
    if not module.name.endswith(
        ("__main__", ".torchmetrics", ".training.trainer", ".training.lightning")
    ):
        importlib.import_module(module.name)
print(*sorted(name for name in {optional!r} if name in sys.modules))
"""


def test_no_module_imports_an_optional_library():
    script = SCRIPT.format(optional=OPTIONAL)
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == []


def test_a_command_begins_without_numpy_and_torch():
    script = (
        "import sys, polycode_plugins.commands.main; print(*{'numpy', 'torch'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == []
