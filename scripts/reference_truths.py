"""Fill in the truths and fingerprints of the reference cases, from their oracles.

    python scripts/reference_truths.py [--check]

Names, parameters, tolerances and sources in polycode_plugins/testing/reference/cases.json are
written by hand; the rest follows from them. --check only says whether the file is up to date.
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

from polycode_plugins.testing import reference
from polycode_plugins.testing.reference.catalogue import FILE, Case, fingerprint
from polycode_plugins.testing.reference.oracles import ORACLES

PATH = Path(reference.__file__).parent / FILE


def text() -> str:
    """The file as it should be: a line for each field, lists and settings on one."""
    blocks = []
    for fields in json.loads(PATH.read_text(encoding="utf-8"))["cases"]:
        bare = replace(Case(**fields), fingerprint={})
        truth = np.round(np.asarray(ORACLES[bare.quantity](bare)), 7) + 0.0  # no -0
        fields["truth"] = truth.tolist()
        fields["fingerprint"] = {k: fingerprint(v) for k, v in bare.arrays().items()}
        lines = ",\n".join(f"   {json.dumps(k)}: {json.dumps(v)}" for k, v in fields.items())
        blocks.append("  {\n" + lines + "\n  }")
    return '{\n "cases": [\n' + ",\n".join(blocks) + "\n ]\n}\n"


def main() -> None:
    made = text()
    if "--check" in sys.argv[1:]:
        sys.exit(0 if made == PATH.read_text(encoding="utf-8") else f"{PATH.name} is out of date")
    PATH.write_text(made, encoding="utf-8")


if __name__ == "__main__":
    main()
