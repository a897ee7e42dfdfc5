"""What an experiment is: settings for each scale, a run, a figure, and the claims it bears on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

from polycode_plugins.experiments.claims import Claim, Numbers

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

Scale: TypeAlias = Literal["smoke", "laptop", "paper"]
SCALES: tuple[Scale, ...] = get_args(Scale)


@dataclass(frozen=True)
class Experiment:
    """One figure of a paper.

    Attributes:
        name: on the command line; letters, digits and hyphens.
        title: what the figure shows.
        source: the paper and its figure.
        settings: a frozen dataclass of JSON values for each scale: "smoke" takes seconds and shows
            that it runs, "laptop" minutes on two cores with embedded data, "paper" is as published.
        run: (settings, seed, folder) to tables by name. The folder, which exists, holds the states
            of what was interrupted; the same arguments give the same tables.
        figure: from the tables to a figure.
        claims: what the paper says about the figure.
        remarks: where this departs from the paper, or fixes what the paper leaves open.
    """

    name: str
    title: str
    source: str
    settings: Mapping[Scale, Any]
    run: Callable[[Any, int, Path], Numbers]
    figure: Callable[[Numbers], Figure]
    claims: Sequence[Claim]
    remarks: Sequence[str] = ()


def parts(
    folder: Path, name: str, keys: Sequence[str], make: Callable[[str], pd.DataFrame]
) -> pd.DataFrame:
    """One table out of parts that take long: each is kept as it is done, and not done again.

    A column `part` holds the key of every row, as `read_table` reads it.
    """
    import pandas as pd

    from polycode_plugins.files import storage

    made = []
    for key in keys:
        path = folder / f"{name}-{key}.csv"
        if not path.is_file():
            table = make(key)
            table.insert(0, "part", key)
            storage.write_text(path, table.to_csv(index=False))
        made.append(read_table(path))
    return pd.concat(made, ignore_index=True)


def read_table(path: Path) -> pd.DataFrame:
    """A table as it was written, every float to its last bit.

    Columns of whole numbers, of numbers and of True and False become what they were; others stay
    text.
    """
    import pandas as pd

    # pandas rounds when it parses floats itself, in the versions before 3.
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    return table.apply(_parsed)


def _parsed(column: pd.Series[Any]) -> pd.Series[Any]:
    values = column.tolist()
    if set(values) <= {"True", "False"}:
        return column == "True"
    kinds: tuple[Callable[[str], Any], ...] = (int, lambda text: float(text or "nan"))
    for kind in kinds:
        try:
            return column.map(kind)
        except ValueError:
            continue
    return column
