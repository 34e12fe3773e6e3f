"""Chromium as the tests start it."""

from __future__ import annotations

import os
import shutil

from playwright.sync_api import Browser, Playwright

# Root may not use the sandbox, and nothing may leave this machine.
FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip


def launch(playwright: Playwright) -> Browser:
    """The browser of `$AEGIS_CHROMIUM`, else the one on the path."""
    program = os.environ.get("AEGIS_CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
    assert program, "no chromium; `python3 tests/install.py` installs it on Debian"
    return playwright.chromium.launch(executable_path=program, args=FLAGS)
