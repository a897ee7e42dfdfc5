"""Plugins tried in processes of their own: one that exits, dies or hangs takes nothing down here.

A fresh interpreter imports what all plugins need, once, and forks for each plugin, so that none is
spoilt by another. A time limit holds for each fork.
"""

from __future__ import annotations

import importlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from polycode_plugins.plugins.catalogue import Plugin
from polycode_plugins.plugins.foreign import cause, contained, remedy
from polycode_plugins.plugins.importing import imported, why_broken

#: How long the import of a plugin may take, beyond that of torch. Libraries of the size of
#: TransformerLens take a fifth of it on a slow disk.
IMPORT_SECONDS = 60.0


@dataclass(frozen=True)
class Outcome:
    """What came of trying a plugin.

    Attributes:
        broken: why it cannot be used, with what to do about it; None where it can.
        claims: whether it says that it reads the model; None where it was not asked.
        generic: whether it is an adapter that comes after special ones.
    """

    broken: str | None = None
    claims: bool | None = None
    generic: bool = False


def broken(found: Iterable[Plugin]) -> dict[tuple[str, str, str], str]:
    """Why plugins do not import, by (kind, distribution, name); those that do import are absent."""
    plugins = list(found)
    return {
        (p.kind, p.distribution, p.name): outcome.broken
        for p, outcome in zip(plugins, tried(plugins), strict=True)
        if outcome.broken
    }


def tried(
    plugins: Sequence[Plugin],
    model: str | Path | None = None,
    *,
    seconds: float | None = None,
) -> list[Outcome]:
    """Import plugins elsewhere, and ask adapters about a model that is a name or a path.

    Args:
        plugins: of any kind.
        model: what adapters are asked whether they accept it; None asks nothing.
        seconds: for each, beyond the import of torch (`IMPORT_SECONDS`).

    Returns:
        An outcome for each plugin, in order.
    """
    if not plugins:
        return []
    task = {
        "plugins": [asdict(plugin) for plugin in plugins],
        "model": None if model is None else [str(model), isinstance(model, Path)],
        "seconds": IMPORT_SECONDS if seconds is None else seconds,
    }
    done = _served(json.dumps(task))
    found = [Outcome(**json.loads(line)) for line in done.stdout.splitlines()]
    if len(found) < len(plugins):  # not a plugin's doing: those run in forks
        last = (done.stderr.strip().splitlines() or [f"status {done.returncode}"])[-1]
        why = f"the process to try it in ended ({last}); check the installation"
        found += [Outcome(why)] * (len(plugins) - len(found))
    return found


def _served(task: str) -> subprocess.CompletedProcess[str]:
    """What a fresh interpreter says of a task."""
    # -P: a torch.py in the folder that people happen to be in is not ours; sys.path is passed on.
    command = [sys.executable, "-P", "-c", _SCRIPT, json.dumps(sys.path)]
    child = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        output, said = child.communicate(task)
    finally:
        if child.poll() is None:
            child.terminate()
    return subprocess.CompletedProcess(command, child.returncode, output, said)


_SCRIPT = """
import json, sys
sys.path[:] = json.loads(sys.argv[1])
from polycode_plugins.plugins import trial
trial.serve()
"""


def serve() -> None:
    """Try the plugins of the task on standard input, and print an outcome for each."""
    task = json.load(sys.stdin)
    kinds = sorted({fields["kind"] for fields in task["plugins"]})
    for name in ("torch", "polycode_plugins.adapters", *(f"polycode_plugins.{k}" for k in kinds)):
        # What nearly all plugins of a kind import; without it they say so themselves.
        with suppress(Exception):
            importlib.import_module(name)
    model = task["model"] and (Path(task["model"][0]) if task["model"][1] else task["model"][0])
    for fields in task["plugins"]:
        outcome = _forked(Plugin(**fields), model, task["seconds"])
        print(json.dumps(asdict(outcome)), flush=True)


def _forked(plugin: Plugin, model: str | Path | None, seconds: float) -> Outcome:
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.setsid()  # with all that it starts
            signal.signal(signal.SIGINT, signal.default_int_handler)  # whatever is inherited
            nothing = os.open(os.devnull, os.O_RDWR)
            for standard in (0, 1, 2):
                os.dup2(nothing, standard)
            os.write(writing, json.dumps(asdict(_outcome(plugin, model))).encode())
        finally:
            os._exit(0)
    os.close(writing)
    status = None
    try:
        text, status = _heard(child, reading, seconds)
    finally:
        os.close(reading)
        with suppress(OSError):
            os.killpg(child, signal.SIGKILL)
        if status is None:
            os.waitpid(child, 0)
    with suppress(ValueError, TypeError):
        return Outcome(**json.loads(text))
    if status is None:
        why = f"importing it takes longer than {seconds:.0f} s"
    else:
        why = f"importing it ends the process (status {status})"
    return Outcome(f"{why}; {remedy(plugin)}")


def _heard(child: int, reading: int, seconds: float) -> tuple[bytes, int | None]:
    """What a child said, and its status where it has ended; both may be missing in time."""
    end, text, open_ = time.monotonic() + seconds, b"", True
    while time.monotonic() < end:
        ended, status = os.waitpid(child, os.WNOHANG)
        # The end of the pipe is not the end of the child, nor the other way round.
        if open_ and select.select([reading], [], [], 0.0 if ended else 0.02)[0]:
            text = os.read(reading, select.PIPE_BUF)
            open_ = False
        elif not ended:
            time.sleep(0.0 if open_ else 0.02)
        if ended:
            return text, os.waitstatus_to_exitcode(status)
        if text:
            break
    return text, None


def _outcome(plugin: Plugin, model: str | Path | None) -> Outcome:
    why = why_broken(plugin)
    if why is not None:
        return Outcome(shortened(why))
    if model is None or plugin.kind != "adapters":
        return Outcome()
    try:
        claims, generic = claim(imported(plugin), model)
    except Exception as error:
        return Outcome(shortened(f"its accepts fails: {cause(error)}; {remedy(plugin)}"))
    return Outcome(None, claims, generic)


def claim(factory: Any, model: object) -> tuple[bool, bool]:
    """Whether an adapter says that it reads a model, and whether it is a generic one.

    Raises:
        PluginError: where it exits or interrupts; whatever else it raises passes.
    """
    with contained():
        accepts = getattr(factory, "accepts", None)
        claims = accepts is not None and bool(accepts(model))
        return claims, bool(getattr(factory, "generic", False))


def shortened(why: str) -> str:
    """A cause that a pipe takes in one piece."""
    return why if len(why) <= 600 else f"{why[:300]} ... {why[-280:]}"
