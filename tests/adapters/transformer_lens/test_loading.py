"""Loading TransformerLens models by name and from folders: quietly, or with one sentence."""

from __future__ import annotations

import json
import logging
import shutil
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from capture_helpers import Mean, random_states
from tiny_models import CONTEXT, LAYERS, TransformerBridge, hugging_face_model
from transformers.utils import logging as transformers_logging

import polycode_plugins as pc
from polycode_plugins.adapters.pretrained import check_hub
from polycode_plugins.adapters.transformer_lens.adapter import TransformerLensAdapter
from polycode_plugins.errors import DataError, ModelError, PluginError

pytestmark = pytest.mark.skipif(
    TransformerBridge is None, reason="TransformerLens 2 loads no local folders"
)


def settings() -> list[Any]:
    root, theirs = logging.getLogger(), logging.getLogger("transformers")
    return [
        (logger.level, logger.propagate, list(logger.handlers)) for logger in (root, theirs)
    ] + [transformers_logging.is_progress_bar_enabled(), list(warnings.filters), sys.stdout]


def test_a_folder_loads_in_silence_and_leaves_all_settings_alone(
    gpt2_folder: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    transformers_logging.enable_progress_bar()
    before, states = settings(), random_states()
    try:
        adapter = pc.load(gpt2_folder)
        assert settings() == before
    finally:
        transformers_logging.disable_progress_bar()
    assert random_states() == states
    assert isinstance(adapter, TransformerLensAdapter)
    assert capfd.readouterr() == ("", "")
    assert not caplog.records
    analysis = pc.analyze(adapter, ["hello world this is a test"] * 3, Mean(), context=6)
    assert list(analysis) == [f"blocks.{i}.hook_resid_post" for i in range(LAYERS)]
    assert analysis.run["model"]["name"] == str(gpt2_folder)
    assert not adapter.model.training
    assert all(p.requires_grad for p in adapter.model.parameters())


def test_a_model_that_is_loaded_here_has_its_dropout_in_train_mode(gpt2_folder: Path) -> None:
    tokens = torch.arange(40).view(4, 10) + 3
    quiet, dropped = (
        pc.analyze(gpt2_folder, tokens, metrics=[Mean()], train_mode=mode) for mode in (False, True)
    )
    site = f"blocks.{LAYERS - 1}.hook_resid_post"
    assert not torch.equal(quiet[site, "mean"].mean, dropped[site, "mean"].mean)


def test_windows_longer_than_the_model_reads_are_refused(gpt2_folder: Path) -> None:
    adapter = pc.load(gpt2_folder)
    with pytest.raises(DataError, match=f"give --context {CONTEXT}"):
        pc.analyze(adapter, ["hello world this is a test"] * 3, Mean(), context=CONTEXT + 1)
    assert len(pc.analyze(adapter, ["hello world"] * 40, Mean(), context=CONTEXT)) == LAYERS


def test_the_embedded_model_is_found() -> None:
    adapter = pc.load()
    assert adapter.describe()["adapter"] == "transformer-lens"
    assert adapter.resolve(None, None)


@pytest.mark.parametrize("name", ["float32", "bfloat16", "float64"])
def test_dtype_and_device(gpt2_folder: Path, name: str) -> None:
    adapter = pc.load(gpt2_folder, dtype=name, device="cpu")
    assert adapter.describe()["dtype"] == name


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dtype": "int8"}, "unknown dtype 'int8'"),
        ({"dtype": "nn"}, "unknown dtype 'nn'"),
        ({"device": "gpu"}, "unknown device 'gpu'"),
        ({"device": "xpu"}, "no device 'xpu'"),
        ({"weights": "DEFAULT"}, "does not take this option"),
    ],
)
def test_wrong_options(gpt2_folder: Path, options: dict[str, str], message: str) -> None:
    if options.get("device") == "xpu" and torch.xpu.is_available():
        pytest.skip("this machine has an xpu")
    with pytest.raises(ModelError, match=message):
        pc.load(gpt2_folder, adapter="transformer-lens", **options)


@pytest.mark.parametrize("name", ["./nowhere", "/no/where", "no/where/at/all"])
def test_a_missing_folder(name: str) -> None:
    with pytest.raises(ModelError, match=r"the folder .* does not exist"):
        pc.load(name)


def copy(folder: Path, to: Path, *without: str) -> Path:
    shutil.copytree(folder, to)
    for name in without:
        (to / name).unlink()
    return to


def test_a_folder_without_a_configuration(gpt2_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"no config\.json"):
        pc.load(copy(gpt2_folder, tmp_path / "m", "config.json"), adapter="transformer-lens")


def test_a_folder_without_a_tokenizer(gpt2_folder: Path, tmp_path: Path) -> None:
    bare = copy(gpt2_folder, tmp_path / "m", "tokenizer.json", "tokenizer_config.json")
    with pytest.raises(ModelError, match="tokenizer"):
        pc.load(bare, adapter="transformer-lens")
    # What transformers makes of nothing but a vocabulary file of another kind reads nothing.
    (bare / "vocab.json").write_text("{}", encoding="utf-8")
    (bare / "merges.txt").write_text("", encoding="utf-8")
    with pytest.raises(ModelError, match="working tokenizer"):
        pc.load(bare, adapter="transformer-lens")


def test_a_folder_without_all_weights(gpt2_folder: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    torn = copy(gpt2_folder, tmp_path / "m")
    weights = load_file(torn / "model.safetensors")
    del weights["transformer.h.1.mlp.c_fc.weight"]
    save_file(weights, torn / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"lacks weights .*'transformer\.h\.1\.mlp\.c_fc\.weight'"):
        pc.load(torn, adapter="transformer-lens")


def test_a_folder_that_is_no_model(gpt2_folder: Path, tmp_path: Path) -> None:
    odd = copy(gpt2_folder, tmp_path / "m")
    config = json.loads((odd / "config.json").read_text(encoding="utf-8"))
    config |= {"architectures": ["Nonsense"], "model_type": "nonsense"}
    (odd / "config.json").write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(ModelError, match=r"does not load .*give the name of a model") as caught:
        pc.load(odd, adapter="transformer-lens")
    assert "\n" not in str(caught.value)


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[float]:
    """A hub at an address where nobody answers, an empty cache, and the waits before each retry."""
    constants = "huggingface_hub.constants."
    nobody = "http://127.0.0.1:9"
    monkeypatch.setattr(constants + "ENDPOINT", nobody)
    template = nobody + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants + "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants + "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants + "HF_HUB_OFFLINE", False)
    waited: list[float] = []
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", waited.append)
    return waited


def test_a_hub_that_cannot_be_reached_is_asked_once(waits: list[float]) -> None:
    with pytest.raises(ModelError, match=r"cannot be reached .*check the name and the network"):
        pc.load("no-such-model-at-all", adapter="transformer-lens")
    assert waits == []


def test_what_is_in_the_cache_needs_no_hub(
    waits: list[float], tmp_path: Path, gpt2_folder: Path
) -> None:
    repository = tmp_path / "models--some--model"
    shutil.copytree(gpt2_folder, repository / "snapshots" / "abc")
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("abc", encoding="utf-8")
    check_hub("some/model")
    with pytest.raises(ModelError, match="cannot be reached"):
        check_hub("some/other")
    assert waits == []


def test_a_hub_that_is_switched_off_leaves_the_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ModelError, match=r"'no-such-model' does not load"):
        pc.load("no-such-model", adapter="transformer-lens")


def test_without_the_library(monkeypatch: pytest.MonkeyPatch, gpt2_folder: Path) -> None:
    monkeypatch.setitem(sys.modules, "transformer_lens", None)
    with pytest.raises(PluginError, match=r"pip install 'polycode-plugins\[transformer-lens\]'"):
        pc.load(gpt2_folder, adapter="transformer-lens")


def test_a_live_hugging_face_model_goes_to_another_adapter() -> None:
    assert pc.load(hugging_face_model()).describe()["adapter"] == "transformers"
