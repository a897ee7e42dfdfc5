"""Explanations that were written down, by people or elsewhere, to be simulated, judged, scored."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from polycode_plugins.errors import DataError
from polycode_plugins.explainers.base import (
    Explainer,
    Explanation,
    Judge,
    PaidExplainer,
    Simulator,
    UnitRecords,
    direction_of,
)
from polycode_plugins.explainers.costs import FREE, Cost, Spent
from polycode_plugins.explainers.lookup import TokenLookupExplainer
from polycode_plugins.explainers.ngram import NgramExplainer
from polycode_plugins.files.guards import json_value
from polycode_plugins.files.paths import given

MISSING = "no explanation of it is written"
_TEXTS = ("explanation", "description", "text")
_SITES = ("site", "layer")
_UNITS = ("unit", "index", "neuron", "feature", "number")
_NUMBER = re.compile(r"(?<!\w)(\d+)(?!\w)")


@dataclass(frozen=True)
class Written:
    """One explanation, and the unit it is of as far as it was said.

    Attributes:
        text: the explanation.
        unit: the unit's name, or its number.
        site: the site's name, the number of its layer, a source of Neuronpedia; "" for any.
        kind: of the unit; "" for any.
        sign: of the unit; 0 for any.
    """

    text: str
    unit: str
    site: str = ""
    kind: str = ""
    sign: int = 0

    def fits(self, unit: UnitRecords) -> bool:
        """Whether this is of the unit."""
        if self.kind not in ("", unit.kind) or self.sign not in (0, unit.sign):
            return False
        if self.site not in ("", unit.site) and _layer(self.site) != _layer(unit.site):
            return False
        if self.site != unit.site and self.site and not _short(self.site):
            return False
        names = (unit.unit, direction_of(unit))
        return self.unit in names or (
            self.unit.isdecimal() and names[1].rpartition(" ")[2] == self.unit
        )


class WrittenExplanations(PaidExplainer):
    """Gives the explanations of a file; another explainer's simulator and judge go with them.

    A row says a text (explanation, description or text), a unit (unit, index, neuron, feature or
    number: its name or number) and, where that is not enough, site or layer, kind and sign. What
    `--export` writes and what Neuronpedia exports are such rows.

    Args:
        source: a .jsonl, .json or .csv file, or the rows.
        by: the explainer whose simulator and judge read texts: a language model.

    Raises:
        DataError: for a file that cannot be read, rows that lack a text or a unit, or an explainer
            whose simulator reads no texts.
    """

    name: ClassVar[str] = "written"

    def __init__(self, source: str | Path | Iterable[Mapping[str, Any]], by: Explainer) -> None:
        if isinstance(by, TokenLookupExplainer | NgramExplainer):
            raise DataError(
                f"the simulator of {by.name!r} reads its own tables and no text; explanations that "
                "were written are simulated by a language model (--explainer openai)"
            )
        self._by = by
        self._paid = by if isinstance(by, PaidExplainer) else None
        self._file = Path(source).name if isinstance(source, str | Path) else None
        rows = _rows(given(source)) if isinstance(source, str | Path) else list(source)
        self.written = tuple(_written(i, row) for i, row in enumerate(rows))
        if not self.written:
            raise DataError("there is no explanation in what was given")
        self._used: set[int] = set()

    def numbers(self) -> list[int] | None:
        """The numbers of the units that are explained; None where some have a name alone."""
        found = [w.unit.rpartition(" ")[2] for w in self.written]
        if not all(n.isdecimal() for n in found):
            return None
        return sorted({int(n) for n in found})

    def explain_many(self, units: Sequence[UnitRecords], *, seed: int = 0) -> list[Explanation]:
        """What is written of each unit.

        Raises:
            DataError: where two explanations are of one unit, or one of two units.
        """
        mine: dict[int, str] = {}
        made = []
        for unit in units:
            fitting = [i for i, w in enumerate(self.written) if w.fits(unit)]
            if len({self.written[i].text for i in fitting}) > 1:
                raise DataError(
                    f"rows {fitting[0] + 1} and {fitting[1] + 1} both explain {unit.unit} of "
                    f"{unit.site!r}; keep one of them"
                )
            for i in fitting:
                if mine.setdefault(i, unit.unit) != unit.unit:
                    raise DataError(
                        f"row {i + 1} ({self.written[i].unit!r}) may be of {mine[i]} or of "
                        f"{unit.unit}; say the kind, or the unit's whole name"
                    )
            self._used |= set(fitting)
            made.append(
                Explanation(unit.unit, self.name, self.written[fitting[0]].text)
                if fitting
                else Explanation.failed(unit.unit, self.name, MISSING)
            )
        return made

    def simulator(self) -> Simulator:
        """The other explainer's."""
        return self._by.simulator()

    def judge(self) -> Judge | None:
        """The other explainer's."""
        return self._by.judge()

    def describe(self) -> dict[str, Any]:
        """The file, a digest of what is in it, and the explainer that simulates and judges."""
        content = json.dumps([vars(w) for w in self.written]).encode()
        return {
            "explainer": self.name,
            "file": self._file,
            "sha256": hashlib.sha256(content).hexdigest()[:16],
            "by": self._by.name,
        }

    def warnings(self) -> list[str]:
        """How many explanations are of no unit that was looked at; and the other explainer's."""
        said = self._by.warnings()
        left = len(self.written) - len(self._used)
        if left:
            count = f"{left:,} of {len(self.written):,} written explanations"
            said = [f"{count} are of no unit of this run", *said]
        return said

    def close(self) -> None:
        """The other explainer's connections."""
        self._by.close()

    # -- what it takes: the explanations nothing, all else what it takes the other explainer ------

    def estimate(self, units: Sequence[UnitRecords], *, seed: int = 0) -> Cost:
        """Nothing."""
        return FREE

    def known(self, units: Sequence[UnitRecords], *, seed: int = 0) -> list[Explanation | None]:
        """All of them."""
        return list(self.explain_many(units, seed=seed))

    def estimators(self) -> tuple[Simulator, Judge | None]:
        """The other explainer's."""
        return self._paid.estimators() if self._paid else (self.simulator(), self.judge())

    def unknown(self) -> str:
        """The other explainer's."""
        return self._paid.unknown() if self._paid else ""

    def dollars(self, cost: Cost) -> float | None:
        """The other explainer's."""
        return self._paid.dollars(cost) if self._paid else None

    def spent(self) -> Spent | None:
        """The other explainer's."""
        return self._paid.spent() if self._paid else None


def _rows(path: Path) -> list[Mapping[str, Any]]:
    try:
        text = path.read_text(encoding="utf-8-sig")
        if path.suffix == ".csv":
            return list(csv.DictReader(io.StringIO(text)))
        if path.suffix == ".json":
            found = json_value(text)
        else:
            found = [json_value(line) for line in text.splitlines() if line.strip()]
    except (OSError, ValueError, csv.Error) as error:
        raise DataError(f"{str(path)!r} cannot be read as explanations: {error}") from error
    if not isinstance(found, list):
        raise DataError(f"{str(path)!r} holds one {type(found).__name__}, not a list of rows")
    return found


def _written(place: int, row: Any) -> Written:
    if not isinstance(row, Mapping):
        raise DataError(f"row {place + 1} of the explanations is {row!r:.60}, not an object")
    text, unit, site = (_first(row, names) for names in (_TEXTS, _UNITS, _SITES))
    if not text or not unit:
        lacks, names = ("text", _TEXTS) if not text else ("unit", _UNITS)
        raise DataError(
            f"row {place + 1} of the explanations says no {lacks}; it needs one of "
            f"{', '.join(names)}"
        )
    sign = str(row.get("sign") or 0)
    if sign not in ("-1", "0", "1"):
        raise DataError(
            f"row {place + 1} of the explanations has the sign {sign!r}; 1 or -1 is one"
        )
    return Written(text, unit, site, str(row.get("kind") or ""), int(sign))


def _first(row: Mapping[str, Any], names: Sequence[str]) -> str:
    """The first of the fields that says something, as one line."""
    said = (row[n] for n in names if row.get(n) is not None)
    return next((t for t in (" ".join(str(v).split()) for v in said) if t), "")


def _layer(site: str) -> str:
    found = _NUMBER.search(site)
    return found[1] if found else site


def _short(site: str) -> bool:
    """Whether a site is said by its layer's number, or as a source of Neuronpedia."""
    return re.match(r"\d+(-|$)", site) is not None
