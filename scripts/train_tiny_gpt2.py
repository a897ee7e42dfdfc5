"""Train the embedded default model: a small GPT-2 on the standard library's docstrings.

    python scripts/train_tiny_gpt2.py                    # 7 to 8 minutes on two free CPU cores
    python scripts/train_tiny_gpt2.py --steps 20 --out /tmp/tiny   # a quick look

Writes a Hugging Face folder (config, tokenizer, float16 safetensors) and `training.json`, which
records the seed, the versions, the validation loss and the entropies that it must beat. One seed on
one machine and one set of versions gives one model.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

# Before torch starts its threads: one that spins while it waits takes the core from its neighbour.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import tokenizers
import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor
from torch.nn import functional
from transformers import GPT2Config, GPT2LMHeadModel, GPT2Tokenizer

from polycode_plugins.data import text_documents

HERE = Path(__file__).resolve().parent
DEFAULT_OUT = HERE.parent / "polycode_plugins" / "data" / "tiny-gpt2"
END = "<|endoftext|>"  # GPT-2's one special token: begins a text, ends it, and pads


@dataclass(frozen=True)
class Settings:
    """Everything that decides the result."""

    vocabulary: int = 4096
    width: int = 128
    layers: int = 6
    heads: int = 4
    context: int = 128
    dropout: float = 0.1  # of the embeddings and the residual branches
    steps: int = 3000
    batch: int = 8
    peak_lr: float = 3e-3
    warmup: int = 200
    weight_decay: float = 0.1
    beta2: float = 0.98
    seed: int = 0
    threads: int = 2  # another number sums in another order


def train_tokenizer(texts: list[str], size: int) -> GPT2Tokenizer:
    """A byte-level BPE whose merges were learned from `texts`; id 0 is the end-of-text token."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=[END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(texts, trainer)
    model = json.loads(bpe.to_str())["model"]
    merges = [tuple(pair) for pair in model["merges"]]
    return GPT2Tokenizer(vocab=model["vocab"], merges=merges, pad_token=END)


def encode(tokenizer: GPT2Tokenizer, texts: list[str], length: int) -> list[list[int]]:
    """The texts as pieces of at most `length` tokens; a piece never spans two texts."""
    pieces = []
    for ids in tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"]:
        pieces.extend(ids[i : i + length] for i in range(0, len(ids), length))
    return pieces


def pack(pieces: list[list[int]], context: int, rng: np.random.Generator) -> Tensor:
    """One epoch of training windows [windows, context + 1], in a new random order.

    A window is END, a piece, END, a piece, ... and begins where a piece begins, as the windows that
    the model will be asked about do. The piece that a window cuts short opens the next one.
    """
    windows: list[list[int]] = []
    window = [0]
    for index in rng.permutation(len(pieces)):
        piece = [*pieces[index], 0]
        window += piece
        if len(window) > context:
            windows.append(window[: context + 1])
            window = [0, *piece]
    return torch.tensor(windows)[torch.from_numpy(rng.permutation(len(windows)))]


def learning_rate(step: int, settings: Settings) -> float:
    """Linear warm-up, then a cosine to 1% of the peak."""
    if step < settings.warmup:
        return settings.peak_lr * (step + 1) / settings.warmup
    share = (step - settings.warmup) / max(1, settings.steps - settings.warmup)
    return settings.peak_lr * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * share)))


def build(settings: Settings) -> GPT2LMHeadModel:
    """A GPT-2 with tied embeddings and scaled residual initialisation."""
    return GPT2LMHeadModel(
        GPT2Config(
            vocab_size=settings.vocabulary,
            n_positions=settings.context,
            n_embd=settings.width,
            n_layer=settings.layers,
            n_head=settings.heads,
            # The same function as GPT-2's gelu_new in one fused operation: faster to train.
            activation_function="gelu_pytorch_tanh",
            resid_pdrop=settings.dropout,
            embd_pdrop=settings.dropout,
            attn_pdrop=0.0,  # costs a fifth of the time on a CPU
            bos_token_id=0,
            eos_token_id=0,
            pad_token_id=0,
        )
    )


def train(
    model: GPT2LMHeadModel, pieces: list[list[int]], held_out: list[list[int]], settings: Settings
) -> None:
    """AdamW over shuffled windows; prints the losses on standard error as it goes."""
    decayed = [p for p in model.parameters() if p.ndim >= 2]
    others = [p for p in model.parameters() if p.ndim < 2]
    optimizer = torch.optim.AdamW(
        [
            {"params": decayed, "weight_decay": settings.weight_decay},
            {"params": others, "weight_decay": 0.0},
        ],
        betas=(0.9, settings.beta2),
        fused=True,
    )
    rng = np.random.default_rng(settings.seed)
    windows, used, start = torch.empty(0, settings.context + 1, dtype=torch.long), 0, time.time()
    running = math.nan
    model.train()
    for step in range(settings.steps):
        if used + settings.batch > len(windows):
            windows, used = pack(pieces, settings.context, rng), 0
        batch = windows[used : used + settings.batch]
        used += settings.batch
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, settings)
        logits = model(input_ids=batch[:, :-1], use_cache=False).logits
        loss = functional.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        running = loss.item() if math.isnan(running) else 0.95 * running + 0.05 * loss.item()
        if (step + 1) % 250 == 0:
            sample = mean_loss(model, held_out[::4])
            print(
                f"step {step + 1}/{settings.steps}: train {running:.3f}, "
                f"validation sample {sample:.3f} nats/token, {time.time() - start:.0f} s",
                file=sys.stderr,
                flush=True,
            )
            model.train()


@torch.no_grad()
def mean_loss(model: GPT2LMHeadModel, pieces: list[list[int]]) -> float:
    """Nats per token, over all tokens of `pieces`, each piece read after one END."""
    model.eval()
    total, count = 0.0, 0
    by_length = sorted(pieces, key=len)
    for i in range(0, len(by_length), 64):
        rows = by_length[i : i + 64]
        labels = torch.full((len(rows), len(rows[-1])), -100)
        for row, piece in zip(labels, rows, strict=True):
            row[: len(piece)] = torch.tensor(piece)
        # Right padding cannot reach back through causal attention; its labels are ignored.
        inputs = torch.cat([torch.zeros(len(rows), 1), labels[:, :-1].clamp(min=0)], dim=1).long()
        logits = model(input_ids=inputs, use_cache=False).logits.float()
        total += functional.cross_entropy(
            logits.flatten(0, 1), labels.flatten(), reduction="sum", ignore_index=-100
        ).item()
        count += sum(map(len, rows))
    return total / count


def unigram_entropy(pieces: list[list[int]], held_out: list[list[int]], size: int) -> float:
    """Cross-entropy of held-out tokens under training frequencies (add-one), in nats per token."""
    counts = np.bincount(np.concatenate(pieces), minlength=size) + 1.0
    return float(-np.log(counts / counts.sum())[np.concatenate(held_out)].mean())


def bigram_entropy(pieces: list[list[int]], held_out: list[list[int]], size: int) -> float:
    """As `unigram_entropy`, given the previous token; backs off to the unigram by Witten-Bell.

    p(b | a) = (n(a, b) + d(a) p(b)) / (n(a) + d(a)), with d(a) the distinct successors of a.
    """
    unigram = np.bincount(np.concatenate(pieces), minlength=size) + 1.0
    unigram /= unigram.sum()
    pairs = np.zeros((size, size), dtype=np.float32)
    for piece in pieces:
        np.add.at(pairs, ([0, *piece[:-1]], piece), 1)
    totals, distinct = pairs.sum(axis=1), (pairs > 0).sum(axis=1)
    nats, count = 0.0, 0
    for piece in held_out:
        before, after = np.array([0, *piece[:-1]]), np.array(piece)
        d = np.maximum(distinct[before], 1)
        p = (pairs[before, after] + d * unigram[after]) / (totals[before] + d)
        nats, count = nats - float(np.log(p).sum()), count + len(piece)
    return nats / count


def save(model: GPT2LMHeadModel, tokenizer: GPT2Tokenizer, settings: Settings, out: Path) -> None:
    """Write the Hugging Face folder: float16 weights, compact tokenizer, GPT-2's own config."""
    out.mkdir(parents=True, exist_ok=True)
    model.config.activation_function = "gelu_new"
    # Whoever loads it to analyse it should not meet dropout by forgetting `.eval()`.
    model.config.resid_pdrop = model.config.embd_pdrop = model.config.attn_pdrop = 0.0
    model.half().save_pretrained(out)
    (out / "model.safetensors").chmod(0o644)
    # Halves are what is stored, to be small; what is loaded is float32 unless asked otherwise.
    rewrite(out / "config.json", indent=2, dtype="float32")
    tokenizer.model_max_length = settings.context
    tokenizer.save_pretrained(out)
    rewrite(out / "tokenizer.json", separators=(",", ":"))


def rewrite(
    path: Path,
    *,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    **changed: object,
) -> None:
    """Write a JSON file again, with entries changed or laid out anew."""
    content = json.loads(path.read_text()) | changed
    path.write_text(json.dumps(content, indent=indent, separators=separators) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=DEFAULT_OUT, help="folder to write")
    for name in ("steps", "batch", "seed", "warmup", "threads"):
        parser.add_argument(f"--{name}", type=int, default=getattr(Settings, name))
    for name in ("dropout", "peak_lr", "weight_decay", "beta2"):
        flag = f"--{name.replace('_', '-')}"
        parser.add_argument(flag, type=float, default=getattr(Settings, name))
    options = vars(parser.parse_args())
    out = options.pop("out")
    settings = Settings(**options)

    start = time.time()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    torch.set_num_threads(settings.threads)
    torch.manual_seed(settings.seed)
    sources = text_documents("embedded:train"), text_documents("embedded:validation")
    training, validation = ([document.text for document in source] for source in sources)
    tokenizer = train_tokenizer(training, settings.vocabulary)
    pieces = encode(tokenizer, training, settings.context - 1)
    held_out = encode(tokenizer, validation, settings.context - 1)
    print(
        f"{len(training)} + {len(validation)} docstrings, {sum(map(len, pieces))} + "
        f"{sum(map(len, held_out))} tokens",
        file=sys.stderr,
    )

    model = build(settings)
    train(model, pieces, held_out, settings)
    save(model, tokenizer, settings, out)
    saved = GPT2LMHeadModel.from_pretrained(out, dtype=torch.float32)
    record = {
        "settings": asdict(settings),
        "parameters": saved.num_parameters(),
        "train": {
            "docstrings": len(training),
            "tokens": sum(map(len, pieces)),
            "digest": sources[0].digest(),
            "loss": mean_loss(saved, pieces[::10]),  # of every tenth piece
        },
        "validation": {
            "docstrings": len(validation),
            "tokens": sum(map(len, held_out)),
            "digest": sources[1].digest(),
            "loss": mean_loss(saved, held_out),
            "unigram_entropy": unigram_entropy(pieces, held_out, settings.vocabulary),
            "bigram_entropy": bigram_entropy(pieces, held_out, settings.vocabulary),
        },
        # Every fourth piece: what the tests have the time to measure again.
        "validation_quarter": {
            "loss": mean_loss(saved, held_out[::4]),
            "unigram_entropy": unigram_entropy(pieces, held_out[::4], settings.vocabulary),
        },
        "unit": "nats per token",
        "seconds": round(time.time() - start),
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "tokenizers": tokenizers.__version__,
            "numpy": np.__version__,
        },
    }
    (out / "training.json").write_text(json.dumps(record, indent=2) + "\n")
    print(json.dumps(record, indent=2))


if __name__ == "__main__":
    main()
