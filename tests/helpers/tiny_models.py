"""Tiny random language models with a tokenizer, made offline, and TransformerLens on them.

The same weights go into a TransformerBridge (TransformerLens 3 and 4) and into a HookedTransformer
(TransformerLens 2 and 3), so that a test written once holds for all of them.
"""

from __future__ import annotations

import copy
import warnings
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers.utils import logging as transformers_logging

with warnings.catch_warnings():  # TransformerLens 3 announces its successor while it is imported
    warnings.simplefilter("ignore")
    import transformer_lens

    try:
        from transformer_lens.model_bridge import TransformerBridge
    except ModuleNotFoundError:
        TransformerBridge = None

LAYERS, WIDTH, HEADS, CONTEXT, VOCABULARY = 4, 32, 4, 24, 300
SIZES = {"num_hidden_layers": LAYERS, "hidden_size": WIDTH, "num_attention_heads": HEADS}
SENTENCES = ["hello world this is a test", "tiny models are quick", "a b c d e f g h"]

CONFIGS: dict[str, transformers.PretrainedConfig] = {
    "gpt2": transformers.GPT2Config(
        n_layer=LAYERS, n_embd=WIDTH, n_head=HEADS, n_positions=CONTEXT, vocab_size=VOCABULARY
    ),
    "llama": transformers.LlamaConfig(
        **SIZES, num_key_value_heads=2, intermediate_size=48, vocab_size=VOCABULARY
    ),
    "neox": transformers.GPTNeoXConfig(**SIZES, intermediate_size=48, vocab_size=VOCABULARY),
    "gemma": transformers.Gemma2Config(
        **SIZES, num_key_value_heads=2, head_dim=8, intermediate_size=48, vocab_size=VOCABULARY
    ),
    "granite": transformers.GraniteConfig(
        **SIZES,
        num_key_value_heads=2,
        intermediate_size=48,
        vocab_size=VOCABULARY,
        residual_multiplier=0.5,
        embedding_multiplier=3.0,
    ),
    "bert": transformers.BertConfig(**SIZES, intermediate_size=48, vocab_size=VOCABULARY),
    "t5": transformers.T5Config(
        d_model=WIDTH, d_kv=8, d_ff=48, num_layers=2, num_heads=HEADS, vocab_size=VOCABULARY
    ),
}
_CLASSES = {
    "gpt2": transformers.GPT2LMHeadModel,
    "llama": transformers.LlamaForCausalLM,
    "neox": transformers.GPTNeoXForCausalLM,
    "gemma": transformers.Gemma2ForCausalLM,
    "granite": transformers.GraniteForCausalLM,
    "bert": transformers.BertForMaskedLM,
    "t5": transformers.T5ForConditionalGeneration,
}


def tiny_tokenizer(**special: str) -> Any:
    """A byte-level tokenizer; its begin, end and unknown token are one, as GPT-2's are."""
    tokens = special or dict.fromkeys(("bos_token", "eos_token", "unk_token"), "<|endoftext|>")
    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=sorted(set(tokens.values())),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    raw.train_from_iterator(SENTENCES * 5, trainer)
    return transformers.PreTrainedTokenizerFast(tokenizer_object=raw, **tokens)


def hugging_face_model(architecture: str = "gpt2", seed: int = 0) -> Any:
    """A model with random weights that are large enough for every part to matter."""
    torch.manual_seed(seed)
    model = _CLASSES[architecture](CONFIGS[architecture])
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model.eval()


def save_model(folder: Path, architecture: str = "gpt2") -> Path:
    """The model and its tokenizer as a folder in Hugging Face format."""
    transformers_logging.disable_progress_bar()
    hugging_face_model(architecture).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


def lens_model(kind: str, folder: Path) -> Any:
    """The model in `folder` as a TransformerBridge ("bridge"), a GPT-2 also as a
    HookedTransformer ("hooked")."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # HookedTransformer announces that it is deprecated
        if kind == "bridge":
            if TransformerBridge is None:
                pytest.skip("TransformerLens 2 has no TransformerBridge")
            return TransformerBridge.boot_transformers(str(folder), dtype=torch.float32)
        return _hooked_transformer(folder)


def lens_copy(kind: str, folder: Path) -> Any:
    """As `lens_model`, of a folder that is used often: to boot one takes three times as long."""
    return copy.deepcopy(_booted(kind, folder))


_booted = cache(lens_model)


def _hooked_transformer(folder: Path) -> Any:
    from transformer_lens.pretrained.weight_conversions import convert_gpt2_weights

    transformers_logging.disable_progress_bar()
    original = transformers.GPT2LMHeadModel.from_pretrained(folder)
    config = transformer_lens.HookedTransformerConfig(
        n_layers=LAYERS,
        d_model=WIDTH,
        d_head=WIDTH // HEADS,
        n_heads=HEADS,
        d_mlp=4 * WIDTH,
        n_ctx=CONTEXT,
        d_vocab=VOCABULARY,
        act_fn="gelu_new",
        eps=1e-5,
        normalization_type="LN",
        device="cpu",
    )
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformer_lens.HookedTransformer(config, tokenizer=tokenizer)
    # The bridge runs the weights as they are: so does this, without folding or centring anything.
    model.load_and_process_state_dict(
        convert_gpt2_weights(original, config),
        fold_ln=False,
        center_writing_weights=False,
        center_unembed=False,
        fold_value_biases=False,
    )
    return model.eval()
