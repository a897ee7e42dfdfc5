"""Small language models trained here: checkpoints of one, and several of different MLP widths.

They have the recipe of the embedded model (scripts/train_tiny_gpt2.py), smaller, and are measured
on docstrings held out of training, in groups that share none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch.nn import functional
from transformers import GPT2Config, GPT2LMHeadModel

import polycode_plugins as pc
from benchmarks.atlas.measurements import interval
from polycode_plugins.data import text_documents
from polycode_plugins.experiments.base import parts
from scripts.train_tiny_gpt2 import (
    Settings,
    encode,
    learning_rate,
    mean_loss,
    pack,
    train_tokenizer,
)

CHECKPOINTS = (0, 10, 25, 50, 100, 200, 400, 800)
WIDTHS = (96, 192, 384, 768)
GROUPS = 5
FAST = Settings(vocabulary=2048, width=96, layers=4, context=96, batch=8, warmup=50)
WIDE_STEPS, SEEDS = 200, 3
SAMPLED = 200  # windows that a model is measured on


@dataclass(frozen=True)
class Corpus:
    """A tokenizer, pieces to train on, and texts held out, by group."""

    tokenizer: Any
    pieces: list[list[int]]
    held_out: list[list[str]]


def corpus() -> Corpus:
    """The standard library's docstrings."""
    training = [document.text for document in text_documents("embedded:train")]
    others = [document.text for document in text_documents("embedded:validation")]
    tokenizer = train_tokenizer(training, FAST.vocabulary)
    pieces = encode(tokenizer, training, FAST.context - 1)
    return Corpus(tokenizer, pieces, [others[group::GROUPS] for group in range(GROUPS)])


def build(inner: int, seed: int) -> GPT2LMHeadModel:
    """A GPT-2 whose MLPs have `inner` neurons."""
    torch.manual_seed(seed)
    return GPT2LMHeadModel(
        GPT2Config(
            vocab_size=FAST.vocabulary,
            n_positions=FAST.context,
            n_embd=FAST.width,
            n_layer=FAST.layers,
            n_head=FAST.heads,
            n_inner=inner,
            activation_function="gelu_pytorch_tanh",
            resid_pdrop=0.0,
            embd_pdrop=0.0,
            attn_pdrop=0.0,
            bos_token_id=0,
            eos_token_id=0,
            pad_token_id=0,
        )
    )


def steps(model: GPT2LMHeadModel, data: Corpus, count: int, seed: int, stops: Sequence[int]) -> Any:
    """Train for `count` steps; yields each of `stops`, 0 first, when the model is there."""
    settings = Settings(**{**vars(FAST), "steps": count})
    optimizer = torch.optim.AdamW(model.parameters(), betas=(0.9, FAST.beta2), weight_decay=0.0)
    rng = np.random.default_rng(seed)
    windows = torch.empty(0, FAST.context + 1, dtype=torch.long)
    used = 0
    for step in range(count + 1):
        if step in stops:
            yield step
        if step == count:
            return
        if used + FAST.batch > len(windows):
            windows, used = pack(data.pieces, FAST.context, rng), 0
        batch = windows[used : used + FAST.batch]
        used += FAST.batch
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, settings)
        model.train()
        logits = model(input_ids=batch[:, :-1], use_cache=False).logits
        loss = functional.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()


def spectra(model: GPT2LMHeadModel, data: Corpus, site: str, texts: list[str]) -> Any:
    """The analysis of some sites on held-out texts."""
    adapter = pc.load(model.eval(), "transformers", tokenizer=data.tokenizer, prepend_bos=True)
    return pc.analyze(
        adapter,
        texts,
        "spectrum",
        site,
        limit=SAMPLED,
        context=FAST.context,
        progress=False,
    )


def checkpoints(folder: Path) -> pd.DataFrame:
    """Exponent and effective rank of the last block, by step and group of texts."""

    def made(_key: str) -> pd.DataFrame:
        data, rows = corpus(), []
        model = build(4 * FAST.width, 0)
        site = f"transformer.h.{FAST.layers - 1}"
        texts = [text for group in data.held_out for text in group[:100]]
        held_out = encode(data.tokenizer, texts, FAST.context - 1)
        for step in steps(model, data, CHECKPOINTS[-1], 0, CHECKPOINTS):
            loss = mean_loss(model, held_out)
            for group in range(GROUPS):
                found = spectra(model, data, site, data.held_out[group])[site, "spectrum"]
                rank = found.dimensions.effective_rank
                rows.append(
                    {
                        "step": step,
                        "group": group,
                        "loss": loss,
                        "samples": found.n_samples,
                        **interval("exponent", found.exponent, found.interval),
                        **interval("effective_rank", rank.value, rank),
                        "participation": found.participation_ratio,
                    }
                )
        return pd.DataFrame(rows)

    return parts(folder, "checkpoints", ["all"], made).drop(columns="part")


def widths(folder: Path) -> pd.DataFrame:
    """Soft rank (exp of the spectral entropy) and hard rank (participation ratio) of neurons."""
    data: list[Corpus] = []

    def made(key: str) -> pd.DataFrame:
        inner, seed = map(int, key.split("-"))
        if not data:
            data.append(corpus())
        model = build(inner, seed)
        for _ in steps(model, data[0], WIDE_STEPS, seed, (WIDE_STEPS,)):
            pass
        texts = [text for group in data[0].held_out for text in group]
        found = spectra(model, data[0], "transformer.h.*.mlp.c_proj:in", texts)
        rows = []
        for block, site in enumerate(found):
            dims = found[site, "spectrum"].dimensions
            rows.append(
                {
                    "inner": inner,
                    "network": seed,
                    "block": block,
                    "soft": float(np.exp(dims.spectral_entropy.value or np.nan)),
                    "hard": float(dims.participation_ratio.value or np.nan),
                }
            )
        return pd.DataFrame(rows)

    keys = [f"{inner}-{seed}" for inner in WIDTHS for seed in range(SEEDS)]
    return parts(folder, "widths", keys, made).drop(columns="part")
