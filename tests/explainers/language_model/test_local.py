"""A model in this process: exact log-probabilities, as transformers itself gives them."""

from __future__ import annotations

import functools
import json

import numpy as np
import pytest
import torch
from long_gpt2 import long_folder, talking_folder
from planted_units import UNITS

from polycode_plugins.errors import DataError, ModelError
from polycode_plugins.explainers.base import Explanation, JudgeTask
from polycode_plugins.explainers.language_model import LocalModel, OpenAIExplainer, prompts
from polycode_plugins.explainers.language_model.answers.message import positions_of
from polycode_plugins.explainers.language_model.transport.failures import RemoteError
from polycode_plugins.explainers.language_model.transport.request import CHAT, Request
from polycode_plugins.loading import embedded_model

TOKENS = ("def", "(", "\n", " é", "10")
EXPLANATION = Explanation("u", "openai", "closing brackets")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return long_folder(tmp_path_factory.mktemp("model") / "long")


@pytest.fixture(scope="module")
def local(folder):
    return LocalModel(folder)


@pytest.fixture
def make(tmp_path):
    made = []

    def explainer(backend, **options):
        made.append(OpenAIExplainer(backend=backend, store=tmp_path / f"{len(made)}.db", **options))
        return made[-1]

    yield explainer
    for one in made:
        one.close()


@functools.cache
def exact(folder, tokens):
    """Expected values straight from transformers: one forward pass for each token."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    numbers = [tokenizer.convert_tokens_to_ids(str(v)) for v in range(11)]
    values = []
    for i in range(len(tokens)):
        prompt = prompts.simulate_next(EXPLANATION.text, tokens, i, top=10)
        ids = tokenizer(prompt, return_tensors="pt")["input_ids"]
        with torch.no_grad():
            p = model(ids).logits[0, -1].double().softmax(-1)[numbers]
        values.append(float((p * torch.arange(11)).sum() / p.sum()))
    return np.array(values)


@pytest.mark.parametrize("simulator", ["auto", "token-by-token"])
def test_expected_values_are_those_of_transformers(make, folder, local, simulator):
    one = make(local)
    if simulator != "auto":
        caps = one.capabilities()
        one._known[next(iter(one._known))] = type(caps)(
            completions=True, generated_logprobs="true", top=caps.top, ten=caps.ten
        )
    simulate = one.simulator()
    assert simulate.name == ("prompt-logprobs" if simulator == "auto" else simulator)
    found = simulate.simulate(EXPLANATION, [TOKENS])[0]
    assert found.state == "ok", found.reason
    np.testing.assert_allclose(found.expected, exact(folder, TOKENS), atol=1e-4)
    assert found.expected.std() > 0


class Shifted(LocalModel):
    """Off by one, as a server is known to be."""

    def send(self, request, key):
        raw = super().send(request, key)
        listed = raw["choices"][0].get("logprobs")
        if listed and request.body.get("echo"):
            for name in ("token_logprobs", "top_logprobs"):
                listed[name] = [*listed[name][1:], listed[name][-1]]
        return raw


class Noise(LocalModel):
    """Numbers for the prompt that have nothing to do with it."""

    def send(self, request, key):
        raw = super().send(request, key)
        listed = raw["choices"][0].get("logprobs")
        if listed and request.body.get("echo"):
            np.random.default_rng(0).shuffle(listed["top_logprobs"])
        return raw


@pytest.mark.parametrize(
    ("kind", "truth"), [(LocalModel, "true"), (Shifted, "shifted"), (Noise, "chance")]
)
def test_a_weak_model_is_seen_through_as_well(make, kind, truth):
    # The tiny model cannot go on with a repeated text, so generating the tokens decides.
    assert make(kind(embedded_model())).capabilities().prompt_logprobs == truth


def test_explanations_are_the_same_again_and_differ_by_seed(make, local):
    texts = [[e.text for e in make(local).explain_many(UNITS, seed=seed)] for seed in (0, 0, 1)]
    assert texts[0] == texts[1]
    assert texts[0] != texts[2]


def test_a_prompt_that_is_too_long_fails_alone(make, local):
    one = make(LocalModel(embedded_model()))
    with pytest.raises(RemoteError, match="the prompt is longer than the model can read"):
        one.simulator()
    found = make(local).simulator().simulate(EXPLANATION, [TOKENS, ("word",) * 4000])
    assert [s.state for s in found] == ["ok", "failed"]
    assert found[1].reason == "the prompt is longer than the model can read"


def test_digits_that_are_split_shrink_the_scale(make, folder, tmp_path):
    split = tmp_path / "split"
    split.mkdir()
    for file in folder.iterdir():
        (split / file.name).write_bytes(file.read_bytes())
    told = json.loads((split / "tokenizer.json").read_text())
    merges = [m if isinstance(m, list) else m.split(" ") for m in told["model"]["merges"]]
    told["model"]["merges"] = [m for m in merges if not all(part.isdigit() for part in m)]
    (split / "tokenizer.json").write_text(json.dumps(told))
    one = make(LocalModel(split))
    assert not one.capabilities().ten
    simulate = one.simulator()
    assert simulate.describe()["scale"] == 9
    found = simulate.simulate(EXPLANATION, [TOKENS])[0]
    assert found.state == "ok", found.reason
    assert "10 (" not in simulate.requests("x", TOKENS)[0].body["prompt"]


def test_a_model_that_is_not_there(tmp_path):
    with pytest.raises(ModelError, match="does not exist"):
        LocalModel(tmp_path / "none")
    with pytest.raises(ModelError, match=r"no config\.json"):
        LocalModel(tmp_path)


def test_without_a_chat_template_there_is_no_chat(make, local):
    one = make(local)
    assert not one.capabilities().chat
    assert one.judge() is None
    with pytest.raises(RemoteError, match="can serve prompt-logprobs"):
        make(local, simulator="text").simulator()


def exact_yes(folder, messages, written):
    """p(1) / (p(0) + p(1)) after what is written of an answer, straight from transformers."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    prompt = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    ids = [
        tokenizer(part, add_special_tokens=False)["input_ids"]
        for part in (prompt, f"{written}0", f"{written}1")
    ]
    no, yes = ids[1:]
    assert no[:-1] == yes[:-1]
    with torch.no_grad():
        p = model(torch.tensor([ids[0] + no[:-1]])).logits[0, -1].double().softmax(-1)
    return float(p[yes[-1]] / (p[no[-1]] + p[yes[-1]]))


def test_a_judge_that_can_say_nothing_but_yes_and_no_says_how_sure_it_is(make, tmp_path):
    folder = talking_folder(tmp_path / "talking")
    one = make(LocalModel(folder))
    caps = one.capabilities()
    assert (caps.chat, caps.restriction, caps.generated_logprobs) == (True, "parts", "true")
    judge, texts = one.judge(), (TOKENS, (" red", " house"), ("x",))
    (found,) = judge.judge_many([JudgeTask(EXPLANATION, "detection", texts)])
    said = [int(v.answer) for v in found]
    messages = prompts.judge_chat(EXPLANATION.text, "detection", ["".join(t) for t in texts])
    for i, verdict in enumerate(found):
        before = "".join(f"{answer}, " for answer in said[:i])
        written = f'{{"id": "{prompts.task_id(messages)}", "answers": [{before}'
        assert verdict.probability == pytest.approx(exact_yes(folder, messages, written), abs=1e-5)
        assert verdict.answer is (verdict.probability > 0.5)
    assert len({v.probability for v in found}) == len(found)


def test_what_it_says_freely_has_its_log_probabilities(make, tmp_path):
    backend = LocalModel(talking_folder(tmp_path / "talking"))
    body = {"model": "m", "messages": [{"role": "user", "content": "def"}], "max_tokens": 5,
            "temperature": 0.0, "logprobs": True, "top_logprobs": 3}  # fmt: skip
    raw = backend.send(Request(CHAT, body, "probe", "v"), "0" * 16)
    positions = positions_of(raw)
    assert "".join(p.token for p in positions) == raw["choices"][0]["message"]["content"]
    assert all(p.logprob == max(p.top.values()) < 0 for p in positions)  # at temperature 0
    plain = backend.send(Request(CHAT, body | {"logprobs": None}, "probe", "v"), "0" * 16)
    assert "logprobs" not in plain["choices"][0]


def test_it_can_be_named_on_the_command_line(make, folder, local):
    named = make(f"local:{folder}")
    assert named.session.backend.identity == local.identity
    assert named.model == local.name
    with pytest.raises(DataError, match=r"not local:NAME, for example local:gpt2"):
        make("remote:gpt2")
