"""An engine in a few lines: packed steps through a model built as vLLM builds one.

`PackedEngine` schedules as it is told: which tokens of which requests pass in each step. The stream
of a token depends on it and its position, so that a row that is taken for another one shows.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

WIDTH = 6
TABLE = torch.randn(50, WIDTH, generator=torch.Generator().manual_seed(5))


class RMSNorm(nn.Module):
    """vLLM's: adds its two arguments in place before anything else."""

    def forward(self, *given: Tensor) -> Any:
        if len(given) == 1:
            return given[0] / given[0].square().mean(dim=1, keepdim=True).sqrt()
        given[1].add_(given[0])
        return self.forward(given[1]), given[1]


class Fused(nn.Module):
    """Projections side by side, as QKVParallelLinear and MergedColumnParallelLinear make them."""

    def __init__(self, inputs: int, outputs: int, **sizes: int) -> None:
        super().__init__()
        self.input_size = inputs
        self.weight = nn.Parameter(torch.randn(outputs, inputs))
        for name, size in sizes.items():
            setattr(self, name, size)

    def forward(self, x: Tensor) -> tuple[Tensor, None]:
        return x @ self.weight.T, None


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.qkv_proj = Fused(WIDTH, 16, num_heads=2, num_kv_heads=1, head_size=4)
        self.o_proj = Fused(8, WIDTH)

    def forward(self, hidden: Tensor) -> Tensor:
        qkv, _ = self.qkv_proj(hidden)
        z = qkv[:, :8].clone()
        qkv.zero_()  # rotations are applied in place
        return self.o_proj(z)[0]


class MLP(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gate_up_proj = Fused(WIDTH, 20)
        self.down_proj = Fused(10, WIDTH)

    def forward(self, hidden: Tensor) -> Tensor:
        both, _ = self.gate_up_proj(hidden)
        return self.down_proj(both[:, :10].sigmoid() * both[:, 10:])[0]


class Block(nn.Module):
    """Of the Llama family: the stream in two parts; a `faulty` one returns their sum beside one."""

    def __init__(self, faulty: bool = False) -> None:
        super().__init__()
        self.faulty = faulty
        self.input_layernorm, self.post_attention_layernorm = RMSNorm(), RMSNorm()
        self.self_attn, self.mlp = Attention(), MLP()

    def forward(self, positions: Tensor, hidden_states: Tensor, residual: Tensor | None) -> Any:
        if residual is None:
            residual = hidden_states.clone()
            hidden_states = self.input_layernorm(hidden_states)
        else:
            hidden_states, residual = self.input_layernorm(hidden_states, residual)
        hidden_states = self.self_attn(hidden_states)
        hidden_states, residual = self.post_attention_layernorm(hidden_states, residual)
        hidden_states = self.mlp(hidden_states)
        if self.faulty:
            return hidden_states + residual, residual
        return hidden_states, residual


class Inner(nn.Module):
    def __init__(self, blocks: int, faulty: bool) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding.from_pretrained(TABLE)
        self.layers = nn.ModuleList([Block(faulty) for _ in range(blocks)])
        self.norm = RMSNorm()


class PackedModel(nn.Module):
    def __init__(self, blocks: int = 2, *, faulty: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.model = Inner(blocks, faulty)

    def forward(self, input_ids: Tensor, positions: Tensor) -> Tensor:
        hidden = self.model.embed_tokens(input_ids) + positions[:, None] / 10
        residual = None
        for layer in self.model.layers:
            hidden, residual = layer(positions, hidden, residual)
            if layer.faulty:
                residual = torch.zeros_like(hidden)
        return self.model.norm(hidden, residual)[0]


class PackedEngine:
    """Runs steps of {request: (first token, count)} over texts."""

    def __init__(self, texts: dict[str, list[int]], model: PackedModel | None = None) -> None:
        self.texts = texts
        self.model = PackedModel() if model is None else model
        self.input_batch = SimpleNamespace(req_ids=[])
        self.requests: dict[str, None] = {}
        self.metadata: Any = None

    def get_model(self) -> nn.Module:
        return self.model

    def context(self) -> Any:
        return SimpleNamespace(attn_metadata=self.metadata)

    def step(self, parts: dict[str, tuple[int, int]], *, padding: int = 0) -> None:
        self.input_batch.req_ids = list(parts)
        self.requests |= dict.fromkeys(parts)
        tokens = [t for r, (first, n) in parts.items() for t in self.texts[r][first : first + n]]
        places = [p for first, n in parts.values() for p in range(first, first + n)]
        starts = [0]
        for _, count in parts.values():
            starts.append(starts[-1] + count)
        self.metadata = {
            "layer": SimpleNamespace(
                query_start_loc=torch.tensor(starts),
                seq_lens=torch.tensor([first + n for first, n in parts.values()]),
            )
        }
        with torch.inference_mode():  # as vLLM does
            self.model(
                input_ids=torch.tensor(tokens + [0] * padding),
                positions=torch.tensor(places + [0] * padding),
            )

    def end(self, *requests: str) -> None:
        for request in requests:
            del self.requests[request]

    def truth(self, request: str) -> dict[str, Tensor]:
        """The stream before and after each block, and the neurons, of a text by itself."""
        model, found = self.model, {}
        tokens = torch.tensor(self.texts[request])
        with torch.no_grad():
            stream = model.model.embed_tokens(tokens) + torch.arange(len(tokens))[:, None] / 10
            for i, block in enumerate(model.model.layers):
                found[f"blocks.{i}.hook_resid_pre"] = stream.clone()
                normed = block.input_layernorm(stream)
                qkv = normed @ block.self_attn.qkv_proj.weight.T
                found[f"blocks.{i}.attn.hook_q"] = qkv[:, :8].unflatten(1, (2, 4))
                found[f"model.layers.{i}.self_attn.v_proj"] = qkv[:, 12:]
                stream = stream + qkv[:, :8] @ block.self_attn.o_proj.weight.T
                found[f"blocks.{i}.hook_resid_mid"] = stream.clone()
                both = block.post_attention_layernorm(stream) @ block.mlp.gate_up_proj.weight.T
                found[f"model.layers.{i}.mlp.up_proj"] = both[:, 10:]
                neurons = both[:, :10].sigmoid() * both[:, 10:]
                found[f"blocks.{i}.mlp.hook_post"] = neurons
                stream = stream + neurons @ block.mlp.down_proj.weight.T
                found[f"model.layers.{i}"] = stream.clone()
        return found
