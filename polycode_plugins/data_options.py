"""How data is read and cut into batches: the one place that knows the options and checks them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import Field, dataclass, field, fields
from typing import TYPE_CHECKING, Any

from polycode_plugins.errors import DataError

if TYPE_CHECKING:  # not read by the command line, which must not wait for torch
    from polycode_plugins.files.content import ContentDigest


def _option(default: Any, help: str, metavar: str | None = None) -> Any:
    return field(default=default, metadata={"help": help, "metavar": metavar})


@dataclass(frozen=True)
class DataOptions:
    """How data is read and cut into batches; adapters use what applies to their inputs.

    Attributes:
        batch_size: rows per forward pass.
        context: tokens per window of text, the prepended token included.
        limit: stop after this many rows (windows, images); None reads everything.
        shard: (index, count): read every count-th row, starting with index.
        include_special: let special tokens (the prepended one too, padding never) into the
            statistics.
        text_field: field of a JSON line or data set that holds the text.
        seed: of whatever is drawn (image crops).
        content: where an adapter adds what it reads (`ContentDigest.add_value`): the rows of all
            shards up to `limit`, in the same order whatever the shard. It proves that parts are of
            one data; shards of an adapter that adds nothing are not merged.

    Raises:
        DataError: for a size or limit that is no whole number above 0, or a shard that is none.
    """

    batch_size: int = _option(16, "default: 16")
    context: int = _option(64, "tokens per window (default: 64)")
    limit: int | None = _option(None, "read at most this many windows or images")
    shard: tuple[int, int] = _option((0, 1), "read every N-th row from row I (default: 0/1, all)")
    include_special: bool = _option(False, "let special tokens into the statistics")
    text_field: str = _option(
        "text", "field with the text in JSON lines or a data set (default: text)"
    )
    seed: int = 0
    content: ContentDigest | None = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        for name in ("batch_size", "context", "limit"):
            value = getattr(self, name)
            if value is None and name == "limit":
                continue
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise DataError(f"{name} must be a whole number above 0, and it is {value!r}")
        try:
            index, count = self.shard
            fits = 0 <= index < count
        except (TypeError, ValueError):
            fits = False
        if not fits:
            raise DataError(
                f"shard is (index, count) with 0 <= index < count, and it is {self.shard!r}"
            )

    @classmethod
    def choices(cls) -> list[Field[Any]]:
        """The options that people choose, with a help text each in their metadata."""
        return [f for f in fields(cls) if f.metadata]

    @classmethod
    def among(cls, options: Mapping[str, Any]) -> dict[str, Any]:
        """Those of `options` that are options of reading data."""
        known = {f.name for f in fields(cls)}
        return {name: value for name, value in options.items() if name in known}

    def lasting(self) -> dict[str, Any]:
        """What all parts of one analysis have in common, as JSON values: not shard nor seed."""
        return {f.name: getattr(self, f.name) for f in self.choices() if f.name != "shard"}
