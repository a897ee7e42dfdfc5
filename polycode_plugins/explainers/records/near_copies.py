"""Texts that are almost the same, told by the runs of tokens that they share."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

from polycode_plugins.explainers.base import Record

#: Tokens in a row that make a shingle (Broder 1997).
SHINGLE = 5
#: Share of the shingles of the shorter of two texts that make one a near copy of the other.
SHARED = 0.5


class NearCopies:
    """Texts that are kept, each unlike all before it.

    A text is a near copy of another where `SHARED` of the shingles of the one that has fewer are
    the other's too: so is a text within a longer one, and one that begins a few tokens later.
    """

    def __init__(self) -> None:
        self._sizes: list[int] = []
        self._holders: dict[tuple[str, ...], list[int]] = defaultdict(list)

    def keeps(self, tokens: Sequence[str]) -> bool:
        """Keep a text, unless it is a copy or a near copy of one that is kept."""
        n = min(SHINGLE, len(tokens))
        shingles = {tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1)}
        shared = Counter(i for s in shingles for i in self._holders.get(s, ()))
        for i, count in shared.items():
            if count >= SHARED * min(len(shingles), self._sizes[i]):
                return False
        for shingle in shingles:
            self._holders[shingle].append(len(self._sizes))
        self._sizes.append(len(shingles))
        return True

    def first(self, records: Iterable[Record], n: int) -> list[Record]:
        """The first `n` records whose texts are kept; fewer where there are no more."""
        kept: list[Record] = []
        if n:
            for record in records:
                if self.keeps(record.tokens):
                    kept.append(record)
                    if len(kept) == n:
                        break
        return kept
