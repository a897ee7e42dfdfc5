"""Reference values: questions with known answers, which any package can be held against.

    from polycode_plugins.testing import reference

    for case in reference.cases():
        arrays = case.arrays()                  # or NAME.npz, from `polycode reference --export`
        ...
    reference.judge({"quantised-3-bits": 0.40}, reference.cases())
    reference.run(reference.cases(), measures={"mutual_information": mine})

`cases.json` in this folder is the data file; `generators` say how arrays follow from seeds,
`oracles` where the truths come from, `measures` what this package answers.
"""

from __future__ import annotations

from polycode_plugins.testing.reference.catalogue import Case, Verdict, cases, export, judge
from polycode_plugins.testing.reference.measures import MEASURES, Measure, answer, run

__all__ = [
    "MEASURES",
    "Case",
    "Measure",
    "Verdict",
    "answer",
    "cases",
    "export",
    "judge",
    "run",
]
