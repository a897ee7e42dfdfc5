"""A conformance kit for plugins: does an adapter, a metric or an explainer keep its contract?

Write a case and hand it to `checks`; one parametrised test runs them all under any test runner:

    CASE = testing.MetricCase(make=MyMetric)

    @pytest.mark.parametrize("check", testing.checks(CASE), ids=str)
    def test_conforms(check):
        check()

`polycode check NAME` and `polycode check my_package.cases:CASE` run the same from the shell.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from polycode_plugins.errors import PluginError, near
from polycode_plugins.testing import adapters, explainers, metrics
from polycode_plugins.testing.cases import (
    AdapterCase,
    Case,
    ExplainerCase,
    KnownAnswer,
    MetricCase,
    decaying,
)
from polycode_plugins.testing.outcome import (
    Check,
    CheckFailed,
    CheckReport,
    ExpectedFailure,
    Outcome,
    Skipped,
    run_all,
)

__all__ = [
    "AdapterCase",
    "Case",
    "Check",
    "CheckFailed",
    "CheckReport",
    "ExpectedFailure",
    "ExplainerCase",
    "KnownAnswer",
    "MetricCase",
    "Outcome",
    "Skipped",
    "checks",
    "decaying",
    "run",
]


def checks(case: Case) -> list[Check]:
    """Every check that applies to plugins of the case's kind.

    Raises:
        PluginError: for what is no case, and expected failures of checks that there are not.
    """
    functions: tuple[Callable[[Any], None], ...]
    if isinstance(case, AdapterCase):
        functions = adapters.CHECKS
    elif isinstance(case, MetricCase):
        functions = metrics.CHECKS
    elif isinstance(case, ExplainerCase):
        functions = explainers.CHECKS
    else:
        raise PluginError(
            f"{case!r} is no case; make an AdapterCase, MetricCase or ExplainerCase of "
            "polycode_plugins.testing"
        )
    known = [function.__name__ for function in functions]
    for name in case.expected_failures:
        if name not in known:
            raise PluginError(
                f"expected_failures names {name!r}, which is no check of a "
                f"{type(case).__name__}{near(name, known)}; take it out"
            )
    return [Check(f, case, case.expected_failures.get(f.__name__)) for f in functions]


def run(case: Case, subject: str = "plugin") -> CheckReport:
    """Run every check of a case; what the plugin raises becomes an outcome."""
    return run_all(subject, checks(case))
