"""Looks for a secret in every form in which it could leak."""

from __future__ import annotations

import base64
import gzip
import urllib.parse
import zlib
from collections.abc import Iterable
from pathlib import Path


def forms(secret: str) -> dict[str, bytes]:
    """The byte strings that would give `secret` away, by name.

    Base64 depends on where the secret starts in what was encoded, so there is one
    form for each of the three alignments, without the characters its neighbours share.
    """
    raw = secret.encode()
    found = {
        "raw": raw,
        "reversed": raw[::-1],
        "hex": raw.hex().encode(),
        "hex upper": raw.hex().upper().encode(),
        "url": urllib.parse.quote(secret, safe="").encode(),
        "url all": "".join(f"%{byte:02x}" for byte in raw).encode(),
        "url all upper": "".join(f"%{byte:02X}" for byte in raw).encode(),
        "json escapes": "".join(f"\\u{byte:04x}" for byte in raw).encode(),
    }
    for shift in range(3):
        core = core_of_base64(raw, shift)
        found[f"base64 +{shift}"] = core
        found[f"base64url +{shift}"] = core.translate(bytes.maketrans(b"+/", b"-_"))
    return found


def core_of_base64(raw: bytes, shift: int) -> bytes:
    """What of `raw` survives in base64 whatever stands before (mod 3) and after it."""
    encoded = base64.b64encode(b"\0" * shift + raw)
    start = {0: 0, 1: 2, 2: 3}[shift]
    whole = (shift + len(raw)) * 8 // 6
    return encoded[start:whole]


def find(data: bytes, secrets: Iterable[str]) -> list[str]:
    """Names of the forms that occur in `data`, also inside gzip and deflate streams in it."""
    hits = []
    for body in [data, *unpacked(data)]:
        for number, secret in enumerate(secrets):
            hits += [f"secret {number} as {name}" for name, form in forms(secret).items() if form in body]
    return hits


def unpacked(data: bytes) -> list[bytes]:
    """Compressed content, where the bytes start like it or hold a gzip member."""
    found = []
    start = data.find(b"\x1f\x8b\x08")
    while start >= 0:
        try:
            found.append(gzip.decompress(data[start:]))
        except (OSError, EOFError, zlib.error):
            try:
                found.append(zlib.decompressobj(31).decompress(data[start:]))
            except zlib.error:
                pass
        start = data.find(b"\x1f\x8b\x08", start + 1)
    try:
        found.append(zlib.decompressobj().decompress(data))
    except zlib.error:
        pass
    return found


def scan_folder(folder: Path, secrets: Iterable[str], skip: Iterable[Path] = ()) -> list[str]:
    """Every file below `folder`: path and form of each hit."""
    secrets, skipped = list(secrets), {path.resolve() for path in skip}
    hits = []
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.resolve() not in skipped:
            hits += [f"{path.relative_to(folder)}: {hit}" for hit in find(path.read_bytes(), secrets)]
    return hits
