"""Every check of the conformance kit, one test for each."""

from __future__ import annotations

import pytest
from polycode_example import cases

from polycode_plugins import testing

CHECKS = [
    check
    for case in (cases.adapter(), cases.metric(), cases.explainer())
    for check in testing.checks(case)
]


@pytest.mark.parametrize("check", CHECKS, ids=str)
def test_keeps_its_contract(check: testing.Check) -> None:
    """The check's own documentation says what passing it proves."""
    check()
