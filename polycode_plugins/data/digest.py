"""What a run read, as one number that any later run can compare with its own."""

from __future__ import annotations

import hashlib


class ContentDigest:
    """SHA-256 over a sequence of byte strings, their order and their boundaries included."""

    def __init__(self) -> None:
        self._sha = hashlib.sha256()

    def add(self, content: bytes) -> None:
        """Append one document or image."""
        self._sha.update(len(content).to_bytes(8, "big"))
        self._sha.update(content)

    def hexdigest(self) -> str:
        """The digest of everything added so far, 64 hexadecimal digits."""
        return self._sha.hexdigest()
