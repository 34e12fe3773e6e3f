"""Verifies a receipt log or an exported bundle, offline: no network, no database, no gateway."""

from __future__ import annotations

from pathlib import Path
from typing import Callable

from ._bundle import verify_bundle
from ._dir import Progress, verify_dir
from ._report import Report, Unreadable

__all__ = ["Progress", "Report", "verify_bundle", "verify_dir", "verify_path"]


def verify_path(path: Path, progress: Callable[[Progress], None] | None = None) -> Report:
    """Verifies a log directory or a bundle file, whichever is there."""
    if path.is_dir():
        return verify_dir(path, progress)
    try:
        raw = path.read_bytes()
    except OSError as error:
        return Report().fail(Unreadable.io(f"`{path}`", error))
    return verify_bundle(raw)
