"""Settings from a TOML file: the same as on the command line, which goes before them.

    model = "gpt2-xl"
    metrics = ["spectrum", "action"]
    limit = 2000
    [spectrum]
    fit = "huber"
    [option]
    device = "cuda"

A key is the long name of an option. A table is for what takes NAME=VALUE: `[option]` for
`--option`, any other (a metric's name, `[set]` for an explainer) for `--set`. The file is turned
into arguments before anything is parsed: what is recorded is the command as it was used.
"""

from __future__ import annotations

import argparse
import json
import os
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from polycode_plugins.errors import DataError, near

FLAG = "--settings"


def expanded(arguments: Sequence[str], parsers: Mapping[str, argparse.ArgumentParser]) -> list[str]:
    """The arguments with those of a settings file in the place of `--settings FILE`.

    Raises:
        DataError: for a file that cannot be read, or that has what the command does not take.
    """
    given = list(arguments)
    if not given or given[0] not in parsers:
        return given
    command, rest = given[0], given[1:]
    files, others = [], []
    while rest:
        word = rest.pop(0)
        if word == FLAG and rest:
            files.append(rest.pop(0))
        elif word.startswith(f"{FLAG}="):
            files.append(word.partition("=")[2])
        else:
            others.append(word)
    if not files or FLAG not in parsers[command]._option_string_actions:
        return given
    if len(files) > 1:
        raise DataError(f"{FLAG} is given {len(files)} times; put all settings into one file")
    return [
        command,
        *_arguments(Path(os.path.expanduser(files[0])), parsers[command], others),
        *others,
    ]


def _arguments(path: Path, parser: argparse.ArgumentParser, others: Sequence[str]) -> list[str]:
    try:
        settings = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"the settings {str(path)!r} cannot be read: {error}") from error
    actions = parser._option_string_actions
    said = {actions[w.partition("=")[0]].dest for w in others if w.partition("=")[0] in actions}
    made: list[str] = []
    for key, value in settings.items():
        if isinstance(value, Mapping):
            made += _table(path, key, value, actions)
            continue
        flag = f"--{key.replace('_', '-')}"
        action = actions.get(flag)
        if action is None or flag in (FLAG, "--help"):
            known = [name.removeprefix("--") for name in actions if name.startswith("--")]
            raise DataError(
                f"{str(path)!r} sets {key!r}, which 'polycode' has no option for here"
                f"{near(key.replace('_', '-'), known)}"
            )
        if action.dest not in said:
            made += _option(path, key, flag, action, value)
    return made


def _option(path: Path, key: str, flag: str, action: argparse.Action, value: Any) -> list[str]:
    if action.nargs == 0:
        if not isinstance(value, bool):
            raise DataError(f"{str(path)!r}: {key} is true or false, not {value!r}")
        return [flag] if value else []
    values = value if isinstance(value, list) else [value]
    if any(isinstance(one, bool | dict | list) for one in values):
        raise DataError(f"{str(path)!r}: {key} is a text, a number or a list of them: {value!r}")
    if isinstance(action, argparse._AppendAction):
        return [f"{flag}={one}" for one in values]
    return [f"{flag}={','.join(map(str, values))}"]


def _table(
    path: Path, name: str, table: Mapping[str, Any], actions: Mapping[str, argparse.Action]
) -> list[str]:
    flag = "--option" if name == "option" else "--set"
    if flag not in actions:
        raise DataError(f"{str(path)!r} has a table [{name}], and this command takes none")
    prefix = "" if name in ("option", "set") else f"{name}."
    return [
        f"{flag}={prefix}{key}={value if isinstance(value, str) else json.dumps(value)}"
        for key, value in table.items()
    ]
