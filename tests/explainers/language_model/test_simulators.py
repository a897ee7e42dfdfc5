"""Planted units get their explanation and exact expected values, whatever the server gives."""

from __future__ import annotations

import numpy as np
import pytest
from openai_rules import EXPECTED_FIRES, EXPECTED_SILENT, fires
from planted_units import UNITS

from polycode_plugins.explainers.base import SimulationTask
from polycode_plugins.explainers.language_model import RemoteError


def tasks(explanations):
    return [
        SimulationTask(e, tuple(r.tokens for r in u.score.all()))
        for e, u in zip(explanations, UNITS, strict=True)
    ]


@pytest.mark.parametrize(
    ("fault", "simulator", "method", "values"),
    [
        ("plain", "auto", "prompt-logprobs", (EXPECTED_SILENT, EXPECTED_FIRES)),
        ("few", "auto", "prompt-logprobs", (EXPECTED_SILENT, EXPECTED_FIRES)),
        ("generated", "auto", "generated-logprobs", (EXPECTED_SILENT, EXPECTED_FIRES)),
        ("noecho", "auto", "generated-logprobs", (EXPECTED_SILENT, EXPECTED_FIRES)),
        ("shift", "auto", "generated-logprobs", (EXPECTED_SILENT, EXPECTED_FIRES)),
        ("chance", "auto", "generated-logprobs", (EXPECTED_SILENT, EXPECTED_FIRES)),
        ("text", "auto", "text", (0, 10)),
        ("strict", "text", "text", (0, 10)),
    ],
)
def test_planted_units_are_explained_and_simulated(explainer, fault, simulator, method, values):
    one = explainer(fault, simulator=simulator)
    explanations = one.explain_many(UNITS)
    assert [e.text for e in explanations] == [u.unit for u in UNITS]
    simulate = one.simulator()
    assert simulate.name == method
    for unit, found in zip(UNITS, simulate.simulate_many(tasks(explanations)), strict=True):
        for record, simulation in zip(unit.score.all(), found, strict=True):
            assert simulation.state == "ok", simulation.reason
            expected = [values[fires(unit.unit, t)] for t in record.tokens]
            np.testing.assert_allclose(simulation.expected, expected, atol=1e-9)
            assert simulation.cost.requests == 1


def test_token_by_token_gives_the_same_values(explainer):
    one = explainer("plain", simulator="token-by-token", probe_again=True)
    # The server has chat, so its generated log-probabilities were judged there.
    explanation = one.explain(UNITS[0])
    record = UNITS[0].score.top[0]
    simulation = one.simulator().simulate(explanation, [record.tokens])[0]
    expected = [(EXPECTED_SILENT, EXPECTED_FIRES)[fires(UNITS[0].unit, t)] for t in record.tokens]
    np.testing.assert_allclose(simulation.expected, expected, atol=1e-9)
    assert simulation.cost.requests == len(record.tokens)


@pytest.mark.parametrize(
    ("fault", "probed", "reason"),
    [
        ("prose", "text", "the answer is not JSON"),
        ("counts", "text", "the answer has too many or too few rows"),
        ("other", "text", "the answer belongs to another request"),
        ("cut", "text", "the answer was cut off"),
        ("garbage", "text", "the answer was not JSON: proxy"),
        ("down", "text", "the server answered 500 again and again: broken"),
        (
            "400",
            "text",
            "the server refused the request (400): this model's maximum context length is 8",
        ),
        ("counts", "prompt-logprobs", "the log-probabilities do not belong to the tokens"),
        ("other", "prompt-logprobs", "the answer belongs to another request"),
        ("noecho", "prompt-logprobs", "the log-probabilities do not belong to the tokens"),
        ("prose", "generated-logprobs", "the answer is not JSON"),
        ("counts", "generated-logprobs", "the answer has too many or too few rows"),
    ],
)
def test_a_server_that_breaks_after_the_probe_gives_failures_not_numbers(
    explainer, server, fault, probed, reason
):
    one = explainer("plain", simulator=probed, attempts=2)
    explanations = one.explain_many(UNITS)
    simulate = one.simulator()
    one.session.backend.identity = server.url(fault)
    asked = tasks(explanations)
    some = SimulationTask(asked[0].explanation, asked[0].texts[:4])
    found = simulate.simulate_many([some])[0]
    assert {(s.state, s.reason) for s in found} == {("failed", reason)}
    assert all(s.expected is None for s in found)
    before = len(server.bodies)
    with pytest.raises(RemoteError, match=r"simulations by 'planted' .* all failed, ") as caught:
        simulate.simulate_many(asked)
    assert reason in str(caught.value)
    assert len(server.bodies) < before + 2 * sum(len(task.texts) for task in asked)
    # Failures are attempts: what the server says when it has recovered counts.
    one.session.backend.identity = server.url()
    for found in simulate.simulate_many(asked):
        assert {s.state for s in found} == {"ok"}


def test_a_failed_explanation_is_not_asked_about(explainer, server):
    one = explainer("text")
    simulate = one.simulator()
    before = len(server.bodies)
    failed = type(one.explain(UNITS[0])).failed("u", "openai", "why")
    asked = len(server.bodies)
    found = simulate.simulate(failed, [("a", "b")])
    assert (found[0].state, len(server.bodies)) == ("failed", asked)
    assert asked > before


def test_results_of_two_simulators_do_not_meet_in_one_store(explainer):
    first = explainer("plain", simulator="text", again=True)
    first.simulator()
    first.close()
    with pytest.raises(RemoteError, match=r"by 'text'.*'prompt-logprobs'.*another store"):
        explainer("plain", again=True).simulator()


def test_what_the_backend_lacks_cannot_be_forced(explainer):
    with pytest.raises(RemoteError, match=r"can serve text"):
        explainer("text", simulator="prompt-logprobs").simulator()
