"""What a Hugging Face model computes at the sites that the adapter `vllm` names, row by row."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

_GPT2_PARTS = {"q": 0, "k": 1, "v": 2}


def save_random(kind: str, folder: Path) -> Path:
    """A random GPT-2 or Qwen3 of three blocks, with the embedded model's tokenizer."""
    import transformers

    from polycode_plugins.loading import embedded_model

    tokenizer = transformers.AutoTokenizer.from_pretrained(embedded_model())
    size = {"vocab_size": len(tokenizer), "bos_token_id": 0, "eos_token_id": 0}
    torch.manual_seed(1)
    if kind == "gpt2":
        config = transformers.GPT2Config(n_embd=64, n_layer=3, n_head=2, n_positions=256, **size)
        model: Any = transformers.GPT2LMHeadModel(config)
    else:
        config = transformers.Qwen3Config(
            hidden_size=64, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2,
            head_dim=32, intermediate_size=96, max_position_embeddings=256, **size,
        )  # fmt: skip
        model = transformers.Qwen3ForCausalLM(config)
    with torch.no_grad():  # nothing at its usual value: norms with weights, projections with biases
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def truth(
    model: Any, rows: Sequence[Sequence[int]], names: Sequence[str]
) -> list[dict[str, Tensor]]:
    """{site: [tokens, ..]} of each row, by plain forward passes without padding."""
    found = []
    for row in rows:
        seen: dict[str, Tensor] = {}
        handles = [_hook(model, name, seen) for name in names]
        with torch.no_grad():
            model(torch.tensor([list(row)]), use_cache=False)
        for handle in handles:
            handle.remove()
        found.append(seen)
    return found


def _hook(model: Any, name: str, seen: dict[str, Tensor]) -> Any:
    path, side, part = _place(model, name)
    module = model.get_submodule(path)

    def keep(value: Any) -> None:
        value = value[0] if isinstance(value, tuple) else value
        if part is not None:
            value = value.chunk(3, dim=-1)[part]
        value = value[0].detach().clone()
        if re.search(r"attn\.hook_[qkvz]$", name):
            value = value.unflatten(-1, (-1, _head_size(model)))
        seen[name] = value

    if side == "in":
        return module.register_forward_pre_hook(
            lambda _m, args, kwargs: keep((*args, *kwargs.values())[0]), with_kwargs=True
        )
    return module.register_forward_hook(lambda _m, _a, output: keep(output))


def _head_size(model: Any) -> int:
    config = model.config
    return getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads


def _place(model: Any, name: str) -> tuple[str, str, int | None]:
    """The module of Hugging Face's, its side, and which third of a fused projection."""
    gpt2 = hasattr(model, "transformer")
    if name == "hook_embed":
        return ("transformer.wte" if gpt2 else "model.embed_tokens"), "out", None
    lens = re.fullmatch(r"blocks\.(\d+)\.(.+)", name)
    if lens is None:
        path, _, side = name.partition(":")
        fused = re.fullmatch(r"(.+)\.([qkv])_proj", path)
        if gpt2 and fused:
            return f"{fused[1]}.c_attn", "out", _GPT2_PARTS[fused[2]]
        return path, side or "out", None
    block = f"{'transformer.h' if gpt2 else 'model.layers'}.{lens[1]}"
    attention = f"{block}.{'attn' if gpt2 else 'self_attn'}"
    hook = lens[2]
    if hook.startswith("attn.hook_") and hook[-1] in "qkv":
        if gpt2:
            return f"{attention}.c_attn", "out", _GPT2_PARTS[hook[-1]]
        return f"{attention}.{hook[-1]}_proj", "out", None
    return {
        "hook_resid_pre": (block, "in", None),
        "hook_resid_mid": (f"{block}.{'ln_2' if gpt2 else 'post_attention_layernorm'}", "in", None),
        "hook_resid_post": (block, "out", None),
        "hook_attn_out": (attention, "out", None),
        "attn.hook_z": (f"{attention}.{'c_proj' if gpt2 else 'o_proj'}", "in", None),
        "hook_mlp_out": (f"{block}.mlp", "out", None),
        "mlp.hook_pre": (f"{block}.mlp.{'c_fc' if gpt2 else 'gate_proj'}", "out", None),
        "mlp.hook_pre_linear": (f"{block}.mlp.up_proj", "out", None),
        "mlp.hook_post": (f"{block}.mlp.{'c_proj' if gpt2 else 'down_proj'}", "in", None),
    }[hook]
