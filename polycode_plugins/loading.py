"""`load`: from a live model, a name or a folder to the adapter that reads it."""

from __future__ import annotations

from importlib.resources import files
from inspect import Parameter, signature
from pathlib import Path
from typing import Any

from polycode_plugins import plugins
from polycode_plugins.adapters.base import Adapter
from polycode_plugins.errors import ModelError, PluginError, PolycodeError, near
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
    if adapter is None:
        adapter = _natural_adapter(model)
    factory: Any = plugins.load("adapters", adapter) if isinstance(adapter, str) else adapter
    _check_options(factory, adapter, options)
    try:
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
    """The name of the one adapter that claims `model`; generic adapters come last."""
    claims: list[tuple[bool, str]] = []
    broken: list[str] = []
    for plugin in plugins.find("adapters"):
        if plugin.standing == "shadowed":
            continue
        try:
            candidate = plugins.load("adapters", plugin.reference)
        except PluginError as error:
            broken.append(str(error))
            continue
        accepts = getattr(candidate, "accepts", None)
        if accepts is not None and accepts(model):
            claims.append((bool(getattr(candidate, "generic", False)), plugin.reference))
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
