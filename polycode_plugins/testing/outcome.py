"""What a check is, what comes of it, and the report of many."""

from __future__ import annotations

import sys
import unittest
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from traceback import walk_tb
from typing import Any, Literal, NoReturn

from polycode_plugins.plugins import cause

State = Literal["passed", "failed", "skipped", "expected"]


class CheckFailed(AssertionError):
    """A plugin does not keep its contract; the message says where."""


class Skipped(unittest.SkipTest):
    """A check that does not apply; pytest reports it as skipped, with the reason."""


class ExpectedFailure(Skipped):
    """A check that fails as its case says it does; pytest reports it as skipped."""


def fail(message: str) -> NoReturn:
    """End a check as failed."""
    raise CheckFailed(message)


def skip(reason: str) -> NoReturn:
    """End a check as skipped."""
    raise Skipped(reason)


def require(condition: bool, message: str) -> None:
    """Fail with `message` unless `condition` holds."""
    if not condition:
        fail(message)


def origin(error: BaseException) -> str:
    """Where a plugin raised `error`, ready to append: the innermost line of its own code.

    Its own is what is neither of this package, nor Python's, nor of another installed library that
    it only calls; for a built-in it is this package without its checks. "" where there is none.
    """
    frames = [(f.f_globals.get("__name__", ""), f, n) for f, n in walk_tb(error.__traceback__)]
    entered, own, built_in = "", None, None
    for module, frame, line in frames:
        package, file = module.partition(".")[0], frame.f_code.co_filename
        if package == _OURS:
            entered = ""
            if not module.startswith(f"{_OURS}.testing"):
                built_in = frame, line
            continue
        if package in {*sys.stdlib_module_names, "torch"} or file.startswith("<"):
            continue
        entered = entered or package  # the first one that is called from here
        if package == entered or not _INSTALLED & set(Path(file).parts):
            own = frame, line
    found = own or built_in
    if found is None:
        return ""
    (frame, line), path = found, Path(found[0].f_code.co_filename)
    shown = path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
    return f" ({shown}, line {line}, in {frame.f_code.co_name})"


_OURS = __name__.partition(".")[0]
_INSTALLED = {"site-packages", "dist-packages"}


@dataclass(frozen=True)
class Outcome:
    """What came of one check.

    Attributes:
        check: its name.
        state: "passed", "failed", "skipped", or "expected" for a failure that the case expects.
        reason: why it failed or was skipped; "" where it passed.
        proves: what passing it says of the plugin, in one line.
    """

    check: str
    state: State
    reason: str = ""
    proves: str = ""


@dataclass(frozen=True)
class Check:
    """One check with the case it is applied to: call it, or `run` it for an outcome.

    Attributes:
        function: a plain function of a case, which raises `CheckFailed` or `Skipped`.
        case: what it is applied to.
        expected: why it is known to fail; None where it has to pass.
    """

    function: Callable[[Any], None]
    case: Any
    expected: str | None = None

    @property
    def name(self) -> str:
        """The function's name."""
        return self.function.__name__

    @property
    def proves(self) -> str:
        """The first line of the function's documentation."""
        return (self.function.__doc__ or "").strip().split("\n", 1)[0]

    def __str__(self) -> str:
        return self.name

    def __call__(self) -> None:
        """Apply it.

        Raises:
            CheckFailed: when the plugin does not keep its contract, and when it is known not to and
                does.
            Skipped: when the check does not apply to it.
            ExpectedFailure: when it fails and is known to.
        """
        if self.expected is None:
            self.function(self.case)
            return
        try:
            self.function(self.case)
        except (Skipped, KeyboardInterrupt):
            raise
        except BaseException as error:  # a plugin may raise anything, and may try to exit
            why = str(error) if isinstance(error, CheckFailed) else f"it raised {cause(error)}"
            raise ExpectedFailure(f"{self.expected} ({why})") from error
        fail(
            f"it was expected to fail ({self.expected}) and no longer does: take {self.name!r} out "
            "of expected_failures"
        )

    def run(self) -> Outcome:
        """Apply it; whatever the plugin raises becomes the outcome."""
        try:
            self()
        except ExpectedFailure as reason:
            return Outcome(self.name, "expected", str(reason), self.proves)
        except Skipped as reason:
            return Outcome(self.name, "skipped", str(reason), self.proves)
        except CheckFailed as failure:
            return Outcome(self.name, "failed", str(failure), self.proves)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # a plugin may raise anything, and may try to exit
            why = f"it raised {cause(error)}{origin(error)}"
            return Outcome(self.name, "failed", why, self.proves)
        return Outcome(self.name, "passed", "", self.proves)


@dataclass(frozen=True)
class CheckReport:
    """The outcomes of all checks of one plugin."""

    subject: str
    outcomes: tuple[Outcome, ...]

    def count(self, state: State) -> int:
        """How many checks ended so."""
        return sum(o.state == state for o in self.outcomes)

    @property
    def ok(self) -> bool:
        """Whether at least one check ran and none failed: what was not tried is not passed."""
        return self.count("passed") > 0 and self.count("failed") == 0

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            "subject": self.subject,
            "ok": self.ok,
            "passed": self.count("passed"),
            "failed": self.count("failed"),
            "skipped": self.count("skipped"),
            "expected": self.count("expected"),
            "checks": [asdict(o) for o in self.outcomes],
        }

    def __str__(self) -> str:
        lines = [
            f"  {o.state:<8} {o.check}" + (f": {o.reason}" if o.reason else "")
            for o in self.outcomes
        ]
        counts = ", ".join(f"{self.count(s)} {s}" for s in ("passed", "failed", "skipped"))
        if self.count("expected"):
            counts += f", {self.count('expected')} failed as expected"
        ran = (
            "" if self.count("passed") + self.count("failed") else "; nothing ran, which is no pass"
        )
        return "\n".join([self.subject, *lines, f"  {counts}{ran}"])


def run_all(subject: str, checks: Iterable[Check]) -> CheckReport:
    """Run every check; none keeps another from running."""
    return CheckReport(subject, tuple(check.run() for check in checks))
