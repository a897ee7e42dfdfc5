"""What is written of a run: the call that repeats it, the model's text."""

from __future__ import annotations

import pytest
from report_samples import planted

import polycode_plugins as pc
from polycode_plugins.runs import description


@pytest.fixture(scope="module")
def analysis() -> pc.Analysis:
    sites = {f"blocks.{i}.hook_resid_post": planted(0.6 + 0.1 * i, seed=i) for i in range(3)}
    return pc.measure(sites, ["spectrum"])


def test_without_a_command_the_record_is_a_call_that_gives_the_same(analysis):
    call = description.python_call(analysis)
    activations = {f"blocks.{i}.hook_resid_post": planted(1.0, seed=i) for i in range(2)}
    names: dict[str, object] = {"activations": activations}
    exec(call, names)  # the point is that it runs
    again = names["analysis"]
    assert isinstance(again, pc.Analysis)
    assert again.run["metrics"] == analysis.run["metrics"]


def test_settings_that_are_no_defaults_are_in_the_call(analysis):
    metric = pc.metrics.Spectrum(fit="stringer", ranks=(2, 40), label="other")
    assert eval(description.metric_call(metric), {"pc": pc}) == metric
    run = {
        **analysis.run,
        "model": {"name": "gpt2", "adapter": "transformer-lens"},
        "data": 'a "quoted" name.txt',
        "seed": 3,
        "options": {"context": 32},
    }
    call = description.python_call(pc.Analysis(analysis.statistics, analysis.results, run))
    assert compile(call, "call", "exec")
    assert "adapter='transformer-lens'" in call
    for part in ("'gpt2'", "'a \"quoted\" name.txt'", "seed=3", "context=32", "hook_resid_post"):
        assert part in call


def test_data_that_was_an_object_is_a_variable_in_the_call(analysis):
    def source(data):
        run = {**analysis.run, "data": data}
        call = description.python_call(pc.Analysis(analysis.statistics, analysis.results, run))
        return compile(call, "call", "exec") and call.split("analyze(")[1].split(",\n")[1].strip()

    assert source("Tensor(64, 10)") == source("DataLoader") == source("list") == "data"
    assert source("texts.jsonl") == "'texts.jsonl'"
    assert source("imdb") == "'imdb'"
    assert source("embedded") == "None"


def test_random_weights_are_said_beside_the_model():
    model = {"name": "resnet18", "type": "ResNet", "dtype": "float32", "init_seed": 0}
    assert description.model_text({"model": model}) == "resnet18 (ResNet, float32, random weights)"
    assert "random" not in description.model_text({"model": {**model, "init_seed": None}})
