"""What several commands take: a model, data, NAME=VALUE; and how they speak to people."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

from polycode_plugins import plugins
from polycode_plugins.data_options import DataOptions
from polycode_plugins.errors import DataError, PluginError
from polycode_plugins.files.guards import json_value, shown, whole_number


def add_model(parser: argparse.ArgumentParser) -> None:
    """The arguments that name a model and its sites."""
    group = parser.add_argument_group("model")
    group.add_argument(
        "--model",
        help="a name (gpt2-xl, resnet18), a local folder or a GGUF file (default: tiny-gpt2); "
        "torchvision's have random weights unless --option weights=DEFAULT",
    )
    group.add_argument("--adapter", help="by default the one that claims the model")
    group.add_argument(
        "--device", help="where to put the model: cpu, cuda, cuda:1, mps, ... (default: cpu)"
    )
    group.add_argument(
        "--dtype", help="of the model's weights: float32, bfloat16, float16 (default: float32)"
    )
    group.add_argument(
        "--option",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="an option of the adapter, for example device_map=auto or weights=DEFAULT",
    )
    group.add_argument(
        "--sites",
        action="append",
        metavar="GLOB",
        help="sites to read: '*' within a dotted part, '**' across, '!glob' leaves out; may be "
        "repeated (default: the adapter's)",
    )


def add_data(parser: argparse.ArgumentParser, *, shards: bool = True) -> None:
    """The arguments that say which data are read, and how; `--shard` is hidden without `shards`."""
    group = parser.add_argument_group("data")
    group.add_argument(
        "--text",
        "--images",
        "--data",
        dest="data",
        metavar="SOURCE",
        help="text: a file, a folder, .jsonl, hf:NAME; images: a folder, cifar10, or "
        "moving-dot[:FRAMES[:RADIUS]], a dot that goes round; default: the embedded data",
    )
    for option in DataOptions.choices():
        flag, kind = f"--{option.name.replace('_', '-')}", type(option.default)
        text = option.metadata["help"]
        if option.name == "shard":
            text = text if shards else argparse.SUPPRESS
            group.add_argument(flag, default="0/1", metavar="I/N", help=text)
        elif kind is bool:
            group.add_argument(flag, action="store_true", help=text)
        else:
            whole = int if option.default is None else kind
            group.add_argument(flag, type=whole, default=option.default, help=text)


def installed(kind: plugins.Kind, *names: str | None) -> None:
    """Whether plugins are there, from metadata: a wrong name does not wait for torch.

    Raises:
        PluginError: for an unknown name, or a clash of two distributions.
    """
    for name in names:
        if name is not None:
            plugins.get(kind, name)


def reading_of(options: argparse.Namespace) -> dict[str, Any]:
    """What the arguments of `add_data` say of reading data, by the names of `DataOptions`."""
    found = DataOptions.among(vars(options))
    return found | {"shard": shard_of(found["shard"])}


def adapter_options(options: argparse.Namespace) -> dict[str, Any]:
    """What the arguments of `add_model` say to the adapter.

    Raises:
        PluginError: for an option that is given twice.
    """
    found = assignments(options.option, "--option")
    for name in ("device", "dtype"):
        value = getattr(options, name)
        if value is None:
            continue
        if name in found:
            raise PluginError(f"--{name} and --option {name}=... say the same; give one of them")
        found[name] = value
    return found


def assignments(texts: Sequence[str], flag: str) -> dict[str, Any]:
    """The values of a flag that is NAME=VALUE and may be repeated."""
    found = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name.isidentifier():
            raise PluginError(f"{flag} {text!r} is not NAME=VALUE")
        found[name] = value_of(value)
    return found


def value_of(text: str) -> Any:
    """A setting's value: JSON where it is JSON, a tuple where it has commas, else the text."""
    try:
        value = json_value(text)
    except ValueError:
        return tuple(value_of(part) for part in text.split(",")) if "," in text else text
    return tuple(value) if isinstance(value, list) else value


def shard_of(text: str) -> tuple[int, int]:
    """The (index, count) of `--shard I/N`."""
    index, slash, count = text.partition("/")
    own, of = whole_number(index), whole_number(count)
    if not slash or own is None or of is None:
        raise DataError(f"--shard {shown(text[:60])!r} is not I/N, for example 0/4")
    return own, of


def add_speech(parser: argparse.ArgumentParser, settings: bool = True) -> None:
    """How much is said, and where settings are read from."""
    if settings:
        parser.add_argument(
            "--settings",
            metavar="FILE",
            help="options from a TOML file, by their long names; the command line goes before them",
        )
    how = parser.add_mutually_exclusive_group()
    how.add_argument(
        "--quiet", action="store_true", help="no progress: results, warnings and errors alone"
    )
    how.add_argument(
        "--verbose", action="store_true", help="say what is done when, and where an error is from"
    )


@contextmanager
def told(options: argparse.Namespace) -> Iterator[None]:
    """A first line before anything slow is imported; with --verbose what is done, as it is."""
    opening: Callable[[argparse.Namespace], str] | None = getattr(options, "opening", None)
    quiet = getattr(options, "quiet", False) or int(os.environ.get("RANK", "0")) > 0
    if opening is not None and not quiet:
        say(opening(options))
    if not getattr(options, "verbose", False):
        yield
        return
    logger = logging.getLogger("polycode_plugins")
    handler, before = logging.StreamHandler(), logger.level
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)


def opening_of(verb: str, options: argparse.Namespace) -> str:
    """The first line of a command that loads a model: what on what, and where it will be."""
    model = options.model if options.model is not None else "the embedded tiny-gpt2"
    data = getattr(options, "data", "")
    on = "" if data == "" else f" on {'the embedded data' if data is None else data}"
    out = f", into {options.out}" if getattr(options, "out", None) is not None else ""
    return shown(f"{verb} {model}{on}{out} ...")


def note_pictures() -> None:
    """Say at the start what the report will lack, where something is not installed."""
    if find_spec("plotly") is None:
        say(
            "plotly is not installed, so the report will have pictures in place of charts to point "
            "at: pip install 'polycode-plugins[report]'"
        )


def say(text: str) -> None:
    """A message for people, on standard error."""
    print(text, file=sys.stderr)
