"""Discovery of adapters, metrics, explainers and experiments through entry points.

Listing reads the metadata of installed distributions and imports nothing; a plugin is imported when
it is used. The built-in plugins are declared in the same entry-point groups and take the same path;
the one thing said for them is that a name of theirs is not taken over by a third party's.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import EntryPoint, distributions, entry_points
from typing import Any, Literal, get_args

from polycode_plugins.errors import PluginError, near

Kind = Literal["adapters", "metrics", "explainers", "experiments"]
KINDS: tuple[Kind, ...] = get_args(Kind)
DISTRIBUTION = "polycode-plugins"


@dataclass(frozen=True)
class Plugin:
    """What the metadata says of one plugin: nothing of it has been imported.

    Attributes:
        kind: "adapters", "metrics", "explainers" or "experiments".
        name: its entry point's name.
        distribution: the distribution that declares it, normalised ("" when the metadata lacks it).
        version: that distribution's version.
        target: where the object is, as `module:attribute`.
        standing: "active", "shadowed" by a built-in of the same name, or "clash" with another
            distribution; the last two are reached as `distribution:name`.
    """

    kind: Kind
    name: str
    distribution: str
    version: str
    target: str
    standing: Literal["active", "shadowed", "clash"] = "active"

    @property
    def reference(self) -> str:
        """The name that reaches this plugin: short where that is unambiguous."""
        return self.name if self.standing == "active" else f"{self.distribution}:{self.name}"


def find(kind: Kind) -> list[Plugin]:
    """All plugins of one kind, from metadata alone, sorted by name and distribution.

    A distribution whose metadata cannot be read takes no other one down: see `unreadable`.
    """
    return arrange(kind, _points(f"polycode_plugins.{kind}"))


def _points(group: str) -> list[EntryPoint]:
    try:
        return list(entry_points(group=group))
    except Exception:  # one damaged file among all those that are installed is enough
        return [p for found, _ in _by_distribution() for p in found if p.group == group]


def unreadable() -> dict[str, str]:
    """Why the metadata of installed distributions cannot be read, by name; mostly empty."""
    return dict(why for _, why in _by_distribution() if why is not None)


def _by_distribution() -> Iterator[tuple[list[EntryPoint], tuple[str, str] | None]]:
    for distribution in distributions():
        try:
            yield list(distribution.entry_points), None
        except Exception as error:  # not UTF-8, or a line that is no entry point
            name = getattr(getattr(distribution, "_path", None), "name", "unknown")
            yield [], (str(name), cause(error))


def arrange(kind: Kind, points: Iterable[EntryPoint]) -> list[Plugin]:
    """Plugins for `points` with their standing: built-ins win, two third parties clash."""
    found: dict[tuple[str, str], Plugin] = {}
    for point in points:
        name, version = _origin(point)
        # An editable install can show its metadata twice on sys.path; the first one is imported.
        found.setdefault((point.name, name), Plugin(kind, point.name, name, version, point.value))
    by_name: dict[str, list[Plugin]] = {}
    for plugin in found.values():
        by_name.setdefault(plugin.name, []).append(plugin)
    return sorted(
        (
            Plugin(p.kind, p.name, p.distribution, p.version, p.target, _standing(p, rivals))
            for rivals in by_name.values()
            for p in rivals
        ),
        key=lambda p: (p.name, p.distribution),
    )


def _origin(point: EntryPoint) -> tuple[str, str]:
    """Distribution and version of an entry point; "" for what its metadata lacks."""
    try:
        about: Any = {} if point.dist is None else point.dist.metadata
        return _normalise(str(about.get("Name") or "")), str(about.get("Version") or "")
    except Exception:  # no metadata at all, or not UTF-8
        return "", ""


def _standing(plugin: Plugin, rivals: list[Plugin]) -> Literal["active", "shadowed", "clash"]:
    if len(rivals) == 1 or plugin.distribution == DISTRIBUTION:
        return "active"
    return "shadowed" if any(p.distribution == DISTRIBUTION for p in rivals) else "clash"


def get(kind: Kind, name: str) -> Plugin:
    """The plugin called `name`, or `distribution:name` where several distributions use the name.

    Raises:
        PluginError: for an unknown name (near ones are suggested) or a clash of two distributions.
    """
    plugins = find(kind)
    distribution, _, short = name.rpartition(":")
    matches = [
        p
        for p in plugins
        if p.name == short
        and (p.distribution == _normalise(distribution) if distribution else True)
    ]
    if not distribution:
        active = [p for p in matches if p.standing == "active"]
        if active:
            return active[0]
        if matches:
            raise PluginError(
                f"two distributions declare the {kind[:-1]} {name!r}; say which one: "
                + " or ".join(repr(p.reference) for p in matches)
            )
    elif matches:
        return matches[0]
    known = [p.reference for p in plugins]
    raise PluginError(
        f"no {kind[:-1]} is called {name!r}{near(name, known)} "
        f"(installed: {', '.join(known) or 'none'})"
    )


def load(kind: Kind, name: str) -> Any:
    """Import the plugin called `name` and return its class or factory.

    Raises:
        PluginError: unknown, ambiguous, or broken; the last names the distribution, the cause and
            what to install.
    """
    plugin = get(kind, name)
    try:
        return _imported(plugin)
    except PluginError as error:
        raise PluginError(
            f"the {kind[:-1]} {name!r} of {plugin.distribution or 'an unknown distribution'} "
            f"cannot be used: {error}"
        ) from error
    except Exception as error:  # a plugin may raise anything while it is imported
        raise PluginError(
            f"the {kind[:-1]} {name!r} of {plugin.distribution or 'an unknown distribution'} "
            f"does not import: {cause(error)}; {remedy(plugin, error)}"
        ) from error


def _imported(plugin: Plugin) -> Any:
    made = EntryPoint(plugin.name, plugin.target, f"polycode_plugins.{plugin.kind}").load()
    said = getattr(made, "name", plugin.name)
    if (isinstance(made, type) or plugin.kind == "experiments") and said != plugin.name:
        # Results are saved under its own name and read under the entry point's.
        what = "its class" if isinstance(made, type) else "it"
        raise PluginError(
            f"{what} has the name {said!r} and its entry point is {plugin.name!r}; they have to "
            "be equal"
        )
    return made


def load_case(plugin: Plugin) -> Any:
    """What the plugin's distribution declares to check it with, None where it declares nothing.

    It is looked for in the entry-point group `polycode_plugins.cases` under the plugin's kind and
    name, as `metric.spectrum`: a case, or a function that makes one.

    Raises:
        PluginError: where that does not import.
    """
    wanted = f"{plugin.kind[:-1]}.{plugin.name}"
    for point in _points("polycode_plugins.cases"):
        if point.name != wanted or _origin(point)[0] != plugin.distribution:
            continue
        try:
            return point.load()
        except Exception as error:
            raise PluginError(
                f"the case of {plugin.reference!r} does not import: {cause(error)}; "
                f"{remedy(plugin, error)}"
            ) from error
    return None


def broken(found: Iterable[Plugin]) -> dict[tuple[str, str], str]:
    """Why plugins do not import, by (distribution, name); those that do import are absent.

    They are imported in a process of their own: one that prints, exits, crashes or changes global
    state takes nothing down here.
    """
    causes: dict[tuple[str, str], str] = {}
    remaining = list(found)
    while remaining:
        lines, status = _try_imports(remaining)
        for plugin, line in zip(remaining, lines, strict=False):
            if line:
                causes[plugin.distribution, plugin.name] = line
        remaining = remaining[len(lines) :]
        if remaining:  # the process ended while it imported the first of the rest
            plugin, *remaining = remaining
            causes[plugin.distribution, plugin.name] = (
                f"importing it ends the process (status {status}); "
                f"{_REINSTALL} {plugin.distribution}"
            )
    return causes


_REINSTALL = "reinstall or update it: pip install --upgrade"
_MARK = "\x1epolycode "  # tells our lines from what a plugin prints
_SCRIPT = """
import json, sys
from polycode_plugins import plugins
for fields in json.loads(sys.argv[1]):
    why = plugins.why_broken(plugins.Plugin(**fields))
    sys.stdout.write(plugins._MARK + json.dumps(why) + "\\n")
    sys.stdout.flush()
"""


def _try_imports(found: list[Plugin]) -> tuple[list[str | None], int]:
    fields = json.dumps([asdict(p) for p in found])
    try:
        done = subprocess.run(
            [sys.executable, "-c", _SCRIPT, fields],
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=300,
            check=False,
        )
        output, status = done.stdout, done.returncode
    except subprocess.TimeoutExpired as error:
        raw = error.stdout or b""
        output, status = raw if isinstance(raw, str) else raw.decode("utf-8", "replace"), -1
    lines = [line.partition(_MARK)[2] for line in output.split("\n") if _MARK in line]
    return [json.loads(line) for line in lines], status


def why_broken(plugin: Plugin) -> str | None:
    """Import a plugin here and return the cause when that fails, None when it works."""
    try:
        _imported(plugin)
    except PluginError as error:
        return str(error)
    except Exception as error:  # a plugin may raise anything while it is imported
        return f"{cause(error)}; {remedy(plugin, error)}"
    return None


def cause(error: BaseException) -> str:
    """An exception in one line."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def remedy(plugin: Plugin, error: BaseException) -> str:
    """What to do about a plugin that does not import."""
    if isinstance(error, ModuleNotFoundError) and error.name:
        missing = error.name.partition(".")[0]
        if missing != plugin.target.partition(":")[0].partition(".")[0]:
            return f"it needs {missing!r}: install that, or what {plugin.distribution} asks for"
    return f"{_REINSTALL} {plugin.distribution}"


def missing_extra(library: str, extra: str, what: str) -> PluginError:
    """The error for a built-in whose optional library is absent."""
    return PluginError(
        f"{what} needs {library}, which is not installed: pip install '{DISTRIBUTION}[{extra}]'"
    )


def _normalise(name: str) -> str:
    return name.replace("_", "-").replace(".", "-").lower()
