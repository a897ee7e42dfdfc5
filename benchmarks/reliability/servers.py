"""A server of which three in ten answers are late, cut, refused, or say something else."""

from __future__ import annotations

import asyncio
import os
import random
import sys
from pathlib import Path

from children import BROKEN, ENDED, KILLED, REFUSED, once
from tally import Tally

import polycode_plugins as pc

sys.path.append(str(Path(__file__).parents[2] / "tests" / "helpers"))

from openai_server import KEY, Server

FAULTS = ("429", "500", "hangup", "cut", "garbage", "counts", "prose", "other", "400")
SHARE = 0.3


class Unsteady(Server):
    """Behaves as each request's number says; once the path says "plain" it always behaves."""

    def __init__(self, share: float, seed: int) -> None:
        super().__init__()
        self.share, self._rng = share, random.Random(seed)

    async def _answer(
        self, path: str, payload: bytes, head: str, writer: asyncio.StreamWriter
    ) -> bool:
        if self._rng.random() < self.share:
            path = path.replace("/plain/", f"/{self._rng.choice(FAULTS)}/", 1)
        return await super()._answer(path, payload, head, writer)


def explain(folder: Path, url: str) -> None:
    pc.explainers.compare(
        None, None, ["blocks.1.mlp.hook_post"], n_units=2, limit=120, judge=False,
        floors=("constant",), explainer="openai", out=folder, progress=False, fresh=False,
        explainer_options={"model": "m", "base_url": url, "prices": {"m": {"in": 0, "out": 0}}},
    )  # fmt: skip


def scores(folder: Path) -> dict[str, float | None]:
    return {
        f"{unit.site} {unit.kind} {unit.name}": unit.score("correlation")
        for unit in pc.Comparison.load(folder)
    }


def unsteady(trials: int, seed: int, home: Path) -> Tally:
    """Every score is the one of a server that behaves, or there is none and a reason."""
    tally = Tally("server: 30% faults")
    os.environ["OPENAI_API_KEY"] = KEY
    with Unsteady(0.0, seed) as server:
        url = server.url()
        alone = once(lambda: explain(home / "right", url))
        if alone.how != ENDED:
            tally.note(BROKEN, alone.said)
            return tally
        right = scores(home / "right")
        rng = random.Random(f"server{seed}")
        for trial in range(trials):
            tally["trials"] += 1
            folder, server.share = home / str(trial), SHARE
            for _ in range(2):  # a kill, and the same command
                end = once(lambda f=folder: explain(f, url), after=rng.uniform(0.5, 4.0))  # type: ignore[misc]
                tally["kills"] += end.how == KILLED
            end = once(lambda f=folder: explain(f, url))  # type: ignore[misc]
            if end.how == REFUSED and "holds a comparison" not in end.said:
                tally.note(REFUSED)
                server.share = 0.0
                end = once(lambda f=folder: explain(f, url))  # type: ignore[misc]
            if end.how == BROKEN:
                tally.note(BROKEN, end.said)
                continue
            found = scores(folder)
            false = {k: v for k, v in found.items() if v is not None and v != right[k]}
            tally.note("different" if false else "equal", f"{false} for {right}")
    return tally
