"""What is read from files is looked at before it is believed: JSON and fields of dataclasses."""

from __future__ import annotations

import dataclasses
import errno
import json
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from polycode_plugins.errors import DataError, PolycodeError, StateError, near
from polycode_plugins.plugins import cause


def read_json(path: Path, wrong: type[PolycodeError] = StateError) -> dict[str, Any]:
    """The JSON object in a file.

    Raises:
        wrong: where the file cannot be read, or holds something else.
    """
    try:
        found = json_value(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        doing = "cannot be read as JSON" if wrong is DataError else "is damaged"
        raise wrong(f"{str(path)!r} {doing}: {error}") from error
    if not isinstance(found, dict):
        raise wrong(f"{str(path)!r} holds a JSON {type(found).__name__}, not an object")
    return found


def json_value(text: str) -> Any:
    """The value of a JSON text that somebody else wrote.

    Raises:
        ValueError: with the reason in some words, also for what Python does not take: values nested
            too deep, numbers of thousands of digits.
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("its values are nested too deep") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"{error.msg} at column {error.colno} of line {error.lineno}") from None
    except ValueError:
        raise ValueError("a number in it has thousands of digits") from None


def whole_number(text: str) -> int | None:
    """The number that a text of at most 18 digits is; None for any other text."""
    return int(text) if re.fullmatch(r"[0-9]{1,18}", text) else None


def reason_of(error: Exception) -> str:
    """Why the system, or a library that wraps its errors, could not write, and what to do."""
    text = str(error)
    number = error.errno if isinstance(error, OSError) else None
    if number == errno.EDQUOT or "quota exceeded" in text:
        return "there is no more room for you on that disk; free some space or give another folder"
    full = ("No space left", "os error 28", "disk is full")
    if number == errno.ENOSPC or any(words in text for words in full):
        return "the disk is full; free some space or give a folder on another disk"
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror.lower()}; give a folder that can be written"
    return text


def format_of(path: Path, record: Mapping[str, Any], newest: int) -> int:
    """The number of the format of a record.

    Raises:
        StateError: for a number that this version does not read, or something else.
    """
    number = record.get("format")
    if not isinstance(number, int) or isinstance(number, bool) or number < 1:
        raise StateError(f"{str(path)!r} is damaged: its format is {number!r}")
    if number > newest:
        raise StateError(
            f"{str(path.parent)!r} has format {number} and this version reads up to {newest}; "
            "update polycode-plugins"
        )
    return number


def require_types(record: Mapping[str, Any], types: Mapping[str, Any], what: str) -> None:
    """Raise StateError unless the values of `record` that are there have these types.

    Args:
        record: JSON values.
        types: by field.
        what: what the message calls the record.
    """
    for field, hint in types.items():
        if field in record and not _fits(record[field], hint, False):
            value, expected = _short(record[field]), getattr(hint, "__name__", str(hint))
            raise StateError(f"{what} misstates {field!r}: {value} is no {expected}")


def check_fields(made: Any, *, saved: bool = True) -> None:
    """Raise StateError unless the fields of a dataclass, and of those in it, are of their types.

    Args:
        made: the dataclass. What its annotations do not settle (`Any`, arrays) is not looked at.
        saved: whether it comes from JSON, where a tuple is a list, and where numbers in a mapping
            that are not finite are null.
    """
    kind: Any = type(made)
    for name, (hint, written) in _hints(kind).items():
        value = getattr(made, name)
        if not _fits(value, hint, saved):
            raise StateError(f"{name} is {_short(value)} and must be {written}")


def check_choices(made: Any) -> None:
    """Raise DataError for a field of a dataclass that is none of the choices of its annotation."""
    kind: Any = type(made)
    for name, (hint, _) in _hints(kind).items():
        parts = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
        if not all(get_origin(one) is Literal or one is NoneType for one in parts):
            continue
        choices = [value for one in parts for value in get_args(one) or (None,)]
        value = getattr(made, name)
        if not any(value is one or (isinstance(value, str) and value == one) for one in choices):
            close = near(str(value), [one for one in choices if isinstance(one, str)])
            known = ", ".join(map(repr, choices))
            raise DataError(f"there is no {name} {value!r}{close}; the choices are {known}")


@cache
def _hints(kind: type) -> dict[str, tuple[Any, str]]:
    """{field: (annotation, as it is written)} of a dataclass."""
    try:
        hints = get_type_hints(kind)
    except Exception:  # an annotation that only a type checker can read
        return {}
    return {f.name: (hints[f.name], _written(hints[f.name], f)) for f in dataclasses.fields(kind)}


def _written(hint: Any, field: dataclasses.Field[Any]) -> str:
    """What a message says that a field must be: the choices where there are some."""
    parts = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    if any(get_origin(one) is not Literal and one is not NoneType for one in parts):
        return str(field.type)
    choices = [repr(value) for one in parts for value in get_args(one) or (None,)]
    return f"one of {', '.join(choices)}" if len(choices) > 1 else choices[0]


def restored(kind: Any, fields: Mapping[str, Any]) -> Any:
    """The dataclass whose fields, as JSON values, are given.

    By their annotations lists become tuples and arrays, and mappings the dataclasses in it. What
    fits no annotation stays as it is: `check_fields` finds it.

    Raises:
        TypeError: for a field that is missing, or is none of the dataclass.
    """
    hints = _hints(kind)
    return kind(
        **{
            name: _restored(value, hints[name][0]) if name in hints else value
            for name, value in fields.items()
        }
    )


def _restored(value: Any, hint: Any) -> Any:
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        made = (_restored(value, one) for one in inner)
        return next((found for found in made if found is not value), value)
    if isinstance(value, list) and getattr(origin, "__name__", "") == "ndarray":
        import numpy as np  # not at the start of every command

        return np.asarray(value, dtype=get_args(inner[1])[0])
    if origin is tuple and isinstance(value, list | tuple):
        kinds = inner[:1] * len(value) if inner[-1:] == (...,) else inner
        if len(kinds) != len(value):
            return value
        return tuple(map(_restored, value, kinds))
    if origin is list and isinstance(value, list):
        return [_restored(one, inner[0]) for one in value]
    if origin in (dict, Mapping) and isinstance(value, Mapping):
        return {key: _restored(one, inner[1]) for key, one in value.items()}
    if dataclasses.is_dataclass(hint) and isinstance(value, Mapping):
        return restored(hint, value)
    return value


def _fits(value: Any, hint: Any, saved: bool) -> bool:
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return any(_fits(value, one, saved) for one in inner)
    if origin is Literal:
        return any(value == one and type(value) is type(one) for one in inner)
    if origin is tuple:
        if not isinstance(value, tuple) and not (saved and isinstance(value, list)):
            return False
        if inner == (str, ...):  # tokens: there may be millions
            return all(isinstance(v, str) for v in value)
        if inner[-1:] == (...,):
            return all(_fits(v, inner[0], saved) for v in value)
        return len(value) == len(inner) and all(map(_fits, value, inner, [saved] * len(inner)))
    if origin is list:
        return isinstance(value, list) and all(_fits(v, inner[0], saved) for v in value)
    if origin in (dict, Mapping):
        return isinstance(value, Mapping) and all(
            _fits(k, inner[0], saved) and (_fits(v, inner[1], saved) or (saved and v is None))
            for k, v in value.items()
        )
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if hint in (str, bool, dict, list, NoneType):
        return isinstance(value, hint)
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        if not isinstance(value, hint):
            return False
        check_fields(value, saved=saved)
    return True


def made_from(what: str, error: Exception) -> str:
    """`what`, and why it could not be made: one sentence out of an exception of any type."""
    reason = str(error) if isinstance(error, PolycodeError) else cause(error)
    return f"{what}: {reason}"


def shown(text: str) -> str:
    """Foreign text in one line, without what a terminal would obey."""
    line = " ".join(text.split())
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in line)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
