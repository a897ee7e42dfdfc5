"""A user's table of prices: model -> US dollars per million tokens sent and received."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from polycode_plugins.errors import DataError, near
from polycode_plugins.files.guards import json_value
from polycode_plugins.files.paths import given

EXAMPLE = '{"gpt-4o-mini": {"in": 0.15, "out": 0.6}}'


@dataclass(frozen=True)
class Prices:
    """US dollars per million tokens, {model: (sent, received)}."""

    table: Mapping[str, tuple[float, float]]

    def dollars(self, model: str, tokens_in: int, tokens_out: int) -> float:
        """What so many tokens cost.

        Raises:
            DataError: for a model that the table lacks.
        """
        if model not in self.table:
            raise DataError(
                f"the table of prices has no model {model!r}{near(model, self.table)}; add a line "
                f"such as {EXAMPLE}"
            )
        sent, received = self.table[model]
        return (tokens_in * sent + tokens_out * received) / 1e6


def read_prices(source: str | Path | Mapping[str, Any]) -> Prices:
    """Prices from a JSON or TOML file, or a mapping, of the form {model: {"in": x, "out": y}}.

    Raises:
        DataError: for a file that cannot be read and prices that are no numbers of at least 0.
    """
    name = "the table of prices" if isinstance(source, Mapping) else repr(str(source))
    table = source if isinstance(source, Mapping) else _parsed(given(source), name)
    prices: dict[str, tuple[float, float]] = {}
    for model, entry in table.items():
        try:
            sent, received = float(entry["in"]), float(entry["out"])
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(
                f"{name} has no prices 'in' and 'out' for {model!r}; write it as {EXAMPLE}"
            ) from error
        if not all(math.isfinite(p) and p >= 0 for p in (sent, received)):
            raise DataError(f"{name} has a price for {model!r} that is not a number of at least 0")
        prices[str(model)] = (sent, received)
    return Prices(prices)


def _parsed(path: Path, name: str) -> Mapping[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
        found = tomllib.loads(text) if path.suffix == ".toml" else json_value(text)
    except OSError as error:
        raise DataError(f"{name} cannot be read: {error.strerror}; check the path") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{name} is not JSON (or TOML, by its suffix): {error}") from error
    if not isinstance(found, Mapping):
        raise DataError(f"{name} is not a table; write it as {EXAMPLE}")
    return found
