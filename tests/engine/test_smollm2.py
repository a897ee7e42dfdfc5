"""A trained model of 30 blocks: values, and the statistics of all blocks from one pass."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch

import polycode_plugins as pc

pytestmark = [pytest.mark.vllm, pytest.mark.real]

CACHE = Path(
    os.environ.get("POLYCODE_CACHE") or Path(__file__).resolve().parents[2] / "build" / "real"
)
WINDOWS, CONTEXT = 24, 48


@pytest.fixture(scope="module")
def smollm2() -> Path:
    if not (CACHE / "smollm2" / "SOURCE.json").is_file():
        pytest.skip(f"SmolLM2 is not in {CACHE}; get it with: make real")
    return CACHE / "smollm2"


@pytest.fixture(scope="module")
def texts() -> list[str]:
    with (CACHE / "texts" / "texts.jsonl").open(encoding="utf-8") as lines:
        return [json.loads(next(lines))["text"] for _ in range(24)]


def test_all_blocks_of_a_trained_model(engine, smollm2, texts):
    import transformers
    from engine_truth import truth

    adapter = engine(smollm2, max_model_len=256, max_num_batched_tokens=128)
    metrics = [pc.metrics.Spectrum(), pc.metrics.Action(projections=20)]
    options = {"context": CONTEXT, "limit": WINDOWS, "batch_size": 8}
    blocks = [f"model.layers.{i}" for i in range(30)]
    neurons = ["blocks.0.mlp.hook_post", "blocks.29.mlp.hook_post"]
    found = pc.analyze(adapter, texts, metrics, [*blocks, *neurons], **options)

    model = transformers.AutoModelForCausalLM.from_pretrained(smollm2, dtype=torch.float32).eval()
    windows = adapter.batches(texts, pc.adapters.DataOptions(**options))
    rows, masks = [], []
    for batch in windows:
        for tokens, real, mask in zip(
            batch.inputs["input_ids"],
            batch.inputs["attention_mask"].bool(),
            batch.mask,
            strict=True,
        ):
            rows.append(tokens[real].tolist())
            masks.append(mask[real])
    plain = truth(model, rows, [*blocks, *neurons])
    for site in [*blocks, *neurons]:
        values = torch.cat([one[site][m] for one, m in zip(plain, masks, strict=True)]).double()
        covariance = found.statistics.accumulators(site, "spectrum")["covariance"]
        assert covariance.n_samples == len(values)
        wanted = torch.cov(values.T)
        off = float((covariance.covariance() - wanted).abs().max() / wanted.max())
        assert off < 1e-5, f"{site}: {off:.1e}"
        increments = found.statistics.accumulators(site, "action")["increments"]
        moves = [one[site][m].double().diff(dim=0) for one, m in zip(plain, masks, strict=True)]
        energy = float(torch.cat(moves).square().sum())
        assert float(increments.eigenvalues().sum()) == pytest.approx(energy, rel=1e-5)
