"""What the metadata of installed distributions says of plugins; nothing of theirs is imported."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from importlib.metadata import EntryPoint, distributions, entry_points
from pathlib import Path
from typing import Any, Literal, get_args

from polycode_plugins.errors import PluginError, PolycodeWarning, near

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
        reads: of an adapter, the models that it declares to read; None where it declares nothing.
            Each is a pattern for a model's name or path, or for the dotted name of a live model's
            class or of a base of it.
    """

    kind: Kind
    name: str
    distribution: str
    version: str
    target: str
    standing: Literal["active", "shadowed", "clash"] = "active"
    reads: tuple[str, ...] | None = None

    @property
    def reference(self) -> str:
        """The name that reaches this plugin: short where that is unambiguous."""
        return self.name if self.standing == "active" else f"{self.distribution}:{self.name}"

    @property
    def package(self) -> str:
        """The top-level package that it is in."""
        return self.target.partition(":")[0].partition(".")[0].strip()

    @property
    def is_foreign(self) -> bool:
        """Whether it is somebody else's, and not in this process yet."""
        module = self.target.partition(":")[0].strip()
        return self.distribution != DISTRIBUTION and module not in sys.modules

    def may_read(self, model: object) -> bool:
        """Whether the metadata leaves it open that this adapter reads `model`."""
        if self.reads is None:
            return True
        if isinstance(model, str | Path):
            names = [str(model)]
        else:
            names = [f"{kind.__module__}.{kind.__qualname__}" for kind in type(model).__mro__]
        return any(fnmatchcase(name, pattern) for name in names for pattern in self.reads)


def find(kind: Kind) -> list[Plugin]:
    """All plugins of one kind, from metadata alone, sorted by name and distribution.

    A distribution whose metadata cannot be read takes no other one down: it is named in a warning
    and passed over, see `unreadable`.

    What was found is held until something is installed or removed: all metadata of an environment
    is hundreds of files, and the results of a run ask for their metric one by one.
    """
    installed = _installed()
    if kind not in _held or _held[kind][0] != installed:
        found = _find(kind)
        if unreadable():  # which every look has to say
            return found
        _held[kind] = installed, found
    return list(_held[kind][1])


_held: dict[Kind, tuple[object, list[Plugin]]] = {}


def _installed() -> object:
    """What differs once pip has been here: the places of metadata and when they changed."""
    places: list[object] = [*sys.meta_path]
    for place in sys.path:
        try:
            state = os.stat(place or ".")
        except OSError:  # it may be made yet
            places.append(place)
        else:
            places.append((place, state.st_dev, state.st_ino, state.st_mtime_ns))
    return places


def _find(kind: Kind) -> list[Plugin]:
    found = arrange(kind, points(f"polycode_plugins.{kind}"))
    if kind != "adapters" or all(p.distribution == DISTRIBUTION for p in found):
        return found
    declared: dict[tuple[str, str], list[str]] = {}
    for point in points("polycode_plugins.reads"):
        declared.setdefault((origin(point)[0], point.value), []).append(point.name)
    reads = [declared.get((p.distribution, p.target)) for p in found]
    return [
        replace(p, reads=None if r is None else tuple(r)) for p, r in zip(found, reads, strict=True)
    ]


def points(group: str) -> list[EntryPoint]:
    """The entry points of one group; what cannot be read is named in a warning."""
    try:
        return list(entry_points(group=group))
    except Exception:  # one damaged file among all those that are installed is enough
        for name, why in unreadable().items():
            text = f"{name} was passed over: its metadata cannot be read ({why}); reinstall it"
            warnings.warn(text, PolycodeWarning, stacklevel=1)  # shown once, whoever looks
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
            text = " ".join(str(error).split())
            yield [], (str(name), f"{type(error).__name__}: {text}")


def arrange(kind: Kind, points: Iterable[EntryPoint]) -> list[Plugin]:
    """Plugins for `points` with their standing: built-ins win, two third parties clash."""
    found: dict[tuple[str, str], Plugin] = {}
    for point in points:
        name, version = origin(point)
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


def origin(point: EntryPoint) -> tuple[str, str]:
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


def _normalise(name: str) -> str:
    return name.replace("_", "-").replace(".", "-").lower()
