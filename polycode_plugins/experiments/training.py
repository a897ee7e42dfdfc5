"""A training loop that goes on where it was interrupted, bit for bit.

Everything a step draws (data, dropout) comes from a seed of its own, made of the run's seed and the
number of the step. So weights and the optimizer's averages are the whole state.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from polycode_plugins.errors import ModelError, StateError
from polycode_plugins.files import storage

SAVE_SECONDS = 60.0


def check_device(device: str) -> None:
    """See that a setting `device` can be used.

    Raises:
        ModelError: when it cannot.
    """
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # torch built without CUDA asserts
        reason = str(error).partition("\n")[0]
        raise ModelError(
            f"the device {device!r} cannot be used ({reason}); --set device=cpu"
        ) from error


def train(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    loss_of: Callable[[int], Tensor],
    steps: int,
    *,
    seed: int,
    path: Path | None = None,
    rate: Callable[[int], float] | None = None,
    log: Callable[[int, float], None] | None = None,
    every: int = 100,
    label: str = "training",
) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Minimise `loss_of(step)` over the parameters of `model`.

    Args:
        loss_of: a scalar; whatever it draws from torch's global generator is seeded by step.
        seed: of the run.
        path: a safetensors file for the state, written once a minute and at the end; None keeps
            nothing. A finished one is only read.
        rate: learning rate by step; the optimizer's own where None.
        log: called with every logged step and its loss (TensorBoard, W&B).
        every: steps between two logged losses.
        label: of the progress bar.

    Returns:
        float64 [logged, 2]: step and loss.

    Raises:
        StateError: for a state that does not fit the model.
    """
    from tqdm import tqdm

    done, losses = _load(path, model, optimizer) if path is not None else (0, [])
    saved_at = time.monotonic()
    model.train()
    # For devices that may be initialised yet `torch.manual_seed` keeps the stack of every call.
    on_cpu = all(parameter.device.type == "cpu" for parameter in model.parameters())
    reseed = torch.default_generator.manual_seed if on_cpu else torch.manual_seed
    with torch.random.fork_rng(devices=[]):
        bar = tqdm(range(done, steps), label, steps, initial=done, disable=not sys.stderr.isatty())
        for step in bar:
            reseed(_mixed(seed, step))
            if rate is not None:
                for group in optimizer.param_groups:
                    group["lr"] = rate(step)
            loss = loss_of(step)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            if (step + 1) % every == 0 or step + 1 == steps:
                losses.append((step + 1, loss.item()))
                if log is not None:
                    log(*losses[-1])
            last = step + 1 == steps
            if path is not None and (last or time.monotonic() - saved_at > SAVE_SECONDS):
                _save(path, model, optimizer, step + 1, losses)
                saved_at = time.monotonic()
    model.eval()
    return np.array(losses, dtype=np.float64).reshape(-1, 2)


def cosine(rate: float, steps: int, floor: float = 0.0) -> Callable[[int], float]:
    """A learning rate that falls from `rate` to `floor` times it along half a cosine."""
    return lambda step: rate * (floor + (1 - floor) * (1 + np.cos(np.pi * step / steps)) / 2)


def seeded(seed: int, *place: int) -> torch.Generator:
    """A generator for one place of a run, on the CPU."""
    return torch.Generator().manual_seed(_mixed(seed, *place))


def _mixed(*numbers: int) -> int:
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> 1)


def _save(
    path: Path,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    step: int,
    losses: list[tuple[int, float]],
) -> None:
    from safetensors.torch import save_file

    state = {f"model.{k}": v.detach().cpu().contiguous() for k, v in model.state_dict().items()}
    for index, averages in optimizer.state_dict()["state"].items():
        for name, value in averages.items():
            state[f"optimizer.{index}.{name}"] = torch.as_tensor(value).cpu().contiguous()
    state["step"] = torch.tensor(step)
    state["losses"] = torch.tensor(losses, dtype=torch.float64).reshape(-1, 2)
    storage.write_file(path, lambda draft: save_file(state, draft))


def _load(
    path: Path, model: nn.Module, optimizer: torch.optim.Optimizer
) -> tuple[int, list[tuple[int, float]]]:
    if not path.is_file():
        return 0, []
    from safetensors.torch import load_file

    try:
        state = load_file(path)
        model.load_state_dict(
            {k.removeprefix("model."): v for k, v in state.items() if k.startswith("model.")}
        )
        averages: dict[int, dict[str, Tensor]] = {}
        for key, value in state.items():
            if key.startswith("optimizer."):
                _, index, name = key.split(".", 2)
                averages.setdefault(int(index), {})[name] = value
        groups = optimizer.state_dict()["param_groups"]
        optimizer.load_state_dict({"state": averages, "param_groups": groups})
        losses = [(int(s), float(v)) for s, v in state["losses"].tolist()]
        return int(state["step"]), losses
    except Exception as error:  # safetensors raises its own type, which it does not export
        raise StateError(
            f"the training state {str(path)!r} is damaged or of another model ({error}); repeat "
            "with --fresh"
        ) from error
