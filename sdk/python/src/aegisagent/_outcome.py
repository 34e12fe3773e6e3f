"""What is said of a result: its digest and size, never the result."""

from __future__ import annotations

import hashlib
from typing import Any

from ._canon import CanonError, canonicalize, sha256_hex

Digest = tuple[str, int]
"""Lowercase hex SHA-256 and bytes."""


def digest_of(result: Any) -> Digest | None:
    """Of the canonical bytes; `None` where there are none."""
    try:
        raw = canonicalize(result)
    except (CanonError, RuntimeError):
        return None
    return sha256_hex(raw), len(raw)


class StreamDigest:
    """Over each item's canonical bytes and a line feed."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()
        self._bytes = 0
        self._whole = True

    def add(self, item: Any) -> None:
        """The next item. One without canonical form spoils the digest."""
        if not self._whole:
            return
        try:
            raw = canonicalize(item) + b"\n"
        except (CanonError, RuntimeError):
            self._whole = False
            return
        self._hash.update(raw)
        self._bytes += len(raw)

    def result(self) -> Digest | None:
        """The digest of a stream that came to its end."""
        return (self._hash.hexdigest(), self._bytes) if self._whole else None
