"""The texts of requests: under way, cut into pieces, ended; and which slots hold their tokens."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from polycode_plugins.adapters.vllm.schedule import Ledger, Part, asked_name, family

_PIECES = 20  # bits of a row number that count the pieces of one text


@dataclass(frozen=True)
class Row:
    """What is known of the text of a request before it runs.

    Attributes:
        number: of the row in the data.
        document: it was cut from.
        left_out: positions that do not count.
    """

    number: int
    document: int
    left_out: tuple[int, ...]


@dataclass(frozen=True)
class Piece:
    """Tokens of one text that are handed on together: all of it, unless it is cut.

    Attributes:
        row: its number.
        document: that it is of.
        first: position of its first token in the text.
        slots: where its tokens wait.
        known: what was known of the text before it ran.
    """

    row: int
    document: int
    first: int
    slots: list[int]
    known: Row | None


@dataclass
class _Text:
    number: int
    document: int
    known: Row | None
    slots: list[int] = field(default_factory=list)  # of tokens that are in no piece yet
    pieces: int = 0
    before: int = 0  # tokens in these


class Texts:
    """Follows requests from their first token to their last.

    Requests of which nothing is known are numbered as they come, and each is a document, but that
    the samples of one prompt are one. A text of the data's is never cut.

    Args:
        longest: tokens of a piece at most; None for whole texts.

    Attributes:
        count: requests seen.
        ended: tokens of pieces that have not been handed on.
        ledger: which tokens were seen.
    """

    def __init__(self, longest: int | None = None) -> None:
        self.count = 0
        self.ended = 0
        self.ledger = Ledger()
        self._longest = longest
        self._known: dict[str, Row] = {}
        self._families: dict[str, int] = {}  # documents of prompts with several samples
        self._under_way: dict[str, _Text] = {}
        self._pieces: dict[int, Piece] = {}

    def __len__(self) -> int:
        """Texts under way."""
        return len(self._under_way)

    def know(self, rows: Mapping[str, Row]) -> None:
        """Take in what is known of requests to come, by the names that they are made with."""
        self._known |= rows

    def add(self, part: Part, slots: Sequence[int]) -> None:
        """Take in where the next tokens of a request wait."""
        text = self._under_way.get(part.request)
        if text is None:
            text = self._under_way[part.request] = self._begun(part.request)
        text.slots += slots

    def _begun(self, request: str) -> _Text:
        number, self.count = self.count, self.count + 1
        row = self._known.pop(request, None) or self._known.pop(asked_name(request), None)
        if row is not None:
            return _Text(row.number, row.document, row)
        prompt = family(request)
        if prompt == request:
            return _Text(number, number, None)
        return _Text(number, self._families.setdefault(prompt, number), None)

    def end(self, living: Container[str] = ()) -> None:
        """Note that the requests that are not among `living` have ended, and cut long ones."""
        for request in [name for name in self._under_way if name not in living]:
            text = self._under_way.pop(request)
            self.ledger.forget(request)
            self._cut(text)
            if text.slots:
                self._set_aside(text, len(text.slots))
        for text in self._under_way.values():
            self._cut(text)

    def _cut(self, text: _Text) -> None:
        while self._longest and text.known is None and len(text.slots) >= self._longest:
            self._set_aside(text, self._longest)

    def _set_aside(self, text: _Text, count: int) -> None:
        """Of a text, the next `count` tokens as a piece."""
        slots, text.slots = text.slots[:count], text.slots[count:]
        row = text.number
        if self._longest and text.known is None:
            row = (row << _PIECES) + text.pieces
        self._pieces[row] = Piece(row, text.document, text.before, slots, text.known)
        self.ended += count
        text.pieces, text.before = text.pieces + 1, text.before + count

    def take(self) -> dict[int, Piece]:
        """The pieces that have ended since this was last asked, by row number."""
        pieces, self._pieces, self.ended = self._pieces, {}, 0
        return pieces


def counting(pieces: Sequence[Piece], tokens: Tensor, real: Tensor, special: Tensor) -> Tensor:
    """bool [pieces, position], True where a token counts.

    Args:
        pieces: laid side by side.
        tokens: int64 [pieces, position], their ids.
        real: bool [pieces, position], False behind the end of a piece.
        special: ids that do not count in texts of which nothing else is known.
    """
    found = real.clone()
    usual = ~torch.isin(tokens, special)
    for line, (piece, mask) in enumerate(zip(pieces, found, strict=True)):
        if piece.known is None:
            mask &= usual[line]
            continue
        for position in piece.known.left_out:
            if 0 <= position - piece.first < len(mask):
                mask[position - piece.first] = False
    return found
