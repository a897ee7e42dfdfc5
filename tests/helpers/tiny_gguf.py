"""A tiny Llama as a GGUF file with quantised weights, and the Hugging Face model it stands for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from tiny_models import hugging_face_model, tiny_tokenizer

_NAMES = {
    "model.embed_tokens.weight": "token_embd.weight",
    "model.norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight",
}
_PARTS = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}
# The widest map reads 48 numbers, which fill no block of 32: those stay in float32.
QUANTISED = ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "token_embd")


def write_gguf(path: Path) -> Any:
    """Write the file; returns the model with the dequantised weights."""
    model = hugging_face_model("llama")
    config = model.config
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_vocab_size(config.vocab_size)
    _add_tokenizer(writer, config.vocab_size)
    seen = {}
    for name, value in model.state_dict().items():
        target = _target(name)
        array = value.numpy()
        if target.endswith(("attn_q.weight", "attn_k.weight")):
            heads = config.num_attention_heads if "attn_q" in target else config.num_key_value_heads
            array = _interleaved(array, heads)
        array = np.ascontiguousarray(array)
        if any(part in target for part in QUANTISED):
            kind = gguf.GGMLQuantizationType.Q8_0
            packed = gguf.quants.quantize(array, kind)
            writer.add_tensor(target, packed, raw_dtype=kind)
            array = gguf.quants.dequantize(packed, kind)
            if "attn_q" in target or "attn_k" in target:
                array = _halves(array, heads)
        else:
            writer.add_tensor(target, array)
        seen[name] = torch.from_numpy(np.array(array, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    model.load_state_dict(seen)
    return model


def _target(name: str) -> str:
    if name in _NAMES:
        return _NAMES[name]
    _, _, layer, part = name.removesuffix(".weight").split(".", 3)
    return f"blk.{layer}.{_PARTS[part]}.weight"


def _interleaved(array: np.ndarray, heads: int) -> np.ndarray:
    """llama.cpp turns pairs of neighbours where transformers turns the halves of a head."""
    rows, columns = array.shape
    halves = array.reshape(heads, 2, rows // heads // 2, columns)
    return halves.swapaxes(1, 2).reshape(rows, columns)


def _halves(array: np.ndarray, heads: int) -> np.ndarray:
    rows, columns = array.shape
    pairs = array.reshape(heads, rows // heads // 2, 2, columns)
    return pairs.swapaxes(1, 2).reshape(rows, columns)


def _add_tokenizer(writer: Any, size: int) -> None:
    saved = json.loads(tiny_tokenizer().backend_tokenizer.to_str())
    special = {t["id"]: t["content"] for t in saved["added_tokens"]}
    by_id = {**{i: t for t, i in saved["model"]["vocab"].items()}, **special}
    normal, control = gguf.TokenType.NORMAL, gguf.TokenType.CONTROL
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list([by_id.get(i, f"[unused{i}]") for i in range(size)])
    writer.add_token_types([control if i in special else normal for i in range(size)])
    writer.add_token_merges([" ".join(m) for m in saved["model"]["merges"]])
    (end,) = special
    writer.add_bos_token_id(end)
    writer.add_eos_token_id(end)
    writer.add_add_bos_token(False)
    writer.add_chat_template(
        "{% for m in messages %}<|endoftext|>{{ m['role'] }}: {{ m['content'] }}{% endfor %}"
    )
