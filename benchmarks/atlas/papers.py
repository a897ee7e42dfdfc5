"""The papers' figures of language models on SmolLM2, on a page of their own.

Smaller than the laptop scale of the embedded model: the network is 700 times as large.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.atlas.networks import ROOT, cache
from polycode_plugins.experiments import page, reproduce
from polycode_plugins.files.storage import write_text

NAME = "smollm2-figures"
TITLE = """# The papers' figures on SmolLM2

The language-model figures of Marshall & Kirchner 2024 on SmolLM2-135M-Instruct (30 blocks, weights
dequantised from 4 bits, [how to get it](real-networks.md)) and 300 documents of natural text,
offline. Beside them the same figures on the [embedded model](experiments.md), and the controls that
tell basis from distribution in [Neurons or projections](explanations.md#basis-or-distribution).
"""
CHANGES: dict[str, dict[str, Any]] = {
    "language-model-spectra": {
        "documents": 300,
        "followed": 12,
        "projections": 500,
    },
    "projection-explanations": {
        "sites": "blocks.*[05].mlp.hook_post",
        "windows": 300,
        "units": 25,
    },
}


def measure(out: Path, docs: Path) -> None:
    """Make the figures that are not made yet, and write the page of all that are."""
    folder = cache()
    if folder.is_relative_to(ROOT):  # as the commands on the page have it
        folder = folder.relative_to(ROOT)
    data = {"model": str(folder / "smollm2"), "texts": str(folder / "texts" / "texts.jsonl")}
    made = []
    for name, changes in CHANGES.items():
        made.append(reproduce(name, out=out / "papers", changes=data | changes))
        page.copy_pictures(made, docs / NAME)
        _, text = page.markdown(made, NAME).split("\n", 1)
        write_text(docs / f"{NAME}.md", TITLE + text)
