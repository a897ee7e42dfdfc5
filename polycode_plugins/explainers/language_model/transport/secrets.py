"""A key is nowhere but in the header it is sent in: what a server says is cleared of it.

Servers and gateways repeat keys: whole, with their middle masked, percent-encoded, in base64, or
cut. A part of eight characters is taken for the key; so is what stands around a mask, where it is
how the key begins and ends.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import quote

SHOWN = "[key removed]"
_PART = 8  # characters of a key that are taken for it
_SHORT = 12  # below this a key is looked for as a whole: "EMPTY" and "token" are words
_MASK = re.compile(r"[*•●…·█]+|\.{3,}|x{3,}|X{3,}|#{3,}|\[?(?:redacted|REDACTED|hidden)\]?")
_HALF = re.compile("[\ud800-\udfff]")
_LOOKS = re.compile(
    r"sk[-_][\w-]{8,}|(?:gsk|hf|pk|rk|ghp|xai|pplx|nvapi|AIza|eyJ|r8|fw|csk)[-_]?[\w-]{16,}"
)


class Secret:
    """One key, and how to clear texts of it; an empty one clears nothing."""

    def __init__(self, key: str) -> None:
        self._key = key
        self._forms: list[tuple[str, int]] = []  # (as it may be written, characters that betray it)
        if len(key) >= _SHORT:
            every = "".join(f"%{byte:02x}" for byte in key.encode())
            coded = base64.b64encode(key.encode()).decode().rstrip("=")
            forms = {key: _PART, quote(key, safe=""): _PART, every: 3 * _PART}
            forms |= {coded: 12, key[::-1]: 12, key.encode().hex(): 2 * _PART}
            self._forms = [(form.lower(), n) for form, n in forms.items()]
        # Any text with a part of the key holds one of these whole.
        self._traces = {
            form[i : i + n - n // 2 + 1]
            for form, n in self._forms
            for i in range(0, len(form), n // 2)
            if len(form) - i >= n - n // 2 + 1
        }
        self._ends = {key[:3].lower(), key[-3:].lower()} if self._forms else set()

    def __repr__(self) -> str:
        return "Secret()"

    def within(self, text: str) -> bool:
        """Whether a part of the key is in the text."""
        return self.clean(text) != text

    def clean(self, text: str) -> str:
        """The text with `SHOWN` in place of the key and its parts."""
        if not self._key:
            return text
        if not self._forms:
            alone = rf"(?<!\w){re.escape(self._key)}(?!\w)"
            return re.sub(alone, SHOWN, text) if re.search(r"\d", self._key) else text
        low = text.lower()
        if any(trace in low for trace in self._traces):
            for form, least in self._forms:
                text = _without(text, form, least)
            low = text.lower()
        if any(end in low for end in self._ends) and _MASK.search(text):
            text = self._unmasked(text)
        return text

    def clean_all(self, value: Any) -> Any:
        """A JSON value whose strings are clean, keys of objects too."""
        if isinstance(value, str):
            return self.clean(value)
        if isinstance(value, Mapping):
            return {self.clean(str(k)): self.clean_all(v) for k, v in value.items()}
        if isinstance(value, list):
            return [self.clean_all(v) for v in value]
        return value

    def suspects(self, body: str) -> bool:
        """Whether a body of JSON may hold the key, so that its strings are worth a look."""
        if not self._key:
            return False
        low = body.lower()
        if not self._forms:
            return self._key.lower() in low
        if "\\u00" in low or any(trace in low for trace in self._traces):
            return True
        return any(end in low for end in self._ends) and _MASK.search(body) is not None

    def _unmasked(self, text: str) -> str:
        parts, end = [], 0
        for mask in _MASK.finditer(text):
            before, after = text[end : mask.start()], text[mask.end() :]
            head, tail = _overlap(before, self._key), _overlap(after[::-1], self._key[::-1])
            if max(head, tail) >= 3 or min(head, tail) >= 2:
                parts += [before[: len(before) - head], SHOWN]
                end = mask.end() + tail
            else:
                parts += [before, mask.group()]
                end = mask.end()
        return "".join([*parts, text[end:]])


def _overlap(text: str, key: str) -> int:
    """How many characters that `text` ends with are those that `key` begins with."""
    low, most = text.lower(), min(len(text), len(key) - 1)
    return next((n for n in range(most, 0, -1) if low.endswith(key[:n].lower())), 0)


def _without(text: str, form: str, least: int) -> str:
    """The text without any run of at least `least` characters of `form`."""
    runs = {form[i : i + least] for i in range(max(1, len(form) - least + 1))}
    low, parts, end, i = text.lower(), [], 0, 0
    while i + min(least, len(form)) <= len(low):
        if low[i : i + least] in runs:
            stop = i + least
            while stop < len(low) and low[stop - least + 1 : stop + 1] in runs:
                stop += 1
            parts += [text[end:i], SHOWN]
            i = end = stop
        else:
            i += 1
    return "".join([*parts, text[end:]])


def keys_in(path: str, key: str) -> bool:
    """Whether a part of a URL's path is, or looks like, a key."""
    if key and Secret(key).within(path):
        return True
    return any(_LOOKS.search(part) or _drawn(part) for part in path.split("/"))


def _drawn(part: str) -> bool:
    """Whether letters and digits look drawn at random; a hash or an account's number does not."""
    mixed = all(re.search(kind, part) for kind in ("[a-z]", "[A-Z]", "[0-9]"))
    return mixed and re.fullmatch(r"[\w-]{32,}", part) is not None


def harmless(value: Any) -> Any:
    """A JSON value whose strings can be written: halves of characters become U+FFFD."""
    if isinstance(value, str):
        if not _HALF.search(value):
            return value
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, Mapping):
        return {harmless(str(k)): harmless(v) for k, v in value.items()}
    if isinstance(value, list):
        return [harmless(v) for v in value]
    return value


def one_line(text: str, most: int = 300) -> str:
    """A foreign text on one line, without tags, at most so long."""
    plain = re.sub(r"<(script|style)\b.*?</\1>|<[^<>]{1,300}>", " ", text, flags=re.S | re.I)
    return " ".join(str(harmless(plain)).split())[:most]


def joined(texts: Iterable[str]) -> str:
    """Texts that are not empty, separated by "; "."""
    return "; ".join(dict.fromkeys(text for text in texts if text))
