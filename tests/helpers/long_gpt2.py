"""The embedded tiny GPT-2 with room for a long prompt, as a folder and as a GGUF file.

Its 128 positions are repeated, so it reads thousands of tokens, if not well: what is tested on it
is that the numbers it gives are read right, not what it thinks.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

from polycode_plugins.loading import embedded_model

POSITIONS = 4096


#: What llama.cpp writes where a model has no template of its own.
CHAT = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def talking_folder(folder: Path) -> Path:
    """With a template for messages."""
    long_folder(folder)
    (folder / "chat_template.jinja").write_text(CHAT)
    return folder


def long_folder(folder: Path) -> Path:
    """In Hugging Face format."""
    shutil.copytree(embedded_model(), folder)
    config = json.loads((folder / "config.json").read_text())
    weights = load_file(folder / "model.safetensors")
    name = next(n for n in weights if n.endswith("wpe.weight"))
    weights[name] = np.tile(weights[name], (POSITIONS // config["n_positions"], 1))
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps({**config, "n_positions": POSITIONS}))
    return folder


def gguf_file(folder: Path, path: Path) -> Path:
    """The same model for llama.cpp."""
    import gguf

    config = json.loads((folder / "config.json").read_text())
    weights = {
        name.removeprefix("transformer."): w
        for name, w in load_file(folder / "model.safetensors").items()
    }
    writer = gguf.GGUFWriter(path, "gpt2")
    writer.add_block_count(config["n_layer"])
    writer.add_context_length(config["n_positions"])
    writer.add_embedding_length(config["n_embd"])
    writer.add_feed_forward_length(4 * config["n_embd"])
    writer.add_head_count(config["n_head"])
    writer.add_layer_norm_eps(config["layer_norm_epsilon"])
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    _add_tokenizer(writer, json.loads((folder / "tokenizer.json").read_text()), config)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.GPT2, config["n_layer"])
    for name, w in weights.items():
        if name.endswith((".attn.bias", ".attn.masked_bias")):
            continue
        # GPT-2 keeps its linear maps as [in, out], llama.cpp reads [out, in].
        turned = name.endswith(("c_attn.weight", "c_proj.weight", "c_fc.weight"))
        target = names.get_name(name, try_suffixes=(".weight", ".bias"))
        assert target is not None, name
        data = np.ascontiguousarray(w.T if turned else w, dtype=np.float32)
        writer.add_tensor(target, data)
        if name == "wte.weight":
            writer.add_tensor("output.weight", data)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _add_tokenizer(writer: Any, tokenizer: dict[str, Any], config: dict[str, Any]) -> None:
    import gguf

    vocabulary = tokenizer["model"]["vocab"]
    special = {t["id"]: t["content"] for t in tokenizer.get("added_tokens", [])}
    by_id = {**{i: t for t, i in vocabulary.items()}, **special}
    size = config["vocab_size"]
    kinds = [
        gguf.TokenType.CONTROL if i in special
        else gguf.TokenType.NORMAL if i in by_id else gguf.TokenType.UNUSED
        for i in range(size)
    ]  # fmt: skip
    merges = tokenizer["model"]["merges"]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list([by_id.get(i, f"[unused{i}]") for i in range(size)])
    writer.add_token_types(kinds)
    writer.add_token_merges([m if isinstance(m, str) else " ".join(m) for m in merges])
    writer.add_bos_token_id(config["bos_token_id"])
    writer.add_eos_token_id(config["eos_token_id"])
    writer.add_add_bos_token(False)
