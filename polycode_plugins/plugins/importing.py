"""Plugins that are used: imported here, and what is wrong with them in one sentence."""

from __future__ import annotations

from importlib.metadata import EntryPoint
from typing import Any

from polycode_plugins.errors import PluginError
from polycode_plugins.plugins import catalogue
from polycode_plugins.plugins.catalogue import Kind, Plugin
from polycode_plugins.plugins.foreign import cause, contained, remedy


def load(kind: Kind, name: str) -> Any:
    """Import the plugin called `name` and return its class or factory.

    Raises:
        PluginError: unknown, ambiguous, or broken; the last names the distribution, the cause and
            what to install.
    """
    return imported(catalogue.get(kind, name))


def imported(plugin: Plugin) -> Any:
    """The class or factory of a plugin.

    Raises:
        PluginError: where it does not import, with the distribution, the cause and what to install.
    """
    what = (
        f"the {plugin.kind[:-1]} {plugin.reference!r} of "
        f"{plugin.distribution or 'an unknown distribution'}"
    )
    try:
        return _object(plugin)
    except _Misnamed as error:
        raise PluginError(f"{what} cannot be used: {error}") from error
    except PluginError as error:  # of `contained`, or a built-in's that lacks its library
        raise PluginError(f"{what} cannot be used: {error}; {remedy(plugin)}") from error
    except Exception as error:  # a plugin may raise anything while it is imported
        raise PluginError(
            f"{what} does not import: {cause(error)}; {remedy(plugin, error)}"
        ) from error


class _Misnamed(PluginError):
    """A class that calls itself something else than its entry point."""


def _object(plugin: Plugin) -> Any:
    with contained():
        made = EntryPoint(plugin.name, plugin.target, f"polycode_plugins.{plugin.kind}").load()
        said = getattr(made, "name", plugin.name)
    if (isinstance(made, type) or plugin.kind == "experiments") and said != plugin.name:
        # Results are saved under its own name and read under the entry point's.
        what = "its class" if isinstance(made, type) else "it"
        raise _Misnamed(
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
    for point in catalogue.points("polycode_plugins.cases"):
        if point.name != wanted or catalogue.origin(point)[0] != plugin.distribution:
            continue
        try:
            with contained():
                return point.load()
        except Exception as error:
            raise PluginError(
                f"the case of {plugin.reference!r} does not import: {cause(error)}; "
                f"{remedy(plugin, error)}"
            ) from error
    return None


def why_broken(plugin: Plugin) -> str | None:
    """Import a plugin here and return the cause when that fails, None when it works."""
    try:
        _object(plugin)
    except _Misnamed as error:
        return str(error)
    except PluginError as error:
        return f"{error}; {remedy(plugin)}"
    except Exception as error:  # a plugin may raise anything while it is imported
        return f"{cause(error)}; {remedy(plugin, error)}"
    return None
