"""Kills at seeded moments and faults of a disk: what is saved must be whole, and the end the same.

    python benchmarks/reliability.py --trials 20 --seed 0 --only analyze,torchrun

Every run is a fork of this process, so that none pays for the imports. A kill is a SIGKILL before
the n-th file operation (opened for writing, synced, renamed, removed), or at a random time. After
it what is in the folder must be readable; after some kills the command is left to end, and what it
gives is compared bit by bit with an undisturbed run. Prints a table; exits with 1 where anything
was lost, differed or ended in a traceback. Figures of a run of it are in docs/reliability.md.
"""

from __future__ import annotations

import argparse
import builtins
import errno
import hashlib
import io
import itertools
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import filelock  # noqa: F401 - this and others before the forks, each of which would pay for it
import sklearn.linear_model  # noqa: F401
import torch
import torch.distributed
import tqdm  # noqa: F401
from torch import nn

import polycode_plugins as pc
from polycode_plugins import experiments
from polycode_plugins.errors import PolycodeError, StateError
from polycode_plugins.experiments import claims, training
from polycode_plugins.experiments.base import Experiment, parts
from polycode_plugins.files import storage
from polycode_plugins.runs import passes

KILLS = 3  # at most, one after the other
ENDED, REFUSED, BROKEN, KILLED = "ended", "refused", "traceback", "killed"
_FIRST = 20  # operations in which a run that goes on saves for the first time
OPERATIONS = ("replace", "fsync", "unlink", "rmdir", "mkdir")
FAULTS = {
    "full": errno.ENOSPC,
    "read-only": errno.EROFS,
    "stale handle": errno.ESTALE,
    "input/output error": errno.EIO,
    "slow": 0,
}

Work = Callable[[Path], None]


# -- children ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class End:
    """How a child ended, what it said, and how many file operations it did."""

    how: str
    said: str = ""
    operations: int = 0


def hooked(before: Callable[[], None]) -> None:
    """Call `before` before every file operation of this process."""

    def of(function: Callable[..., object]) -> Callable[..., object]:
        def call(*given: object, **named: object) -> object:
            before()
            return function(*given, **named)

        return call

    for name in OPERATIONS:
        setattr(os, name, of(getattr(os, name)))

    def opened(file: object, mode: str = "r", *given: object, **named: object) -> object:
        if set(mode) & set("wax+"):
            before()
        return original(file, mode, *given, **named)

    original = builtins.open
    builtins.open = io.open = opened  # type: ignore[assignment]


def fork(work: Callable[[], None], before: Callable[[int], None] | None = None) -> tuple[int, int]:
    """Start a child; its process, and a pipe on which it says how it ended."""
    reading, writing = os.pipe()
    child = os.fork()
    if child:
        os.close(writing)
        return child, reading
    os.close(reading)
    count = itertools.count(1)
    done = 0

    def step() -> None:
        nonlocal done
        done = next(count)
        if before is not None:
            before(done)

    hooked(step)
    how, said = ENDED, ""
    try:
        work()
    except PolycodeError as error:
        how, said = REFUSED, str(error)
    except BaseException:
        how, said = BROKEN, traceback.format_exc()
    os.write(writing, json.dumps([how, said[-2000:], done]).encode())
    os._exit(0)


def ended(child: int, pipe: int) -> End:
    """Wait for a child."""
    os.waitpid(child, 0)
    with os.fdopen(pipe, "rb") as file:
        text = file.read()
    return End(*json.loads(text)) if text else End(KILLED)


def once(work: Callable[[], None], *, at: int = 0, after: float = 0.0) -> End:
    """One child, killed before its operation `at` or `after` seconds, or left to end."""

    def kill(number: int) -> None:
        if number == at:
            os.kill(os.getpid(), signal.SIGKILL)

    child, pipe = fork(work, kill if at else None)
    if after:
        time.sleep(after)
        os.kill(child, signal.SIGKILL)
    return ended(child, pipe)


def together(work: Callable[[], None], world: int, *, rank: int = 0, at: int = 0) -> End:
    """Several processes of one run, of which one is killed; then the others, as torchrun does."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]

    def one(number: int) -> Callable[[], None]:
        def run() -> None:
            os.environ |= {
                "RANK": str(number), "WORLD_SIZE": str(world), "LOCAL_WORLD_SIZE": str(world),
                "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
            }  # fmt: skip
            work()

        return run

    def kill(number: int) -> None:
        if number == at:
            os.kill(os.getpid(), signal.SIGKILL)

    running = {
        fork(one(number), kill if at and number == rank else None): number
        for number in range(world)
    }
    ends: dict[int, End] = {}
    while running:
        for (child, pipe), number in list(running.items()):
            if os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT):
                ends[number] = ended(child, pipe)
                del running[child, pipe]
                if ends[number].how != ENDED:
                    for other, _ in running:
                        time.sleep(0.2)
                        os.kill(other, signal.SIGKILL)
        time.sleep(0.005)
    if any(end.how == KILLED for end in ends.values()):
        return End(KILLED)
    worst = max(ends.values(), key=lambda end: (ENDED, REFUSED, BROKEN).index(end.how))
    return End(worst.how, worst.said, ends[rank].operations)


# -- what runs -----------------------------------------------------------------------------------


def network() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(12, 24), nn.Tanh(), nn.Linear(24, 24))


def analyze(folder: Path, **options: object) -> None:
    data = torch.randn(160, 12, generator=torch.Generator().manual_seed(1))
    metric = pc.metrics.Spectrum(fit="huber", ranks=(1, 500))
    given = {"batch_size": 8, "out": folder, "progress": False, **options}
    pc.analyze(network(), data, metric, ["0", "2"], **given)  # type: ignore[arg-type]


def analyzed(folder: Path) -> str:
    """Everything that the results are, and were made of."""
    found = pc.Analysis.load(folder)
    digest = hashlib.sha256(json.dumps(found.run["rows"]).encode())
    for name, tensor in sorted(found.statistics.state().items()):
        digest.update(name.encode() + tensor.numpy().tobytes())
    for _, _, *label_and_scalars, fields in found.table():
        # Of an iteration whose last digits depend on where in memory it works.
        fields = {k: _rounded(v) if k == "first_direction" else v for k, v in fields.items()}
        digest.update(json.dumps([label_and_scalars, fields]).encode())
    return digest.hexdigest()


def _rounded(value: object) -> object:
    if isinstance(value, float):
        return f"{value:.8g}"
    if isinstance(value, dict):
        return {key: _rounded(one) for key, one in value.items()}
    return [_rounded(one) for one in value] if isinstance(value, list) else value


def whole_run(folder: Path) -> None:
    """Raise StateError where a folder's run, finished or not, or a part of it is not whole."""
    hidden = folder / storage.PARTS
    for home in (folder, *(hidden.iterdir() if hidden.is_dir() else ())):
        if (home / storage.RUN).is_file():
            run = storage.load_run(home)
            tensors = storage.load_state(home, run)
            assert all(tensors[name].numel() >= 0 for name in tensors)
            if run.get("complete"):
                storage.load(home)


def compare(folder: Path, **options: object) -> None:
    pc.explainers.compare(
        None, None, ["blocks.1.mlp.hook_post"], n_units=3, limit=250, judge=False,
        floors=("constant",), out=folder, progress=False, **options,  # type: ignore[arg-type]
    )  # fmt: skip


def compared(folder: Path) -> str:
    record = json.loads((folder / storage.COMPARISON).read_text())
    names = (storage.UNITS, storage.RECORDS)  # which may wait still
    content = b"".join(storage.checked(folder, name, record).read_bytes() for name in names)
    return hashlib.sha256(content).hexdigest()


def whole_comparison(folder: Path) -> None:
    if (folder / storage.COMPARISON).is_file():
        pc.Comparison.load(folder)


@dataclass(frozen=True)
class Settings:
    steps: int = 30


def draw(settings: Settings, seed: int, folder: Path):  # type: ignore[no-untyped-def]
    import pandas as pd

    model = nn.Linear(4, 1)
    with torch.no_grad():
        model.weight.fill_(0.1)
        model.bias.zero_()
    optimizer = torch.optim.Adam(model.parameters(), 0.1)

    def loss(step: int) -> torch.Tensor:
        drawn = torch.randn(16, 4)
        return (model(drawn) - drawn.sum(dim=1, keepdim=True)).square().mean()

    losses = training.train(
        model, optimizer, loss, settings.steps, seed=seed, path=folder / "net.safetensors", every=5
    )
    table = parts(folder, "draws", ["a", "b"], lambda key: pd.DataFrame({"x": [ord(key), seed]}))
    return {"losses": pd.DataFrame(losses, columns=["step", "loss"]), "draws": table}


def figure(numbers):  # type: ignore[no-untyped-def]
    from polycode_plugins.experiments import drawing

    made, axes = drawing.panels(1, width=drawing.ONE)
    axes[0][0].plot(numbers["losses"]["loss"])
    return made


EXPERIMENT = Experiment(
    "made-up", "A training", "nowhere", dict.fromkeys(experiments.SCALES, Settings()), draw, figure,
    (claims.Claim("It ends <low>", "nowhere", "loss", claims.at_least(0.0),
                  lambda numbers: claims.mean_effect(numbers["losses"]["loss"])),),
)  # fmt: skip


def reproduce(folder: Path, **options: object) -> None:
    experiments.reproduce(EXPERIMENT, out=folder, **options)  # type: ignore[arg-type]


def reproduced(folder: Path) -> str:
    names = ("losses.csv", "draws.csv", "verdicts.csv", "made-up.png", "made-up.pdf")
    content = b"".join((folder / EXPERIMENT.name / name).read_bytes() for name in names)
    return hashlib.sha256(content).hexdigest()


# -- trials --------------------------------------------------------------------------------------


class Tally(Counter):  # type: ignore[type-arg]
    """How the trials of one kind ended; what went wrong is printed at once."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name

    def note(self, what: str, said: str = "") -> None:
        self[what] += 1
        if what in ("lost", "different", BROKEN):
            print(f"{self.name}: {what}: {said}", flush=True)

    @property
    def bad(self) -> int:
        return self["lost"] + self["different"] + self[BROKEN]

    def line(self) -> str:
        fields = ("trials", "kills", "equal", REFUSED, "lost", "different", BROKEN)
        return f"| {self.name} | " + " | ".join(str(self[f]) for f in fields) + " |"


def check(tally: Tally, folder: Path, whole: Work) -> None:
    try:
        whole(folder)
    except StateError as error:
        tally.note("lost", str(error))


def conclude(
    tally: Tally, end: End, folder: Path, result: Callable[[Path], str], right: str
) -> None:
    """What came of a run that was left to end."""
    if end.how == REFUSED and "holds a" in end.said:  # it had finished before the kill
        end = End(ENDED)
    if end.how != ENDED:
        tally.note(end.how, end.said)
        return
    found = result(folder)
    tally.note("equal" if found == right else "different", f"{found} for {right}")


def killed(
    name: str, work: Work, result: Callable[[Path], str], whole: Work, trials: int, seed: int,
    home: Path, *, over: bool = False,
) -> Tally:  # fmt: skip
    """Kill, check, kill again, at last let it end."""
    tally, rng = Tally(name), random.Random(f"{name}{seed}")
    began = time.monotonic()
    alone = once(lambda: work(home / "right"))
    took = time.monotonic() - began
    if alone.how != ENDED:
        tally.note(BROKEN, alone.said)
        return tally
    right = result(home / "right")
    for trial in range(trials):
        tally["trials"] += 1
        folder = home / f"{name}-{trial}"
        if over:  # a finished one is there, and is to be replaced
            shutil.copytree(home / "right", folder)
        for number in range(rng.randint(1, KILLS)):
            at, after = rng.randint(1, alone.operations), 0.0
            if number and rng.random() < 0.5:  # while it mends what the last one left
                at = rng.randint(1, _FIRST)
            elif rng.random() < 0.3:
                at, after = 0, rng.uniform(0.0, took)
            end = once(lambda f=folder: work(f), at=at, after=after)  # type: ignore[misc]
            tally["kills"] += end.how == KILLED
            check(tally, folder, whole)
        conclude(tally, once(lambda f=folder: work(f)), folder, result, right)  # type: ignore[misc]
        shutil.rmtree(folder, ignore_errors=True)
    return tally


def close(folder: Path, right: Path) -> bool:
    """Whether two runs are of the same rows, and their eigenvalues equal up to rounding."""
    a, b = pc.Analysis.load(folder), pc.Analysis.load(right)
    same = all(a.run["rows"][k] == b.run["rows"][k] for k in ("count", "digest"))
    pairs = [(a[s, "spectrum"].eigenvalues, b[s, "spectrum"].eigenvalues) for s in b]
    return same and all(abs(x - y).max() <= 1e-6 * y[0] for x, y in pairs)


def torchrun(trials: int, seed: int, home: Path) -> list[Tally]:
    """Several processes: as many as before are bit-equal, others equal up to rounding."""
    tallies, rng = [], random.Random(f"torchrun{seed}")
    once(lambda: analyze(home / "one"))
    for name, worlds in (("torchrun, 2 each time", (2, 2, 2)), ("torchrun, 1 to 3", (1, 2, 3))):
        tally = Tally(name)
        tallies.append(tally)
        reference = home / f"right-{name}"
        alone = together(lambda r=reference: analyze(r), 2)  # type: ignore[misc]
        if alone.how != ENDED:
            tally.note(BROKEN, alone.said)
            continue
        right = analyzed(reference)
        for trial in range(trials):
            tally["trials"] += 1
            folder = home / f"{name}-{trial}"
            for _ in range(rng.randint(1, KILLS)):
                world = rng.choice(worlds)
                rank, at = rng.randrange(world), rng.randint(1, alone.operations)
                end = together(lambda f=folder: analyze(f), world, rank=rank, at=at)  # type: ignore[misc]
                tally["kills"] += end.how == KILLED
                if end.how == BROKEN:
                    tally.note(BROKEN, end.said)
                check(tally, folder, whole_run)
            end = together(lambda f=folder: analyze(f), rng.choice(worlds))  # type: ignore[misc]
            if len(set(worlds)) == 1:
                conclude(tally, end, folder, analyzed, right)
            else:
                conclude(
                    tally, end, folder, lambda f: str(close(f, home / "one")), "True"
                )  # fmt: skip
            shutil.rmtree(folder, ignore_errors=True)
    return tallies


def faulty(trials: int, seed: int, home: Path) -> list[Tally]:
    """A disk that fails from a moment on, or is slow: one sentence, nothing lost, then the end."""
    tallies, rng = [], random.Random(f"faults{seed}")
    alone = once(lambda: analyze(home / "right"))
    right = analyzed(home / "right")
    for name, number in FAULTS.items():
        tally = Tally(f"disk: {name}")
        tallies.append(tally)
        for trial in range(trials):
            tally["trials"] += 1
            folder, begin = home / f"{name}-{trial}", rng.randint(1, alone.operations)

            def fail(at: int, begin: int = begin, number: int = number) -> None:
                if at >= begin and number:
                    raise OSError(number, os.strerror(number))
                if not number:
                    time.sleep(0.003)

            tally.note(_single(ended(*fork(lambda f=folder: analyze(f), fail))))  # type: ignore[misc]
            check(tally, folder, whole_run)
            conclude(tally, once(lambda f=folder: analyze(f)), folder, analyzed, right)  # type: ignore[misc]
            shutil.rmtree(folder, ignore_errors=True)
    return tallies


def _single(end: End) -> str:
    """How a run on a faulty disk ended: a refusal has to be one sentence."""
    return BROKEN if end.how == BROKEN or "\n" in end.said else end.how


@contextmanager
def small_disk(folder: Path, size: str):  # type: ignore[no-untyped-def]
    """A file system of its own; needs root."""
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(folder)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def real_disks(trials: int, seed: int, home: Path) -> list[Tally]:
    """A disk that is full, then has room; one that is read-only, then is not."""
    rng = random.Random(f"disks{seed}")
    once(lambda: analyze(home / "right"))
    right = analyzed(home / "right")
    full, frozen = Tally("tmpfs that is full"), Tally("tmpfs that is read-only")
    for trial in range(trials):
        disk = home / f"disk-{trial}"
        full["trials"] += 1
        with small_disk(disk, "256k"):
            filler, folder = disk / "filler", disk / "run"
            filler.write_bytes(b"x" * rng.randrange(150_000, 240_000))
            full.note(_single(once(lambda f=folder: analyze(f))))  # type: ignore[misc]
            check(full, folder, whole_run)
            filler.unlink()
            conclude(full, once(lambda f=folder: analyze(f)), folder, analyzed, right)  # type: ignore[misc]
        disk = home / f"frozen-{trial}"
        frozen["trials"] += 1
        with small_disk(disk, "2m"):
            folder = disk / "run"
            end = once(lambda f=folder: analyze(f), at=rng.randint(20, 200))  # type: ignore[misc]
            frozen["kills"] += end.how == KILLED
            subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
            frozen.note(_single(once(lambda f=folder: analyze(f))))  # type: ignore[misc]
            check(frozen, folder, whole_run)
            subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)
            conclude(frozen, once(lambda f=folder: analyze(f)), folder, analyzed, right)  # type: ignore[misc]
    return [full, frozen]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])  # type: ignore[union-attr]
    kinds = ("analyze", "compare", "reproduce", "torchrun", "faults", "disks")
    parser.add_argument("--trials", type=int, default=20, help="of each kind")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default=",".join(kinds), help="kinds, comma-separated")
    options = parser.parse_args()
    torch.set_num_threads(1)  # threads do not survive a fork
    passes.CHECKPOINT_SECONDS = training.SAVE_SECONDS = 0.0  # after every batch, every step
    only, n, seed = options.only.split(","), options.trials, options.seed
    tallies: list[Tally] = []
    print("| | trials | kills | equal | refused | lost | different | traceback |")
    print("|---|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as name:
        home = Path(name)

        def room(kind: str) -> Path:
            (home / kind).mkdir()
            return home / kind

        def show(made: list[Tally]) -> None:
            tallies.extend(made)
            for tally in made:
                print(tally.line(), flush=True)

        def fresh(work: Callable[..., None]) -> Work:
            return lambda folder: work(folder, fresh=True)

        if "analyze" in only:
            given = (analyzed, whole_run, n, seed)
            show([killed("analyze", analyze, *given, room("analyze"))])
            show([killed("analyze --fresh", fresh(analyze), *given, room("fresh"), over=True)])
        if "compare" in only:
            import transformer_lens.model_bridge  # noqa: F401 - before the forks

            given = (compared, whole_comparison, n, seed)
            show([killed("compare", compare, *given, room("compare"))])
            show([killed("compare --fresh", fresh(compare), *given, room("again"), over=True)])
        if "reproduce" in only:
            whole: Work = lambda folder: None  # noqa: E731 - the end shows what was lost
            given_too = (reproduced, whole, n, seed)
            show([killed("reproduce", reproduce, *given_too, room("reproduce"))])
            show([killed("reproduce --fresh", fresh(reproduce), *given_too, room("r"), over=True)])
        if "torchrun" in only:
            show(torchrun(n, seed, room("torchrun")))
        if "faults" in only:
            show(faulty(max(1, n // 4), seed, room("faults")))
        if "disks" in only and os.geteuid() == 0 and sys.platform == "linux":
            show(real_disks(max(1, n // 4), seed, room("disks")))
    return int(any(tally.bad for tally in tallies))


if __name__ == "__main__":
    sys.exit(main())
