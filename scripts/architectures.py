"""Writes docs/architectures.md: what each way in reads of twenty architectures.

Tiny models with random weights; a batch of 4 rows with 3 positions of padding where the model takes
a mask. The numbers that are right follow from the inputs alone.

    python scripts/architectures.py
"""

from __future__ import annotations

import argparse
import dataclasses
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
import transformers as hf
from torch import Tensor, nn
from torchvision import models as vision

import polycode_plugins as pc
from polycode_plugins.adapters.base import Batch
from polycode_plugins.metrics.accumulators import Covariance

ROOT = Path(__file__).parent.parent
IDS = torch.randint(5, 60, (4, 6), generator=torch.Generator().manual_seed(3))
MASK = torch.ones_like(IDS)
MASK[0, 3:] = 0
PAIR = {"input_ids": IDS, "attention_mask": MASK}
BOTH = {**PAIR, "decoder_input_ids": IDS}
SIZES = {"hidden_size": 32, "intermediate_size": 40, "num_hidden_layers": 2}
LM = {**SIZES, "num_attention_heads": 4, "vocab_size": 60}
KV = {"num_key_value_heads": 2, "head_dim": 8}
SIDES = {"encoder_layers": 2, "decoder_layers": 2, "encoder_ffn_dim": 40, "decoder_ffn_dim": 40}
HEADS = {"encoder_attention_heads": 4, "decoder_attention_heads": 4, "d_model": 32}
PICTURES = torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(4))
SERIES = torch.randn(6, 4, 16, generator=torch.Generator().manual_seed(5))  # [position, batch, ..]


class Tagger(nn.Module):
    """A recurrent layer in PyTorch's own order, and a map on it."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.rnn, self.head = getattr(nn, kind)(16, 24), nn.Linear(24, 20)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.rnn(x)[0])


def model_of(name: str, kind: str = "Model", **config: Any) -> nn.Module:
    return getattr(hf, f"{name}{kind}")(getattr(hf, f"{name}Config")(**config))


# name: (make, inputs, site, samples and width that are right)
Case = tuple[Callable[[], nn.Module], Any, str, tuple[int, int]]
CASES: dict[str, Case] = {
    "GPT-2": (
        lambda: model_of("GPT2", vocab_size=60, n_embd=32, n_layer=2, n_head=4),
        PAIR,
        "h.1",
        (21, 32),
    ),
    "Llama": (lambda: model_of("Llama", **LM), PAIR, "layers.1.mlp.down_proj:in", (21, 40)),
    "GPT-NeoX": (lambda: model_of("GPTNeoX", **LM), PAIR, "layers.1", (21, 32)),
    "Qwen 3": (lambda: model_of("Qwen3", **LM, **KV), PAIR, "layers.0.self_attn.q_norm", (21, 32)),
    "Gemma 3": (
        lambda: model_of("Gemma3Text", **LM, **KV),
        PAIR,
        "layers.0.self_attn.k_norm",
        (21, 16),
    ),
    "Cohere": (
        lambda: model_of("Cohere", **LM, use_qk_norm=True),
        PAIR,
        "layers.0.self_attn.q_norm",
        (21, 32),
    ),
    "Phi": (
        lambda: model_of("Phi", **LM, qk_layernorm=True),
        PAIR,
        "layers.0.self_attn.q_layernorm",
        (21, 32),
    ),
    "Mixtral": (
        lambda: model_of("Mixtral", **LM, num_key_value_heads=2, num_local_experts=4),
        PAIR,
        "layers.0.mlp.experts",
        (21, 32),
    ),
    "Mamba": (
        lambda: model_of("Mamba", vocab_size=60, hidden_size=32, num_hidden_layers=2),
        PAIR,
        "layers.1",
        (21, 32),
    ),
    "BERT": (lambda: model_of("Bert", **LM), PAIR, "encoder.layer.0.output", (21, 32)),
    "T5, decoder": (
        lambda: model_of("T5", d_model=32, d_ff=40, num_layers=2, num_heads=2, vocab_size=60),
        BOTH,
        "decoder.block.1.layer.2",
        (24, 32),
    ),
    "BART, encoder": (
        lambda: model_of("Bart", vocab_size=60, **SIDES, **HEADS),
        BOTH,
        "encoder.layers.1",
        (21, 32),
    ),
    "Whisper, encoder": (
        lambda: model_of(
            "Whisper",
            vocab_size=60,
            **SIDES,
            **HEADS,
            num_mel_bins=8,
            max_source_positions=20,
            pad_token_id=1,
            decoder_start_token_id=2,
        ),
        {"input_features": torch.randn(4, 8, 40), "decoder_input_ids": IDS},
        "encoder.layers.1",
        (80, 32),
    ),
    "ViT": (
        lambda: model_of("ViT", **SIZES, num_attention_heads=4, image_size=64, patch_size=16),
        {"pixel_values": PICTURES},
        "layernorm",
        (68, 32),
    ),
    "ResNet-18": (lambda: vision.resnet18(), PICTURES, "layer4.1", (16, 512)),
    "Swin": (lambda: vision.swin_t(), PICTURES, "features.1.0", (1024, 96)),
    "ConvNeXt": (lambda: vision.convnext_tiny(), PICTURES, "features.1.0.block.3", (1024, 384)),
    "LSTM, sequence first": (lambda: Tagger("LSTM"), SERIES, "head", (24, 20)),
    "nn.Transformer, sequence first": (
        lambda: nn.Transformer(16, 4, 1, 1, 24),
        (SERIES, SERIES[:5]),
        "decoder.layers.0.linear1",
        (20, 24),
    ),
    "perceptron on [4, 6, 16]": (
        lambda: nn.Sequential(nn.Linear(16, 24), nn.ReLU()),
        SERIES.transpose(0, 1),
        "1",
        (24, 24),
    ),
}


@dataclasses.dataclass(frozen=True)
class Size(pc.Metric):
    """Samples and width alone."""

    name = "size"

    def accumulators(self) -> dict[str, Any]:
        return {"covariance": Covariance()}

    def compute(self, accumulators: Mapping[str, Any], site: Any) -> Any:
        held = accumulators["covariance"]
        return held.n_samples, int(held.covariance().shape[0])


def called(model: nn.Module, inputs: Any) -> None:
    with torch.no_grad():
        if isinstance(inputs, dict):
            model(**inputs)
        else:
            model(*(inputs if isinstance(inputs, tuple) else (inputs,)))


def attached(model: nn.Module, inputs: Any, site: str, **options: Any) -> Any:
    with pc.attach(model, site, Size(), **options) as probe:
        called(model, inputs)
    (name,) = probe._statistics.sites
    return (
        probe._statistics.compute(name, Size()) if not probe._capture.problems else probe.compute()
    )


def analysed(model: nn.Module, inputs: Any, site: str) -> Any:
    adapter = pc.load(model, "module")
    rows = torch.arange(4 if not isinstance(inputs, Tensor) else len(inputs))
    batch = Batch(inputs, rows=rows)
    sites = adapter.resolve(site, batch)
    from polycode_plugins.adapters.undisturbed import undisturbed
    from polycode_plugins.runs.gathering import Statistics

    statistics = Statistics([Size()], sites)
    with undisturbed(model):
        adapter.run(batch, sites, statistics.receive)
    return statistics.compute(site, Size())


WAYS: dict[str, Callable[[nn.Module, Any, str], Any]] = {
    "attach": attached,
    "analyze": analysed,
    "attach, nnsight": lambda m, i, s: attached(m, i, f"model.{s}", adapter="nnsight"),
}


def cell(way: Callable[..., Any], case: Case) -> str:
    make, inputs, site, right = case
    torch.manual_seed(0)
    model = make().eval()
    try:
        got = way(model, inputs, site)
    except pc.PolycodeError as error:
        return "refused: " + str(error).replace("|", "/")
    if got != right:
        raise SystemExit(f"{site} of {type(model).__name__}: read {got}, right is {right}")
    return f"{got[0]} x {got[1]}"


def main() -> None:
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    hf.logging.set_verbosity_error()
    warnings.simplefilter("ignore")
    lines = ["| architecture | site | samples x width | " + " | ".join(WAYS) + " |"]
    lines.append("|" + "---|" * (3 + len(WAYS)))
    notes: list[str] = []
    for name, case in CASES.items():
        cells = []
        for way in WAYS.values():
            text = cell(way, case)
            if text.startswith("refused"):
                if text not in notes:
                    notes.append(text)
                text = f"refused ({notes.index(text) + 1})"
            cells.append(text)
        samples, width = case[3]
        shown = " | ".join(cells)
        lines.append(f"| {name} | `{case[2]}` | {samples} x {width} | {shown} |")
        print(lines[-1], flush=True)
    head = (
        (ROOT / "docs" / "architectures.md").read_text(encoding="utf-8").split("<!-- made -->")[0]
    )
    body = "\n".join([*lines, "", *(f"{i}. {n}" for i, n in enumerate(notes, 1))])
    (ROOT / "docs" / "architectures.md").write_text(
        f"{head}<!-- made -->\n\n{body}\n", encoding="utf-8"
    )


if __name__ == "__main__":
    main()
