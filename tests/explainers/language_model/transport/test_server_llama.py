"""A real inference server, llama.cpp's, on the embedded model: numbers beside transformers' own."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from long_gpt2 import CHAT, gguf_file, long_folder
from places import HELPERS
from planted_units import UNITS

from polycode_plugins.explainers.base import Explanation, JudgeTask
from polycode_plugins.explainers.language_model import LocalModel, OpenAIExplainer
from polycode_plugins.explainers.language_model.answers.expectations import yes_probabilities
from polycode_plugins.explainers.language_model.answers.message import positions_of, text_of

pytest.importorskip(
    "xllamacpp", reason="xllamacpp, a wheel of llama.cpp's server, is not installed"
)
pytest.importorskip("gguf", reason="gguf, which writes its models, is not installed")
pytestmark = pytest.mark.server

TOKENS = ("def", "(", ")", " red")
EXPLANATION = Explanation("u", "openai", "closing brackets")
VOCABULARY = 4096


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return long_folder(tmp_path_factory.mktemp("model") / "long")


@pytest.fixture(scope="module")
def address(folder):
    model = gguf_file(folder, folder.parent / "long.gguf")
    script = HELPERS / "llama_server.py"
    with open(folder.parent / "log", "w") as log:
        process = subprocess.Popen(
            [sys.executable, str(script), str(model)], stdout=subprocess.PIPE, stderr=log, text=True
        )
    try:
        lines = iter(process.stdout.readline, "")
        found = next((line.split()[-1] for line in lines if line.startswith("listening at")), None)
        assert found, (folder.parent / "log").read_text()[-2000:]
        yield f"{found}/v1"
    finally:
        process.kill()
        process.wait(30)
        process.stdout.close()


@pytest.fixture
def make(address, tmp_path, monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    made = []

    def explainer(**options):
        store = tmp_path / f"answers{len(made)}.sqlite"
        made.append(OpenAIExplainer("tiny", base_url=address, store=store, **options))
        return made[-1]

    yield explainer
    for one in made:
        one.close()


def test_the_probe_sees_what_it_gives(make):
    found = make().capabilities()
    assert (found.chat, found.completions, found.restriction) == (True, True, "grammar")
    assert found.prompt_logprobs == "absent"  # `echo` is ignored, and the field is there
    assert found.generated_logprobs == "true"
    assert found.bias  # it can choose among the digits alone
    assert found.methods() == ["generated-logprobs", "token-by-token", "text"]


def test_expected_values_are_those_of_transformers(make, folder, tmp_path):
    simulate = make(simulator="token-by-token").simulator()
    assert simulate.highest == 9
    theirs = simulate.simulate(EXPLANATION, [TOKENS])[0]
    exact = OpenAIExplainer(backend=LocalModel(folder), store=tmp_path / "exact.sqlite")
    known = replace(exact.capabilities(), ten=False)
    exact._known = dict.fromkeys(exact._known, known)
    ours = exact.simulator().simulate(EXPLANATION, [TOKENS])[0]
    exact.close()
    assert theirs.state == "ok", theirs.reason
    np.testing.assert_allclose(theirs.expected, ours.expected, atol=5e-3)
    assert ours.expected.std() > 0.02


def test_held_to_a_form_a_tiny_model_simulates_and_judges(make):
    explainer = make()
    explanations = explainer.explain_many(UNITS)  # as poor as they may be
    assert all(e.text if e.state == "ok" else e.reason for e in explanations)
    found = explainer.simulator().simulate(EXPLANATION, [TOKENS])[0]
    assert found.state == "ok", found.reason
    assert ((found.expected >= 0) & (found.expected <= 10)).all()
    task = JudgeTask(EXPLANATION, "detection", (TOKENS, TOKENS))
    assert {v.answer for v in explainer.judge().judge_many([task])[0]} <= {True, False}
    assert explainer.spent().tokens_in > 0


def test_probabilities_of_yes_are_those_of_transformers(make, folder):
    # llama.cpp lists what is likely before its grammar chooses. It holds the answer to a form, but
    # the tokens of the form are the model's, so the same tokens are given to transformers.
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder, chat_template=CHAT)
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    judge, texts = make().judge(), (TOKENS, (" red", " house"), ("x",))
    [request] = judge._requests(JudgeTask(EXPLANATION, "detection", texts))
    raw = judge.model.session.ask([request])[0].raw
    positions = positions_of(raw)
    prompt = tokenizer.apply_chat_template(
        request.body["messages"], tokenize=False, add_generation_prompt=True
    )
    ids = tokenizer(prompt, add_special_tokens=False)["input_ids"]
    known = {p.token: tokenizer(p.token, add_special_tokens=False)["input_ids"] for p in positions}
    said = yes_probabilities(positions, text_of(raw), len(texts))
    exact = []
    for position in positions:
        if position.token.strip() in ("0", "1"):
            blanks = position.token[:-1]
            no, yes = (tokenizer(f"{blanks}{answer}")["input_ids"][-1] for answer in (0, 1))
            with torch.no_grad():
                p = model(torch.tensor([ids])).logits[0, -1].double().softmax(-1)
            exact.append(float(p[yes] / (p[no] + p[yes])))
        ids = ids + known[position.token]
    exact = exact[-len(texts) :]
    listed = [(a, b) for a, b in zip(said, exact, strict=True) if a is not None]
    assert listed  # this model is unsure: the other answer is not always among the likeliest 20
    for theirs, ours in listed:
        assert theirs == pytest.approx(ours, abs=5e-3)


def test_one_slot_is_enough_for_many_requests(make):
    # What is under way waits in the server: no more than comes back in good time.
    explainer = make(concurrency=32, timeout=60, simulator="token-by-token")
    texts = [[f"word{i}", *TOKENS] for i in range(12)]
    found = explainer.simulator().simulate(EXPLANATION, texts)
    assert [s.state for s in found] == ["ok"] * 12
    assert explainer.spent().lost == 0
