"""Adapters on trained networks: equal to plain forward passes, special tokens and padding out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from torch import Tensor, nn
from torchvision import transforms

import polycode_plugins as pc
from polycode_plugins.commands.main import main
from polycode_plugins.data_options import DataOptions

pytestmark = pytest.mark.real

BLOCKS = (0, 14, 29)
OPTIONS = DataOptions(batch_size=12, context=48, limit=24)
PREPARE = transforms.Compose(
    [
        transforms.Resize(224),
        transforms.CenterCrop(224),
        transforms.ToTensor(),
        transforms.Normalize([127 / 255] * 3, [128 / 255] * 3),
    ]
)


def kept(module: nn.Module, into: list[Tensor], *, inputs: bool) -> Any:
    """Keep a module's output, or its input, of every call."""

    def keep(_module: nn.Module, given: Any, output: Any) -> None:
        value = given if inputs else output
        into.append((value[0] if isinstance(value, tuple) else value).clone())

    return module.register_forward_hook(keep)


def plain(
    model: nn.Module, wanted: dict[str, tuple[str, bool]], batches: list[Any]
) -> dict[str, Tensor]:
    """{name: samples that count} of plain forward passes, by hooks of this test's own."""
    found: dict[str, list[Tensor]] = {name: [] for name in wanted}
    handles = [
        kept(model.get_submodule(path), found[name], inputs=inputs)
        for name, (path, inputs) in wanted.items()
    ]
    try:
        with torch.no_grad():
            for batch in batches:
                if isinstance(batch.inputs, dict):
                    model(**batch.inputs)
                else:
                    model(batch.inputs)
    finally:
        for handle in handles:
            handle.remove()
    masks = [batch.mask for batch in batches]
    return {
        name: torch.cat([v if m is None else v[m] for v, m in zip(values, masks, strict=True)])
        for name, values in found.items()
    }


def read(adapter: Any, data: Any, sites: list[str], options: DataOptions) -> dict[str, Tensor]:
    parts: dict[str, list[Tensor]] = {site: [] for site in sites}
    for batch in adapter.stream(data, sites, options=options):
        for name, activations in batch.items():
            parts[name].append(activations.matrix())
    return {name: torch.cat(values) for name, values in parts.items()}


def off(got: Tensor, want: Tensor) -> float:
    """The largest distance of a sample, as a share of its length: a few tokens are massive."""
    assert got.shape == want.shape
    return float(((got - want).norm(dim=1) / want.norm(dim=1).clamp_min(1e-6)).max())


@pytest.fixture(scope="module")
def lens(smollm2: Path) -> Any:
    return pc.load(smollm2)


@pytest.fixture(scope="module")
def hugging_face(smollm2: Path) -> Any:
    return transformers.AutoModelForCausalLM.from_pretrained(smollm2, dtype=torch.float32).eval()


def test_the_lens_reads_what_a_plain_pass_computes(lens, hugging_face, texts):
    assert lens.name == "transformer-lens"
    wanted = {}
    for i in BLOCKS:
        wanted[f"blocks.{i}.hook_resid_post"] = (f"model.layers.{i}", False)
        wanted[f"blocks.{i}.mlp.hook_post"] = (f"model.layers.{i}.mlp.down_proj", True)
        wanted[f"blocks.{i}.hook_attn_out"] = (f"model.layers.{i}.self_attn.o_proj", False)
    batches = list(lens.batches(texts, OPTIONS))
    want = plain(hugging_face, wanted, batches)
    got = read(lens, texts, list(wanted), OPTIONS)
    for name in wanted:
        assert off(got[name], want[name]) < 1e-4, name


def test_transformers_reads_what_a_plain_pass_computes(hugging_face, smollm2, texts):
    adapter = pc.load(smollm2, "transformers")
    wanted = {f"model.layers.{i}": (f"model.layers.{i}", False) for i in BLOCKS}
    wanted |= {
        f"model.layers.{i}.self_attn.o_proj": (f"model.layers.{i}.self_attn.o_proj", False)
        for i in BLOCKS
    }
    batches = list(adapter.batches(texts, OPTIONS))
    want = plain(hugging_face, wanted, batches)
    got = read(adapter, texts, list(wanted), OPTIONS)
    assert all(off(got[name], want[name]) < 1e-5 for name in wanted)


def test_special_tokens_and_padding_stay_out(lens, texts):
    tokenizer = lens.tokenizer
    counted = 0
    for batch in lens.batches(texts, OPTIONS):
        tokens, attended = batch.inputs["input_ids"], batch.inputs["attention_mask"].bool()
        ordinary = ~torch.isin(tokens, torch.tensor(tokenizer.all_special_ids))
        assert torch.equal(batch.mask, ordinary & attended)
        assert not batch.mask[:, 0].any()  # the token that begins each window
        counted += int(batch.mask.sum())
    analysis = pc.analyze(
        lens, texts, "spectrum", "blocks.0.hook_resid_post", batch_size=12, context=48, limit=24
    )
    assert analysis["blocks.0.hook_resid_post", "spectrum"].n_samples == counted


def test_results_are_those_of_numpy(lens, texts):
    site = "blocks.14.hook_resid_post"
    codes = read(lens, texts, [site], OPTIONS)[site].double().numpy()
    analysis = pc.analyze(
        lens, texts, ["spectrum", "action"], site, batch_size=12, context=48, limit=24
    )
    result = analysis[site, "spectrum"]
    want = np.linalg.eigvalsh(np.cov(codes.T))[::-1]
    np.testing.assert_allclose(
        result.eigenvalues, want[: len(result.eigenvalues)], rtol=1e-8, atol=1e-8 * want[0]
    )
    ratio = want.sum() ** 2 / np.square(want).sum()
    assert result.participation_ratio_naive == pytest.approx(ratio, rel=1e-9)


def test_the_file_and_the_folder_made_of_it_are_one_model(lens, smollm2, texts):
    (file,) = smollm2.glob("*.gguf")
    of_file = pc.load(file)
    site = "blocks.29.hook_resid_post"
    options = DataOptions(batch_size=12, context=48, limit=12)
    assert torch.equal(
        read(of_file, texts, [site], options)[site], read(lens, texts, [site], options)[site]
    )
    assert "dequantised from SmolLM2-135M-Instruct.Q4_1.gguf" in of_file.describe()["notes"][0]


def test_it_is_the_trained_model(hugging_face, smollm2):
    tokenizer = transformers.AutoTokenizer.from_pretrained(smollm2)
    tokens = tokenizer("The capital of France is", return_tensors="pt")["input_ids"]
    with torch.no_grad():
        best = hugging_face(tokens).logits[0, -1].argmax()
    assert tokenizer.decode(best).strip() == "Paris"


def test_a_conversation_is_written_by_the_models_template(lens):
    talk = [
        {"role": "user", "content": "Name a colour."},
        {"role": "assistant", "content": "Blue is a colour that many people like."},
    ]
    (batch,) = lens.batches([talk], DataOptions(context=40, limit=4))
    tokens = batch.inputs["input_ids"][0]
    written = lens.tokenizer.apply_chat_template(talk, tokenize=False)
    assert lens.tokenizer.decode(tokens[batch.inputs["attention_mask"][0].bool()])[:40] in (
        written[:40],
        (lens.tokenizer.bos_token + written)[:40],
    )
    marks = lens.tokenizer.convert_tokens_to_ids(["<|im_start|>", "<|im_end|>"])
    assert not batch.mask[0][torch.isin(tokens, torch.tensor(marks))].any()
    assert batch.mask[0].sum() > 20


def test_the_command_writes_a_report_that_opens(smollm2, texts, tmp_path, capsys):
    source = tmp_path / "texts.jsonl"
    source.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    out = tmp_path / "run"
    (file,) = smollm2.glob("*.gguf")
    command = ["analyze", "--model", str(file), "--text", str(source), "--limit", "16"]
    sites = ["--sites", "blocks.1*.hook_resid_post"]
    assert main([*command, *sites, "--out", str(out), "--quiet"]) == 0
    assert "dequantised" in capsys.readouterr().err
    page = (out / "report.html").read_text(encoding="utf-8")
    assert page.lstrip().lower().startswith("<!doctype html")
    assert page.rstrip().endswith("</html>")
    assert all(f"blocks.{i}.hook_resid_post" in page for i in range(10, 20))
    assert pc.Analysis.load(out).run["model"]["gguf"] == file.name


# -- the encoder -----------------------------------------------------------------------------------


def test_the_encoder_reads_what_a_plain_pass_computes(minilm, texts):
    adapter = pc.load(minilm)
    assert adapter.name == "transformers"
    blocks = [f"encoder.layer.{i}" for i in range(6)]
    batches = list(adapter.batches(texts, OPTIONS))
    assert adapter.resolve(None, batches[0])[1:] != []
    assert [s.name for s in adapter.resolve(None, batches[0])] == ["embeddings", *blocks]
    model = transformers.AutoModel.from_pretrained(minilm, dtype=torch.float32).eval()
    want = plain(model, {name: (name, False) for name in blocks}, batches)
    got = read(adapter, texts, blocks, OPTIONS)
    assert all(off(got[name], want[name]) < 1e-5 for name in blocks)
    for batch in batches:
        tokens = batch.inputs["input_ids"]
        special = torch.isin(tokens, torch.tensor([101, 102, 0]))  # [CLS], [SEP], [PAD]
        assert not batch.mask[special].any()
        assert torch.equal(tokens[:, 0], torch.full_like(tokens[:, 0], 101))


# -- the convolutional network ---------------------------------------------------------------------


def test_the_convolutional_network_is_the_trained_one(efficientnet, photographs):
    for name, label in (("chelsea", 285), ("coffee", 967), ("rocket", 657)):
        image = Image.open(photographs / f"scikit-image_{name}.jpg")
        with torch.no_grad():
            assert int(efficientnet(PREPARE(image)[None]).argmax()) == label


def test_its_blocks_read_what_a_plain_pass_computes(efficientnet, photographs):
    adapter = pc.load(efficientnet, "torchvision", transform=PREPARE)
    options = DataOptions(batch_size=4, limit=8)
    sites = ["_conv_stem", "_blocks.4", "_blocks.15", "_conv_head"]
    batches = list(adapter.batches(photographs, options))
    found = plain(efficientnet, {name: (name, False) for name in sites}, batches)
    got = read(adapter, photographs, sites, options)
    for name in sites:
        want = found[name].movedim(1, -1).flatten(0, -2)
        assert off(got[name], want) < 1e-5, name
    analysis = pc.analyze(adapter, photographs, "spectrum", "_blocks.4", batch_size=4, limit=8)
    codes = got["_blocks.4"].double().numpy()
    eigenvalues = np.linalg.eigvalsh(np.cov(codes.T))[::-1]
    result = analysis["_blocks.4", "spectrum"]
    np.testing.assert_allclose(result.eigenvalues, eigenvalues, rtol=1e-8, atol=1e-9)
