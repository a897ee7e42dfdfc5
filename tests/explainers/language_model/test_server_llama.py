"""A real inference server, llama.cpp's, on the embedded model: numbers beside transformers' own."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from long_gpt2 import gguf_file, long_folder
from places import HELPERS
from planted_units import UNITS

from polycode_plugins.explainers.base import Explanation, JudgeTask
from polycode_plugins.explainers.language_model import LocalModel, OpenAIExplainer

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
def explainer(address, tmp_path, monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    one = OpenAIExplainer("tiny", base_url=address, store=tmp_path / "answers.sqlite")
    yield one
    one.close()


def test_the_probe_sees_what_it_gives(explainer):
    found = explainer.capabilities()
    assert (found.chat, found.completions, found.json_mode) == (True, True, True)
    assert found.prompt_logprobs == "absent"  # `echo` is ignored, and the field is there
    assert found.generated_logprobs == "true"
    assert found.method == "generated-logprobs"


def test_expected_values_are_those_of_transformers(explainer, folder, tmp_path):
    # All log-probabilities are asked for, since numbers are not among a tiny model's likeliest.
    found = replace(explainer.capabilities(), chat=False, top=VOCABULARY)
    explainer._known["tiny"] = found
    simulate = explainer.simulator()
    assert simulate.name == "token-by-token"
    theirs = simulate.simulate(EXPLANATION, [TOKENS])[0]
    exact = OpenAIExplainer(backend=LocalModel(folder), store=tmp_path / "exact.sqlite")
    ours = exact.simulator().simulate(EXPLANATION, [TOKENS])[0]
    exact.close()
    assert theirs.state == "ok", theirs.reason
    np.testing.assert_allclose(theirs.expected, ours.expected, atol=5e-3)
    assert ours.expected.std() > 0.02


def test_what_a_tiny_model_talks_is_no_number(explainer):
    explanations = explainer.explain_many(UNITS)
    assert all(e.text if e.state == "ok" else e.reason for e in explanations)
    found = explainer.simulator().simulate(EXPLANATION, [TOKENS])[0]
    assert (found.state, found.expected) == ("failed", None)
    verdicts = explainer.judge().judge_many([JudgeTask(EXPLANATION, "detection", (TOKENS,))])
    assert verdicts[0][0].answer is None
    assert verdicts[0][0].reason
    assert explainer.spent().tokens_in > 0
