"""Whether the tests bite: a seeded sample of faults in the code, and those that no test notices.

    python scripts/mutants.py [--count 200] [--seed 0] [--only theory metrics] [--quick]

A mutant is one change of a number, a comparison, a sign, a condition, or a statement left out, in
`theory`, `information`, `metrics` or the comparison of explainers. Of a package's mirrored tests,
those run that reach the changed line (all of them for a line that runs on import), the quickest
first, until one fails. Printed are the survivors; docs/mutants.md explains those that stay.

Nothing in the working tree changes: tests run in a copy, and a mutant is only in the memory of the
process that tests it, a fork of one that has loaded torch. Processes that tests start run the code
as it is.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import importlib.abc
import importlib.machinery
import importlib.util
import json
import math
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest
from planted_faults import AREAS, PACKAGE, ROOT, Mutant, area_of, drawn_sample, mutated

#: By pytest's exit status: a test failed, or the fault keeps a module from being imported.
FATES = {0: "survived", 1: "killed", 2: "killed", 4: "killed"}

#: Marks of the tests that `--quick` takes, and seconds of the processor that each may need.
QUICK, QUICK_SECONDS = "not slow and not server and not browser and not packaging", 1.0
#: Bytes a process may ask for: a fault that asks for all there is fails by itself.
MOST_MEMORY = 16 * 2**30


@dataclass
class Outcome:
    """What became of a mutant: killed by a test, out of time, crashed, or alive."""

    name: str
    fate: str
    tests: int
    seconds: float
    by: str = ""  # the test that noticed


class _Loader(importlib.abc.SourceLoader):
    def __init__(self, path: Path, mutant: Mutant) -> None:
        self.path, self.mutant = path, mutant

    def get_filename(self, fullname: str) -> str:
        return str(self.path)

    def get_data(self, path: str) -> bytes:
        return Path(path).read_bytes()

    def source_to_code(self, data: object, path: object, **_: object) -> object:  # type: ignore[override]
        tree = mutated(bytes(data).decode("utf-8"), self.mutant)  # type: ignore[call-overload]
        return compile(tree, str(path), "exec", dont_inherit=True)


class _Finder(importlib.abc.MetaPathFinder):
    """Gives the one module that has the fault; all others are found as ever."""

    def __init__(self, copy: Path, mutant: Mutant) -> None:
        self.name = mutant.path.removesuffix(".py").replace("/", ".")
        self.loader = _Loader(copy / mutant.path, mutant)

    def find_spec(
        self, fullname: str, path: object, target: object = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname != self.name:
            return None
        return importlib.util.spec_from_loader(fullname, self.loader)


def _preload() -> None:
    """What tests import and no fault is in; a fork has it at once."""
    import hypothesis
    import hypothesis.extra.numpy
    import numpy
    import pandas
    import scipy.signal
    import scipy.stats
    import sklearn.metrics
    import torch

    del hypothesis, numpy, pandas, scipy, sklearn
    torch.set_num_threads(1)


class _Clock:
    """Seconds of the processor that each test takes, with the processes it starts."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, object, object]:
        before = sum(os.times()[:4])
        done = yield
        self.seconds[item.nodeid] = sum(os.times()[:4]) - before
        return done


def _child(copy: Path, mutant: Mutant | None, tests: list[str], log: Path, limit: float) -> None:
    # A group of its own, so that a process that hangs ends with all it has started; in the session
    # of the whole run, which may have been given less of the processor than others.
    os.setpgrp()
    # Processor time: on a busy machine a test that waits for its turn does not hang.
    resource.setrlimit(resource.RLIMIT_CPU, (round(limit), round(limit) + 5))
    resource.setrlimit(resource.RLIMIT_AS, (MOST_MEMORY, MOST_MEMORY))
    os.chdir(copy)
    sys.path.insert(0, str(copy))
    with log.open("w") as out:
        os.dup2(out.fileno(), 1)
        os.dup2(out.fileno(), 2)
    if mutant is not None:
        sys.meta_path.insert(0, _Finder(copy, mutant))
    # What a failed assertion was about is not asked for: rewriting all of them takes seconds.
    arguments = ["-x", "-q", "-p", "no:cacheprovider", "--tb=line", "--assert=plain"]
    arguments.append(f"--basetemp={log}.d")
    clock = _Clock()
    status = pytest.main([*arguments, *tests], plugins=[clock])
    log.with_suffix(".seconds").write_text(json.dumps(clock.seconds))
    sys.stdout.flush()
    os._exit(int(status))


def tried(copy: Path, mutant: Mutant | None, tests: list[str], limit: float) -> Outcome:
    """Run the tests against the mutant until one fails, or until they have used `limit` seconds of
    the processor, after which they must hang."""
    started = time.monotonic()
    name = "no fault" if mutant is None else mutant.name
    if not tests:
        return Outcome(name, "survived", 0, 0.0)
    by = ""
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        process = get_context("fork").Process(target=_child, args=(copy, mutant, tests, log, limit))
        process.start()
        group, used = process.pid or 0, -1.0
        # However long others keep the processor from it: it hangs where it does not ask for it.
        while process.exitcode is None and used != (now := _used(group)):
            used = now
            process.join(limit)
        if process.exitcode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(group, signal.SIGKILL)
            process.join()
            fate = "timeout"
        elif process.exitcode == -signal.SIGXCPU:
            fate = "timeout"
        elif process.exitcode in FATES:
            fate = FATES[process.exitcode]
        else:
            fate = f"crashed ({process.exitcode})"
        if fate != "survived" and log.exists():
            by = " ".join(re.findall(r"^(?:FAILED|ERROR) (\S+)", log.read_text(), re.MULTILINE)[:1])
    return Outcome(name, fate, len(tests), time.monotonic() - started, by)


def _used(group: int) -> float:
    """Ticks of the processor that the processes of a group have used."""
    total = 0.0
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            # Behind the name in brackets: state, parent, group; from the 12th on the times.
            fields = path.read_text().rpartition(")")[2].split()
            if int(fields[2]) == group:
                total += sum(map(int, fields[11:15]))
    return total


@dataclass
class Reach:
    """Which tests of an area reach which lines of a file, and the seconds each takes."""

    lines: dict[str, dict[int, set[str]]]
    seconds: dict[str, float]

    def of(self, mutant: Mutant) -> list[str]:
        """Tests that reach the fault, the quickest first; for one made on import all, those that
        reach its file before others."""
        lines = self.lines.get(mutant.path, {})
        if mutant.called:
            # Some lines of a statement that goes over several are not counted by themselves.
            of_statement = range(mutant.first, mutant.line + 1)
            told = lines.get(mutant.line) or set().union(*(lines.get(n, ()) for n in of_statement))
            return sorted(told, key=self.seconds.__getitem__)
        near = set().union(*lines.values())
        return sorted(self.seconds, key=lambda name: (name not in near, self.seconds[name]))

    def within(self, folder: str, longest: float) -> Reach:
        """That of the tests of one folder that take no longer than so many seconds."""
        seconds = {
            name: took
            for name, took in self.seconds.items()
            if name.startswith(f"{folder}/") and took <= longest
        }
        lines = {
            path: {line: tests & set(seconds) for line, tests in of_file.items()}
            for path, of_file in self.lines.items()
        }
        return Reach(lines, seconds)

    def limit(self, tests: list[str], least: float) -> float:
        """Seconds after which the tests hang: they take a fifth of it, slow machines included."""
        return max(least, 5 * sum(self.seconds[name] for name in tests))


def reach(copy: Path, folders: list[str], which: str, kept: Path) -> Reach:
    """Run the tests of some folders as they are, in a fork as mutants do, each with the lines it
    reaches. `which` are those with such marks; `kept` has what is known of files of tests that are
    as they were, as is all else."""
    own = ("test_", Path(__file__).name)
    shared = [p for p in copy.rglob("*.py") if not p.name.startswith(own)]
    digest = hashlib.sha256(b"".join([which.encode(), *(p.read_bytes() for p in sorted(shared))]))
    files = sorted(p for folder in folders for p in (copy / folder).rglob("test_*.py"))
    places = {
        p.relative_to(copy).as_posix(): kept
        / hashlib.sha256(digest.digest() + p.read_bytes()).hexdigest()
        for p in files
    }
    if new := [name for name, place in places.items() if not place.exists()]:
        kept.mkdir(parents=True, exist_ok=True)
        print(f"{len(new)} files of tests run as they are", flush=True)
        for name, told in _reached(copy, new, which).items():
            places[name].write_text(json.dumps(told))
    total = Reach(defaultdict(lambda: defaultdict(set)), {})
    for place in places.values():
        told = json.loads(place.read_text())
        total.seconds.update(told["seconds"])
        for path, lines in told["lines"].items():
            for line, tests in lines.items():
                total.lines[path][int(line)].update(tests)
    return total


def _reached(copy: Path, files: list[str], which: str) -> dict[str, dict[str, Any]]:
    """By file: {"seconds": {test: seconds}, "lines": {path: {line: [tests]}}}."""
    import coverage

    config, log, data = copy / "reach.cfg", copy / "reach.log", copy / ".coverage.reach"
    config.write_text(f"[run]\nsource = {PACKAGE}\ndata_file = {data}\n")
    asked = [
        f"--cov={PACKAGE}", f"--cov-config={config}", "--cov-context=test", "--cov-report=",
        "-m", which, *files,
    ]  # fmt: skip
    process = get_context("fork").Process(target=_child, args=(copy, None, asked, log, 10**5))
    process.start()
    process.join()
    if process.exitcode != 0:
        sys.exit(f"tests fail as they are:\n{log.read_text()[-3000:]}")
    found: dict[str, dict[str, Any]] = {name: {"seconds": {}, "lines": {}} for name in files}
    for name, took in json.loads(log.with_suffix(".seconds").read_text()).items():
        found[name.partition("::")[0]]["seconds"][name] = took
    held = coverage.CoverageData(str(data))
    held.read()
    for path in held.measured_files():
        inside = Path(path).resolve().relative_to(copy).as_posix()
        for line, contexts in held.contexts_by_lineno(path).items():
            for test in {c.partition("|")[0] for c in contexts if c}:
                lines = found[test.partition("::")[0]]["lines"]
                lines.setdefault(inside, {}).setdefault(line, []).append(test)
    data.unlink()
    return found


def main() -> int:
    """Draw, try and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--count", type=int, default=200, help="faults to draw")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--only", nargs="+", choices=AREAS, help="of those drawn, the ones of these areas"
    )
    parser.add_argument(
        "--quick", action="store_true", help="without slow tests: what only they notice survives"
    )
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--limit", type=float, default=60.0, help="seconds a mutant has at least")
    parser.add_argument("--out", type=Path, help="a JSON file of every outcome")
    given = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    sys.dont_write_bytecode = False  # each process would compile all that it imports
    sample = drawn_sample(given.count, given.seed, given.only or [])
    outcomes: list[Outcome] = []
    with _copied() as copy:
        folders = {AREAS[area_of(m.path)] for m in sample}
        outer = sorted(f for f in folders if not any(f.startswith(f"{g}/") for g in folders))
        _preload()
        which, longest = (QUICK, QUICK_SECONDS) if given.quick else ("", math.inf)
        every = reach(copy, outer, which, ROOT / "build" / "reach")
        areas = {area: every.within(folder, longest) for area, folder in AREAS.items()}

        def attempt(mutant: Mutant) -> None:
            reached = areas[area_of(mutant.path)]
            tests = reached.of(mutant)
            outcome = tried(copy, mutant, tests, reached.limit(tests, given.limit))
            outcomes.append(outcome)
            by = outcome.by.rpartition("/")[2]
            print(f"{outcome.fate:8} {outcome.seconds:5.1f} s  {outcome.name}  {by}", flush=True)
            if given.out:  # after each: a run that is stopped has what it has found
                given.out.parent.mkdir(parents=True, exist_ok=True)
                given.out.write_text(json.dumps([asdict(o) for o in outcomes], indent=1) + "\n")

        with ThreadPoolExecutor(given.workers) as pool:
            list(pool.map(attempt, sample))
    fates = Counter(o.fate for o in outcomes)
    alive = sorted(o.name for o in outcomes if o.fate == "survived")
    print(f"\n{len(outcomes)} mutants: {dict(fates)}", flush=True)
    print(*alive, sep="\n")
    share = 1 - len(alive) / max(len(outcomes), 1)
    print(f"{share:.1%} killed")
    return 0


@contextlib.contextmanager
def _copied() -> Iterator[Path]:
    """The tracked files and those that could be, in a folder of their own."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, check=True, capture_output=True, encoding="utf-8",
    ).stdout  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder).resolve()
        for name in filter(None, listed.split("\0")):
            source = ROOT / name
            if source.is_file():
                (copy / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(source, copy / name)
        yield copy


if __name__ == "__main__":
    sys.exit(main())
