"""The probe tells a server that gives log-probabilities from one that only has the field."""

from __future__ import annotations

import pytest

from polycode_plugins.explainers.language_model import Capabilities, RemoteError


@pytest.mark.parametrize(
    ("fault", "chat", "prompt", "generated", "method"),
    [
        ("plain", True, "true", "true", "prompt-logprobs"),
        ("few", True, "true", "true", "prompt-logprobs"),
        ("429", True, "true", "true", "prompt-logprobs"),
        ("shift", True, "shifted", "true", "generated-logprobs"),
        ("chance", True, "chance", "true", "generated-logprobs"),
        ("noecho", True, "absent", "true", "generated-logprobs"),
        ("counts", True, "absent", "true", "generated-logprobs"),
        ("other", True, "absent", "true", "generated-logprobs"),
        ("generated", True, "absent", "true", "generated-logprobs"),
        ("text", True, "absent", "absent", "text"),
        ("strict", True, "absent", "true", "generated-logprobs"),
    ],
)
def test_each_server_is_seen_through(explainer, fault, chat, prompt, generated, method):
    found = explainer(fault).capabilities()
    if fault == "strict":  # its completions refuse max_tokens
        assert not found.completions
        assert (found.limit, found.restriction) == ("max_completion_tokens", "")
    assert (found.chat, found.prompt_logprobs, found.generated_logprobs) == (
        chat,
        prompt,
        generated,
    )
    assert found.method == method
    assert found.top == {"plain": 15, "429": 15, "few": 5}.get(fault, found.top)
    assert found.ten


def test_it_is_remembered_and_probed_again_on_request(explainer, server):
    first = explainer("shift", again=True)
    found = first.capabilities()
    first.close()
    asked = len(server.bodies)
    second = explainer("shift", again=True)
    assert second.capabilities() == found
    assert len(server.bodies) == asked
    assert isinstance(found, Capabilities)
    second.close()
    third = explainer("shift", again=True, probe_again=True)
    assert third.capabilities() == found
    assert len(server.bodies) == 2 * asked


@pytest.mark.parametrize("fault", ["404", "400"])
def test_a_server_that_answers_nothing(explainer, fault):
    with pytest.raises(RemoteError, match="answers neither chat nor completions"):
        explainer(fault).capabilities()


@pytest.mark.parametrize("fault", ["down", "garbage", "cut"])
def test_a_server_that_is_broken_is_not_taken_for_a_poor_one(explainer, fault):
    with pytest.raises(RemoteError, match="could not be probed"):
        explainer(fault).capabilities()


def test_no_trustworthy_way_to_simulate():
    with pytest.raises(RemoteError, match="cannot simulate"):
        _ = Capabilities(completions=True, prompt_logprobs="shifted").method
