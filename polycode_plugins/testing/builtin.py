"""The cases of this package's plugins, declared like everybody's (`polycode_plugins.cases`)."""

from __future__ import annotations

import os
from functools import lru_cache

import torch
from torch import Tensor, nn

from polycode_plugins.adapters.base import Adapter, Batch
from polycode_plugins.data_options import DataOptions
from polycode_plugins.loading import embedded_model, load
from polycode_plugins.testing.cases import AdapterCase, ExplainerCase, KnownAnswer, MetricCase

_TEXTS = [
    f"Return the {n} root of x, a number that is not negative." for n in ("2nd", "3rd", "4th")
]


class Images(nn.Module):
    """A network with a convolution, an in-place ReLU that is used twice, and a part never used."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 5, 3)
        self.relu = nn.ReLU(inplace=True)
        self.norm = nn.BatchNorm2d(5)
        self.head = nn.Linear(5, 4)
        self.drop = nn.Dropout(0.5)
        self.spare = nn.Linear(2, 2)

    def forward(self, x: Tensor) -> Tensor:
        """[batch, 4] from [batch, 3, height, width]."""
        seen = self.norm(self.relu(self.conv(x)))
        scores: Tensor = self.drop(self.relu(self.head(seen.mean(dim=(2, 3)))))
        return scores


@lru_cache
def _images() -> Images:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Images()


def _truth(batch: Batch) -> dict[str, Tensor]:
    model = _images()
    return {"conv": nn.functional.conv2d(batch.inputs, model.conv.weight, model.conv.bias)}


def _rows(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def module() -> AdapterCase:
    """The `module` adapter on a small network with all that is awkward."""
    return AdapterCase(
        make=lambda: load(_images(), "module"),
        data=_rows(7, 3, 8, 8),
        in_place="conv",
        repeated=("relu:0", "relu:1"),
        silent="spare",
        truth=_truth,
    )


def nnsight() -> AdapterCase:
    """The `nnsight` adapter on the same network."""
    return AdapterCase(
        make=lambda: load(_images(), "nnsight"),
        data=_rows(7, 3, 8, 8),
        in_place="model.conv",
        repeated=("model.relu:0", "model.relu:1"),
        silent="model.spare",
        truth=lambda batch: {f"model.{k}": v for k, v in _truth(batch).items()},
    )


@lru_cache
def _resnet() -> Adapter:
    """A ResNet of torchvision's with all its kinds of blocks, a quarter of the smallest one."""
    from torchvision.models.resnet import Bottleneck, ResNet

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return load(ResNet(Bottleneck, [1, 1, 1, 1], 10, width_per_group=8), "torchvision")


def torchvision() -> AdapterCase:
    """The `torchvision` adapter on a small untrained ResNet and small images."""
    return AdapterCase(
        make=_resnet,
        data=_rows(5, 3, 40, 40),
        sites=["bn1", "layer1.0.relu:*", "layer4.0", "avgpool"],
        in_place="bn1",
        repeated=("layer1.0.relu:0", "layer1.0.relu:1"),
        options=DataOptions(batch_size=4, limit=5),
        tolerance=1e-4,
    )


@lru_cache
def _tiny_gpt2() -> Adapter:
    return load(None, "transformer-lens")


def transformer_lens() -> AdapterCase:
    """The `transformer-lens` adapter on the embedded model."""
    return AdapterCase(
        make=_tiny_gpt2,
        data=_TEXTS * 8,
        sites=["blocks.0.hook_resid_pre", "blocks.1.mlp.hook_post", "blocks.2.hook_resid_post"],
        options=DataOptions(batch_size=3, context=12, limit=4),
    )


@lru_cache
def _bare_gpt2() -> Adapter:
    return load(embedded_model(), "transformers")


def transformers() -> AdapterCase:
    """The `transformers` adapter on the embedded model."""
    return AdapterCase(
        make=_bare_gpt2,
        data=_TEXTS * 8,
        sites=["transformer.h.0", "transformer.h.1.mlp.act", "transformer.h.2"],
        options=DataOptions(batch_size=3, context=12, limit=4),
    )


@lru_cache
def _engine() -> Adapter:
    """vLLM in this process, on the embedded model: elsewhere no activations can be looked at."""
    name = "VLLM_ENABLE_V1_MULTIPROCESSING"
    before = os.environ.get(name)
    os.environ[name] = "0"
    try:
        settings = {"max_num_batched_tokens": 32, "max_num_seqs": 4}
        return load(embedded_model(), "vllm", engine=settings)
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def vllm() -> AdapterCase:
    """The `vllm` adapter on the embedded model, by steps that do not hold a batch."""
    return AdapterCase(
        make=_engine,
        data=torch.randint(1, 4096, (7, 12), generator=torch.Generator().manual_seed(0)),
        sites=["blocks.0.hook_resid_pre", "transformer.h.1.mlp", "blocks.2.hook_resid_post"],
        tolerance=2e-5,
    )


def spectrum() -> MetricCase:
    """`spectrum`, with the eigenvalues of a diagonal covariance known."""
    from polycode_plugins.metrics import Spectrum

    return MetricCase(
        make=lambda: Spectrum(fit="huber", ranks=(1, 500)),
        # +-sqrt(variance) along each axis in turn: the covariance is diagonal and equal.
        known=[KnownAnswer(_cross(8), {"participation_ratio_naive": 8.0, "n_samples": 16.0})],
    )


def capacity() -> MetricCase:
    """`capacity` with its defaults."""
    from polycode_plugins.metrics import Capacity

    return MetricCase(make=lambda: Capacity())


def action() -> MetricCase:
    """`action` along rows, quick."""
    from polycode_plugins.metrics import Action

    return MetricCase(make=lambda: Action(path="rows", projections=20), order_matters=True)


def mine() -> MetricCase:
    """`mine` by its closed-form estimator: training critics is tested elsewhere."""
    from polycode_plugins.metrics import MINE

    return MetricCase(make=lambda: MINE(estimators=("gaussian",)), tolerance=1e-6)


def cka() -> MetricCase:
    """`cka` with its defaults: all samples of the data are kept."""
    from polycode_plugins.metrics import CKA

    return MetricCase(make=lambda: CKA(), tolerance=1e-6)


def token_lookup() -> ExplainerCase:
    """`token-lookup` with its defaults."""
    from polycode_plugins.explainers.lookup import TokenLookupExplainer

    return ExplainerCase(TokenLookupExplainer)


def ngram() -> ExplainerCase:
    """`ngram` with its defaults."""
    from polycode_plugins.explainers.ngram import NgramExplainer

    return ExplainerCase(NgramExplainer)


def openai() -> ExplainerCase:
    """`openai` over a backend that answers by rule."""
    from polycode_plugins.testing.scripted import scripted_explainer

    return ExplainerCase(scripted_explainer)


def _cross(width: int) -> Tensor:
    axes = torch.eye(width, dtype=torch.float64)
    return torch.cat([axes, -axes])
