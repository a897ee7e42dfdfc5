"""The `transformers` adapter: every architecture by folder or live, special tokens left out."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from capture_helpers import streamed
from PIL import Image
from tiny_models import SENTENCES, SIZES, VOCABULARY, hugging_face_model, save_model, tiny_tokenizer
from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers
from torch import Tensor, nn

import polycode_plugins as pc
from polycode_plugins.adapters.base import DataOptions
from polycode_plugins.adapters.module import ModuleAdapter
from polycode_plugins.adapters.transformers import TransformersAdapter

TEXTS = ["hello world this is a test of tiny models", "a b c", "quick models are tiny and quick"]
OPTIONS = DataOptions(batch_size=16, context=8)
WIDE = SIZES | {"intermediate_size": 48, "vocab_size": VOCABULARY}
GROUPED = WIDE | {"num_key_value_heads": 2, "head_dim": 8}
PICTURES = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 48,
    "image_size": 32,
    "patch_size": 8,
}


def word_tokenizer() -> Any:
    """Words, framed by [CLS] and [SEP] as BERT's are."""
    special = {"cls_token": "[CLS]", "sep_token": "[SEP]", "pad_token": "[PAD]"}
    raw = Tokenizer(models.WordLevel(unk_token="[UNK]"))
    raw.pre_tokenizer = pre_tokenizers.Whitespace()
    raw.train_from_iterator(
        SENTENCES, trainers.WordLevelTrainer(special_tokens=["[UNK]", *special.values()])
    )
    raw.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        special_tokens=[(name, raw.token_to_id(name)) for name in ("[CLS]", "[SEP]")],
    )
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=raw, unk_token="[UNK]", model_max_length=40, **special
    )


# name: (class, configuration, tokenizer, path of a block)
KINDS: dict[str, tuple[Any, Any, Any, str]] = {
    "bert": (
        transformers.BertModel,
        transformers.BertConfig(**WIDE),
        word_tokenizer,
        "encoder.layer.{}",
    ),
    "modernbert": (
        transformers.ModernBertModel,
        transformers.ModernBertConfig(
            **WIDE, pad_token_id=0, bos_token_id=1, eos_token_id=2, cls_token_id=1, sep_token_id=2
        ),
        word_tokenizer,
        "layers.{}",
    ),
    "distilbert": (
        transformers.DistilBertForSequenceClassification,
        transformers.DistilBertConfig(
            dim=32, n_layers=3, n_heads=4, hidden_dim=48, vocab_size=VOCABULARY
        ),
        word_tokenizer,
        "distilbert.transformer.layer.{}",
    ),
    "qwen3 without head": (
        transformers.Qwen3Model,
        transformers.Qwen3Config(**GROUPED),
        lambda: tiny_tokenizer(eos_token="<|im_end|>", pad_token="<|endoftext|>"),
        "layers.{}",
    ),
    "gemma3 without head": (
        transformers.Gemma3TextModel,
        transformers.Gemma3TextConfig(**GROUPED),
        tiny_tokenizer,
        "layers.{}",
    ),
    "mamba without head": (
        transformers.MambaModel,
        transformers.MambaConfig(
            hidden_size=32, num_hidden_layers=3, vocab_size=VOCABULARY, state_size=4
        ),
        tiny_tokenizer,
        "layers.{}",
    ),
    "t5": (
        transformers.T5ForConditionalGeneration,
        transformers.T5Config(
            d_model=32, d_kv=8, d_ff=48, num_layers=3, num_heads=4, vocab_size=VOCABULARY
        ),
        word_tokenizer,
        "block.{}",
    ),
}


def saved(kind: str, folder: Path) -> tuple[Path, Any]:
    """The folder of a model with large random weights, and the model."""
    cls, config, tokenizer, _ = KINDS[kind]
    torch.manual_seed(1)
    model = cls(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    model.save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return folder, model


def hidden(model: Any, **inputs: Tensor) -> tuple[Tensor, ...]:
    """The residual stream before each block, and after the last."""
    if model.config.is_encoder_decoder:
        model = model.get_encoder()
    with torch.no_grad():
        found: tuple[Tensor, ...] = model(**inputs, output_hidden_states=True).hidden_states
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_a_folder_gives_the_hidden_states_of_a_plain_pass(kind, tmp_path):
    folder, model = saved(kind, tmp_path)
    adapter = pc.load(folder)  # no adapter is named: TransformerLens reads none of these
    assert isinstance(adapter, TransformersAdapter)
    assert not adapter.model.training
    (batch,) = adapter.batches(TEXTS, OPTIONS)
    assert batch.mask is not None
    plain = hidden(model, **batch.inputs)
    blocks = [KINDS[kind][-1].format(i) for i in range(len(plain) - 1)]
    assert adapter.resolve(None, batch)[-len(blocks) :][0].name == blocks[0]
    got = streamed(adapter, TEXTS, blocks, batch_size=16, context=8)
    after = plain[:-2] if "mamba" in kind else plain[1:-1]  # Mamba's begin after the first block
    for name, want in zip(blocks[:-1], after, strict=True):  # the last one may be normalised
        torch.testing.assert_close(got[name], want[batch.mask], atol=2e-5, rtol=1e-4)
    assert len({g.shape for g in got.values()}) == 1


@pytest.mark.parametrize("kind", ["bert", "modernbert", "t5"])
def test_windows_are_framed_as_the_tokenizer_frames_a_text(kind, tmp_path):
    folder, _ = saved(kind, tmp_path)
    adapter = pc.load(folder)
    first, last = adapter.tokenizer.cls_token_id, adapter.tokenizer.sep_token_id
    (batch,) = adapter.batches(TEXTS, OPTIONS)
    tokens, real = batch.inputs["input_ids"], batch.inputs["attention_mask"].bool()
    for row, attended, counted in zip(tokens, real, batch.mask, strict=True):
        ids = row[attended].tolist()
        assert (ids[0], ids[-1]) == (first, last)
        special = adapter.tokenizer.all_special_ids  # an unknown word is one of them
        assert row[counted].tolist() == [i for i in ids if i not in special]
    assert adapter.describe()["frame"] == {"before": [first], "after": [last]}
    (everything,) = adapter.batches(
        TEXTS, DataOptions(batch_size=16, context=8, include_special=True)
    )
    assert torch.equal(everything.mask, real)


def test_a_tokenizer_without_a_beginning_begins_with_the_text(tmp_path):
    folder, _ = saved("qwen3 without head", tmp_path)
    (batch,) = pc.load(folder).batches(TEXTS, OPTIONS)
    own = tiny_tokenizer(eos_token="<|im_end|>", pad_token="<|endoftext|>")
    assert batch.inputs["input_ids"][0].tolist() == own(TEXTS[0])["input_ids"][:8]
    assert batch.mask[0].all()


def test_what_lenses_read_goes_on_being_read_by_them(tmp_path):
    assert pc.load(save_model(tmp_path / "gpt2")).name == "transformer-lens"
    assert pc.load(save_model(tmp_path / "bert", "bert")).name == "transformer-lens"
    assert pc.load(save_model(tmp_path / "t5", "t5")).name == "transformers"


def test_a_live_model_with_its_tokenizer():
    model = hugging_face_model()
    adapter = pc.load(model, tokenizer=tiny_tokenizer())
    assert isinstance(adapter, TransformersAdapter)
    assert [s.name for s in adapter.resolve(None, adapter.example())] == [
        "transformer.drop",
        *(f"transformer.h.{i}" for i in range(4)),
    ]
    (batch,) = adapter.batches(TEXTS, OPTIONS)
    got = streamed(adapter, TEXTS, "transformer.h.1", batch_size=16, context=8)
    plain = hidden(model, **batch.inputs)[2][batch.mask]
    torch.testing.assert_close(got["transformer.h.1"], plain)


def test_a_live_model_without_a_tokenizer_reads_tokens_alone():
    adapter = pc.load(hugging_face_model())
    assert adapter.example() is None
    tokens = torch.arange(24).reshape(3, 8)
    got = streamed(adapter, tokens, "transformer.h.0")
    assert got["transformer.h.0"].shape == (24, 32)
    with pytest.raises(pc.ModelError, match="no tokenizer, so texts cannot be read"):
        list(adapter.batches(TEXTS, OPTIONS))
    with pytest.raises(pc.DataError, match="this model knows 0 to 299"):
        list(adapter.batches(tokens + 280, OPTIONS))


def test_the_cache_of_keys_and_values_is_not_built():
    model = hugging_face_model()
    seen: list[Any] = []
    model.register_forward_pre_hook(
        lambda _m, _a, given: seen.append(given.get("use_cache")), with_kwargs=True
    )
    streamed(pc.load(model), torch.arange(8)[None], "transformer.h.3")
    assert seen == [False] * len(seen)
    assert seen


def test_special_tokens_stay_out_of_somebody_elses_passes():
    model, tokenizer = hugging_face_model("bert"), word_tokenizer()
    adapter = TransformersAdapter(model, tokenizer=tokenizer)
    inputs = tokenizer(TEXTS, padding=True, return_tensors="pt")
    ordinary = ~torch.isin(inputs["input_ids"], torch.tensor(tokenizer.all_special_ids))
    with (
        pc.attach(adapter, "bert.encoder.layer.1", "spectrum") as probe,
        torch.no_grad(),
    ):
        model(**{k: v for k, v in inputs.items() if k != "token_type_ids"})
    result = probe.compute()["bert.encoder.layer.1", "spectrum"]
    assert result.n_samples == int(ordinary.sum())


def test_encoder_and_decoder_live_are_not_mixed_up(tmp_path):
    folder, model = saved("t5", tmp_path)
    assert pc.load(folder).describe()["part"] == "encoder"
    with pytest.raises(pc.DataError, match=r"encoder and a decoder.*pass model\.get_encoder"):
        pc.load(model, tokenizer=word_tokenizer()).batches(TEXTS, OPTIONS)
    encoder = pc.load(model.get_encoder(), tokenizer=word_tokenizer())
    got = streamed(encoder, TEXTS, "block.1", batch_size=16, context=8)
    want = streamed(pc.load(folder), TEXTS, "block.1", batch_size=16, context=8)
    assert torch.equal(got["block.1"], want["block.1"])


def test_results_are_those_of_numpy(tmp_path):
    folder, model = saved("bert", tmp_path)
    texts = [" ".join(np.random.default_rng(i).permutation(SENTENCES)) for i in range(40)]
    analysis = pc.analyze(folder, texts, "spectrum", "encoder.layer.0", context=16)
    batches = pc.load(folder).batches(texts, DataOptions(context=16))
    rows = [hidden(model, **batch.inputs)[1][batch.mask] for batch in batches]
    codes = torch.cat(rows).double().numpy()
    result = analysis["encoder.layer.0", "spectrum"]
    want = np.linalg.eigvalsh(np.cov(codes.T))[::-1]
    np.testing.assert_allclose(result.eigenvalues[: len(want)], want, rtol=1e-4, atol=1e-7)
    assert result.n_samples == len(codes)


# -- images ----------------------------------------------------------------------------------------


@pytest.fixture
def vision(tmp_path: Path) -> tuple[Path, Any]:
    torch.manual_seed(0)
    model = transformers.ViTForImageClassification(transformers.ViTConfig(**PICTURES)).eval()
    model.save_pretrained(tmp_path)
    size = {"height": 32, "width": 32}
    transformers.ViTImageProcessor(size=size).save_pretrained(tmp_path)
    return tmp_path, model


def test_a_vision_transformer_reads_images_with_its_own_preparation(vision, tmp_path):
    folder, model = vision
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    generator = np.random.default_rng(0)
    for i in range(5):
        pixels = generator.integers(0, 256, (40, 50, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(pictures / f"{i}.png")
    adapter = pc.load(folder)
    assert isinstance(adapter, TransformersAdapter)
    (batch,) = adapter.batches(pictures, DataOptions())
    processor = transformers.ViTImageProcessor.from_pretrained(folder)
    prepared = processor(
        [Image.open(pictures / f"{i}.png") for i in range(5)], return_tensors="pt"
    )["pixel_values"]
    torch.testing.assert_close(batch.inputs["pixel_values"], prepared)
    plain = hidden(model, pixel_values=prepared)[1]
    got = streamed(adapter, pictures, "vit.layers.0")
    torch.testing.assert_close(got["vit.layers.0"], plain.flatten(0, 1), atol=1e-5, rtol=1e-4)
    assert adapter.example() is not None


def test_images_without_a_preparation_are_asked_for(vision):
    _, model = vision
    adapter = pc.load(model)
    with pytest.raises(pc.ModelError, match="give transform="):
        list(adapter.batches(None, DataOptions(limit=2)))
    to_tensor = lambda image: torch.from_numpy(np.array(image)).permute(2, 0, 1) / 255.0  # noqa: E731
    (batch,) = pc.load(model, transform=to_tensor).batches(None, DataOptions(limit=2))
    assert batch.inputs["pixel_values"].shape == (2, 3, 32, 32)
    tensors = torch.zeros(3, 3, 32, 32)
    got = streamed(adapter, tensors, "vit.layers.1")
    assert got["vit.layers.1"].shape == (3 * 17, 32)


# -- loading ---------------------------------------------------------------------------------------


def test_dtype_and_device_map(tmp_path):
    folder, _ = saved("bert", tmp_path)
    adapter = pc.load(folder, dtype="bfloat16", device_map="cpu")
    assert next(adapter.model.parameters()).dtype == torch.bfloat16
    assert adapter.describe()["dtype"] == "bfloat16"
    (batch,) = adapter.batches(TEXTS, OPTIONS)
    spread = pc.load(folder, device_map={"embeddings": "cpu", "encoder": "cpu", "pooler": "cpu"})
    got = streamed(spread, TEXTS, "encoder.layer.2", batch_size=16, context=8)
    want = streamed(pc.load(folder), TEXTS, "encoder.layer.2", batch_size=16, context=8)
    assert torch.equal(got["encoder.layer.2"], want["encoder.layer.2"])
    assert int(batch.mask.sum()) == got["encoder.layer.2"].shape[0]


def test_an_encoder_that_was_saved_without_its_pooler(tmp_path):
    folder, model = saved("bert", tmp_path)
    bare = transformers.BertModel(model.config, add_pooling_layer=False).eval()
    bare.load_state_dict({k: v for k, v in model.state_dict().items() if "pooler" not in k})
    bare.save_pretrained(folder)
    adapter = pc.load(folder)
    assert not any("pooler" in site.name for site in adapter.sites())
    (batch,) = adapter.batches(TEXTS, OPTIONS)
    got = streamed(adapter, TEXTS, "encoder.layer.1", batch_size=16, context=8)
    want = hidden(model, **batch.inputs)[2][batch.mask]
    torch.testing.assert_close(got["encoder.layer.1"], want)


def test_weights_that_are_missing_are_no_random_numbers(tmp_path):
    from safetensors.torch import load_file, save_file

    folder, _ = saved("bert", tmp_path)
    weights = load_file(folder / "model.safetensors")
    del weights["encoder.layer.1.output.dense.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(pc.ModelError, match=r"lacks weights.*encoder\.layer\.1\.output\.dense"):
        pc.load(folder)


OWN = """
from transformers import BertConfig, BertModel
open({ran!r}, "a").write("x")
class OwnConfig(BertConfig):
    model_type = "own"
class OwnModel(BertModel):
    config_class = OwnConfig
"""


@pytest.fixture
def own_code(tmp_path, monkeypatch):
    """A folder whose model needs code that lies in it, and the file that this code writes."""
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "m"))
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("somebody was asked"))
    folder, _ = saved("bert", tmp_path)
    ran = tmp_path / "ran"
    (folder / "own.py").write_text(OWN.format(ran=str(ran)))
    config = json.loads((folder / "config.json").read_text())
    config |= {
        "model_type": "own",
        "architectures": ["OwnModel"],
        "auto_map": {"AutoConfig": "own.OwnConfig", "AutoModel": "own.OwnModel"},
    }
    (folder / "config.json").write_text(json.dumps(config))
    return folder, ran


@pytest.mark.parametrize("adapter", [None, "transformers", "transformer-lens", "nnsight"])
def test_code_in_a_folder_is_not_run_and_the_flag_is_named(own_code, adapter, capfd):
    folder, ran = own_code
    with pytest.raises(pc.ModelError, match=r"not run unasked; .* trust_remote_code=True"):
        pc.load(folder, adapter)
    assert not ran.exists()
    assert capfd.readouterr().out == ""


def test_code_in_a_folder_is_run_on_purpose_and_recorded(own_code):
    folder, ran = own_code
    found = pc.load(folder, trust_remote_code=True)
    assert ran.exists()
    assert type(found.model).__name__ == "OwnModel"
    assert any("Code that came with the model was run" in n for n in found.describe()["notes"])
    with pytest.raises(pc.ModelError, match="not run unasked"):
        pc.load(folder)  # the last time counts for nothing
    with pytest.raises(pc.ModelError, match=r"trust_remote_code=? .*(given by name|loading)"):
        pc.load(found.model, trust_remote_code=True)


def test_nobody_is_asked_where_nothing_was_said(own_code):
    import transformers

    from polycode_plugins.adapters.pretrained import needs_code, quiet

    folder, ran = own_code
    with quiet(), pytest.raises(ValueError, match="trust_remote_code") as caught:
        transformers.AutoModel.from_pretrained(folder)
    assert needs_code(caught.value)
    assert transformers.dynamic_module_utils.TIME_OUT_REMOTE_CODE > 0
    assert not ran.exists()


def test_wrong_models(tmp_path):
    with pytest.raises(pc.ModelError, match="is no model of transformers"):
        TransformersAdapter(nn.Linear(2, 2))
    with pytest.raises(pc.ModelError, match="are for models given by name or folder"):
        TransformersAdapter(hugging_face_model(), dtype="float32")
    folder, _ = saved("bert", tmp_path)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).unlink()
    with pytest.raises(pc.ModelError, match="comes without a working tokenizer"):
        pc.load(folder)
    shutil.rmtree(folder)
    with pytest.raises(pc.ModelError, match="does not exist"):
        pc.load(folder, "transformers")


@pytest.mark.parametrize("name", ["x" * 5000, "x" * 300 + ".gguf", "a\0b"])
def test_names_that_no_file_can_have(name):
    with pytest.raises(pc.ModelError):
        pc.load(name)


def test_windows_longer_than_the_model_reads(tmp_path):
    folder, _ = saved("bert", tmp_path)
    with pytest.raises(pc.DataError, match="longer than the 40 positions"):
        list(pc.load(folder).batches(TEXTS, DataOptions(context=41)))


def test_the_module_adapter_still_takes_them_when_it_is_named():
    assert type(pc.load(hugging_face_model(), "module")) is ModuleAdapter
