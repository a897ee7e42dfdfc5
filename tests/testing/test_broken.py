"""Every check can fail: for each there is a plugin that breaks the one promise it is about."""

from __future__ import annotations

import json
from dataclasses import replace

import broken_adapters
import broken_explainers
import broken_metrics
import pytest
import torch

from polycode_plugins import testing
from polycode_plugins.commands import main
from polycode_plugins.testing import adapters, builtin, explainers, metrics

DATA = torch.randn(240, 8, generator=torch.Generator().manual_seed(3)).double()
POWER = float(DATA.square().sum(1).mean())


def adapter_case(kind):
    fresh = builtin.Images()
    fresh.load_state_dict(builtin._images().state_dict())
    return replace(builtin.module(), make=lambda: kind(fresh))


def metric_case(kind):
    return testing.MetricCase(make=kind, known=[testing.KnownAnswer(DATA, {"power": POWER}, 1e-9)])


KINDS = {
    "adapters": (adapters.CHECKS, broken_adapters.BROKEN, adapter_case),
    "metrics": (metrics.CHECKS, broken_metrics.BROKEN, metric_case),
    "explainers": (explainers.CHECKS, broken_explainers.BROKEN, testing.ExplainerCase),
}


@pytest.mark.parametrize(
    ("name", "plugin", "make"),
    [
        pytest.param(name, plugin, make, id=name)
        for _, broken, make in KINDS.values()
        for name, plugin in broken
    ],
)
def test_the_check_fails(name, plugin, make):
    (check,) = (c for c in testing.checks(make(plugin)) if c.name == name)
    outcome = check.run()
    assert outcome.state == "failed"
    assert outcome.reason


@pytest.mark.parametrize("kind", KINDS)
def test_every_check_has_a_plugin_that_breaks_it(kind):
    checks, broken, _ = KINDS[kind]
    assert {c.__name__ for c in checks} == {name for name, _ in broken}


def test_what_is_right_passes():
    report = testing.run(metric_case(broken_metrics.Power))
    assert report.ok, str(report)


def test_no_check_that_ran_is_no_pass():
    assert not testing.CheckReport("nothing", ()).ok
    skipped = testing.Outcome("one", "skipped", "why")
    report = testing.CheckReport("skipped", (skipped,))
    assert not report.ok
    assert "nothing ran" in str(report)


def test_the_command_says_what_failed(capsys, monkeypatch):
    assert main.main(["check", "spectrum", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["failed"] == 0
    assert main.main(["check", "broken_metrics:Lossy"]) == 1
    assert "failed   results_are_json" in capsys.readouterr().out
    assert main.main(["check", "spectrun"]) == 2
    assert "did you mean 'spectrum'" in capsys.readouterr().err
