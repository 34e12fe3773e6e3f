"""`aegis-verify-receipts`."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from .._version import VERSION
from . import Progress, verify_path

LARGE = 32 * 1024 * 1024
"""Bytes from which on waiting is worth a progress line."""


def main() -> None:
    """Prints the report; the exit status is the verdict."""
    parser = argparse.ArgumentParser(
        prog="aegis-verify-receipts",
        description="Verifies a receipt log directory or an exported bundle.",
        epilog="Exit status: 0 verified, 1 tampered (says which leaf and why), 2 unreadable.",
    )
    parser.add_argument(
        "path", type=Path, help="directory of a log (with `segments` and `head` in it), or a bundle file"
    )
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    parser.add_argument("--version", action="version", version=f"aegis-verify-receipts {VERSION}")
    args = parser.parse_args()
    report = verify_path(args.path, _show if sys.stderr.isatty() else None)
    text = json.dumps(report.as_json(), indent=2, ensure_ascii=False) + "\n" if args.json else str(report)
    try:
        sys.stdout.buffer.write(text.encode("utf-8", "replace"))
        sys.stdout.flush()
    except OSError:
        # The exit status is the answer, also where nobody reads the text.
        sys.stderr.close()
    sys.exit(report.exit_code)


def _show(progress: Progress) -> None:
    if progress.total_bytes > LARGE:
        percent = progress.bytes * 100 // max(progress.total_bytes, 1)
        end = "\n" if progress.bytes == progress.total_bytes else ""
        sys.stderr.write(f"\r{percent:3}%  {progress.leaves} leaves{end}")
        sys.stderr.flush()


if __name__ == "__main__":
    main()
