"""`load`: from a live model, a name or a folder to the adapter that reads it."""

from __future__ import annotations

import os
import warnings
from importlib.resources import files
from inspect import Parameter, signature
from pathlib import Path
from typing import Any

from polycode_plugins import plugins
from polycode_plugins.adapters.base import Adapter
from polycode_plugins.errors import ModelError, PluginError, PolycodeError, PolycodeWarning, near
from polycode_plugins.files import guards

# Names that no adapter claims are looked for on the Hugging Face hub, by this one.
HUB_ADAPTER = "transformer-lens"
EMBEDDED = "tiny-gpt2"


def load(model: Any = None, adapter: str | type[Adapter] | None = None, **options: Any) -> Adapter:
    """The adapter for a model.

    Args:
        model: a live model object, a name ("gpt2-xl", "resnet18"), a folder in Hugging Face format,
            or None for the embedded tiny GPT-2.
        adapter: the name of an adapter, or its class; by default the one that claims the model.
        options: passed on to the adapter (`device`, `dtype`, `weights`, `axes`, ...).

    Raises:
        ModelError: when the model cannot be found, loaded, or is claimed by nobody or by several.
        PluginError: for an unknown or broken adapter.
    """
    if isinstance(model, Adapter):
        if adapter is not None or options:
            raise ModelError("this model is an adapter already; give its options where it is made")
        return model
    if model is None or model == EMBEDDED:
        model = embedded_model()
    if isinstance(model, str | Path):  # "./name" stays a folder's name
        model = type(model)(os.path.expanduser(model))
    if adapter is None:
        adapter = _natural_adapter(model)
    factory: Any = plugins.load("adapters", adapter) if isinstance(adapter, str) else adapter
    _check_options(factory, adapter, options)
    try:
        with plugins.contained(f"the adapter {_called(adapter)!r}"):
            made = factory(model, **options)
    except PolycodeError:
        raise
    except Exception as error:  # a constructor may raise anything at values it does not expect
        if not options:
            raise
        what = f"the adapter {_called(adapter)!r} does not take these options ({options})"
        raise ModelError(guards.made_from(what, error)) from error
    if not isinstance(made, Adapter):
        raise PluginError(f"the plugin {adapter!r} makes a {type(made).__name__}, not an Adapter")
    return made


def _check_options(factory: Any, adapter: str | type[Adapter], options: dict[str, Any]) -> None:
    """Refuse what makes no adapter, and options that the one asked for does not have."""
    if isinstance(factory, Adapter):
        raise ModelError(
            f"adapter= takes a name or a class, and this {type(factory).__name__} is made already; "
            "pass it as the model, in its place"
        )
    if not callable(factory):
        raise ModelError(f"adapter= takes the name of an adapter or its class, not {factory!r}")
    try:
        parameters = list(signature(factory).parameters.values())
    except (TypeError, ValueError):  # compiled: it says so itself
        return
    if any(p.kind is Parameter.VAR_KEYWORD for p in parameters):
        return
    # The first parameter is the model.
    known = [p.name for p in parameters[1:] if p.kind not in _NEVER_BY_NAME]
    for option in options:
        if option not in known:
            raise ModelError(
                f"the adapter {_called(adapter)!r} does not take this option: {option!r}"
                f"{near(option, known)} (its options: {', '.join(known) or 'none'})"
            )


_NEVER_BY_NAME = (Parameter.POSITIONAL_ONLY, Parameter.VAR_POSITIONAL)


def _called(adapter: str | type[Adapter]) -> str:
    return adapter if isinstance(adapter, str) else getattr(adapter, "__name__", repr(adapter))


def embedded_model() -> Path:
    """The folder of the tiny GPT-2 that ships with the package."""
    return Path(str(files("polycode_plugins") / "data" / EMBEDDED))


def _natural_adapter(model: object) -> str:
    """The name of the one adapter that claims `model`; generic adapters come last.

    Nobody has asked for any of them: one that is broken is passed over with a warning.
    """
    claims: list[tuple[bool, str]] = []
    broken: list[str] = []
    for plugin, outcome in _possible(model):
        why, claimed, generic = outcome.broken, outcome.claims, outcome.generic
        if why is None and claimed is None:
            try:
                claimed, generic = plugins.claim(plugins.imported(plugin), model)
            except Exception as error:  # a plugin may raise anything
                why = str(error) if isinstance(error, PluginError) else plugins.cause(error)
        if why is not None:
            what = f"the adapter {plugin.reference!r} of {plugin.distribution or 'nobody'}"
            broken.append(why if why.startswith(what) else f"{what} is broken: {why}")
        elif claimed:
            claims.append((generic, plugin.reference))
    for why in broken:
        warnings.warn(f"passed over: {guards.shown(why)}", PolycodeWarning, stacklevel=3)
    special = [name for generic, name in claims if not generic]
    if len(special) > 1:
        raise ModelError(
            f"several adapters read this model ({', '.join(special)}); say which with adapter="
        )
    if special:
        return special[0]
    if claims:
        return claims[0][1]
    if isinstance(model, str | Path):
        return HUB_ADAPTER
    why = f" (an adapter that might is broken: {broken[0]})" if broken else ""
    raise ModelError(
        f"no installed adapter reads a {type(model).__name__}{why}; pass an nn.Module, a name or a "
        "folder, or write an adapter"
    )


_tried: dict[plugins.Plugin, plugins.Outcome] = {}  # of this process: adapters that import


def _possible(model: object) -> list[tuple[plugins.Plugin, plugins.Outcome]]:
    """The adapters that may read `model`; those of others were tried in a process of their own."""
    found = [p for p in plugins.find("adapters") if p.standing != "shadowed" and p.may_read(model)]
    foreign = [p for p in found if p.is_foreign and p not in _tried]
    name = model if isinstance(model, str | Path) else None
    outcomes = dict(zip(foreign, plugins.tried(foreign, name), strict=True))
    if name is None:  # what was learnt holds for every live model
        _tried.update(outcomes)
    return [(p, outcomes.get(p) or _tried.get(p) or plugins.Outcome()) for p in found]
