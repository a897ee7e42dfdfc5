"""The embedded model is what its record says: small, trained, and loadable without a network."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from torch.nn import functional

from polycode_plugins.data import TINY_GPT2, text_documents, token_windows

transformers = pytest.importorskip("transformers")

CONTEXT = 128


@pytest.fixture(scope="module")
def record():
    return json.loads((TINY_GPT2 / "training.json").read_text())


@pytest.fixture(scope="module")
def tokenizer():
    return transformers.AutoTokenizer.from_pretrained(TINY_GPT2)


@pytest.fixture(scope="module")
def model():
    return transformers.AutoModelForCausalLM.from_pretrained(TINY_GPT2)


def held_out_rows(tokenizer):
    """Every fourth validation window's ids, the prepended token first, the shortest row first."""
    documents = text_documents("embedded:validation")
    batches = list(token_windows(documents, tokenizer, context=CONTEXT, shard=(0, 4)))
    lengths = [int(n) for batch in batches for n in batch.attention_mask.sum(1)]
    tokens = [row for batch in batches for row in batch.tokens]
    rows = [row[:length] for row, length in zip(tokens, lengths, strict=True)]
    return sorted(rows, key=len), documents.digest()


@torch.no_grad()
def nats_per_token(model, rows):
    total = 0.0
    for start in range(0, len(rows), 32):
        group = rows[start : start + 32]
        padded = torch.nn.utils.rnn.pad_sequence(group, batch_first=True, padding_value=-100)
        present = padded != -100
        logits = model(input_ids=padded.clamp(min=0), attention_mask=present.long()).logits
        total += functional.cross_entropy(
            logits[:, :-1].flatten(0, 1), padded[:, 1:].flatten(), reduction="sum"
        ).item()
    return total / sum(len(row) - 1 for row in rows)


def test_it_was_really_trained(model, tokenizer, record):
    """On modules that it never saw it beats what the frequencies of tokens and pairs give."""
    rows, digest = held_out_rows(tokenizer)
    loss = nats_per_token(model, rows)
    training = [document.text for document in text_documents("embedded:train")]
    seen = np.concatenate(tokenizer(training, verbose=False)["input_ids"])
    counts = np.bincount(seen, minlength=len(tokenizer)) + 1.0
    held_out = torch.cat([row[1:] for row in rows]).numpy()
    unigram = float(-np.log(counts / counts.sum())[held_out].mean())

    recorded = record["validation_quarter"]
    margin = recorded["unigram_entropy"] - recorded["loss"]
    assert margin > 1.5
    assert unigram - loss > 0.9 * margin  # on another Python's docstrings too
    whole = record["validation"]
    assert whole["loss"] < whole["bigram_entropy"] < whole["unigram_entropy"]
    if digest == whole["digest"]:
        assert loss == pytest.approx(recorded["loss"], abs=0.002)
        assert unigram == pytest.approx(recorded["unigram_entropy"], abs=1e-9)


def test_it_is_small_and_whole():
    files = {path.name: path.stat().st_size for path in TINY_GPT2.iterdir()}
    assert sum(files.values()) <= 4_000_000
    assert {"config.json", "tokenizer.json", "model.safetensors", "training.json"} <= set(files)


def test_its_weights_are_finite_halves_and_loaded_as_floats(model, record):
    from safetensors.torch import load_file

    stored = load_file(TINY_GPT2 / "model.safetensors")
    assert {tensor.dtype for tensor in stored.values()} == {torch.float16}
    assert all(tensor.isfinite().all() for tensor in stored.values())
    assert model.dtype == torch.float32
    assert not model.training
    assert model.num_parameters() == record["parameters"]


def test_its_tokenizer_reads_any_text_and_has_one_special_token(tokenizer):
    text = 'def f(x):\n    """Déjà vu, 日本語\t\x00."""\n'
    ids = tokenizer(text)["input_ids"]
    assert tokenizer.decode(ids, clean_up_tokenization_spaces=False) == text
    assert tokenizer.all_special_ids == [0]
    special = tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id
    assert special == (0, 0, 0)
    assert len(tokenizer) == 4096
    assert tokenizer("<|endoftext|>")["input_ids"] == [0]


def test_padding_does_not_change_what_is_read(model, tokenizer):
    """Padding is the end-of-text token; the attention mask and causality keep it out."""
    (batch,) = token_windows(
        text_documents(["Return the number of items.", "x" * 200]), tokenizer, context=100
    )
    length = int(batch.attention_mask[0].sum())
    assert length < 100
    with torch.no_grad():
        padded = model(input_ids=batch.tokens, attention_mask=batch.attention_mask).logits[0]
        alone = model(input_ids=batch.tokens[:1, :length]).logits[0]
    torch.testing.assert_close(padded[:length], alone, rtol=1e-4, atol=1e-4)


def test_it_writes(model, tokenizer):
    torch.manual_seed(0)
    prompt = tokenizer("Return the", return_tensors="pt")
    written = model.generate(
        **prompt, max_new_tokens=30, min_new_tokens=20, do_sample=True, output_logits=True,
        return_dict_in_generate=True,
    )  # fmt: skip
    assert torch.stack(written.logits).isfinite().all()
    text = tokenizer.decode(written.sequences[0], skip_special_tokens=True)
    assert text.startswith("Return the")
    assert len(set(text.split())) > 5  # not one word over and over


def test_it_boots_in_transformer_lens(model, tokenizer, monkeypatch):
    bridges = pytest.importorskip("transformer_lens.model_bridge")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    bridge = bridges.TransformerBridge.boot_transformers(str(TINY_GPT2), dtype=torch.float32)
    text = "Return the number of items in the list."
    tokens = bridge.to_tokens(text)
    assert tokens.tolist() == [[0, *tokenizer(text)["input_ids"]]]
    with torch.no_grad():
        torch.testing.assert_close(
            bridge(tokens), model(input_ids=tokens).logits, rtol=1e-4, atol=1e-4
        )
    _, cache = bridge.run_with_cache(tokens, names_filter=lambda n: n == "blocks.3.mlp.hook_post")
    assert cache["blocks.3.mlp.hook_post"].shape == (1, tokens.shape[1], 512)
    # The bridge's tokenizer prepends by itself; windows must not begin with two.
    (batch,) = token_windows(text_documents([text]), bridge.tokenizer, context=8, limit=1)
    assert batch.tokens[0, :2].tolist() == tokens[0, :2].tolist()
