"""Tokens as strings: one for each id, so that token and activation belong together by index."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

_REPLACEMENT = "\ufffd"


class TokenStrings:
    """The strings of a tokenizer's ids, each decoded once.

    Tokens are decoded one by one, never by splitting a text. A token that is part of a character
    is written as its bytes (`\\xe2\\x80`), so that two such tokens stay two. Without a tokenizer
    the strings are "token 17".
    """

    def __init__(self, tokenizer: Any = None) -> None:
        self._tokenizer = tokenizer
        self._known: dict[int, str] = {}

    def __call__(self, ids: Sequence[int]) -> tuple[str, ...]:
        """One string for each id."""
        for token in set(ids) - self._known.keys():
            self._known[token] = self._decode(token)
        return tuple(self._known[token] for token in ids)

    def _decode(self, token: int) -> str:
        if self._tokenizer is None:
            return f"token {token}"
        text = str(self._tokenizer.decode([token]))
        if _REPLACEMENT not in text:
            return text
        piece = getattr(self._tokenizer, "convert_ids_to_tokens", lambda t: None)(token)
        if not isinstance(piece, str) or not all(c in _BYTES for c in piece):
            return text
        return bytes(_BYTES[c] for c in piece).decode("utf-8", "backslashreplace")


def _byte_characters() -> dict[str, int]:
    """The characters by which byte-level tokenizers (GPT-2's relatives) write bytes."""
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [b for b in range(256) if b not in plain]
    return {chr(b): b for b in plain} | {chr(256 + i): b for i, b in enumerate(others)}


_BYTES = _byte_characters()
