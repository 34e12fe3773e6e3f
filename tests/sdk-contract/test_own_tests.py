"""Each SDK's own tests pass, in copies of the sources, so that one command runs everything."""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path

import packages
import sdk_builds
import sdks
from harness import environment


def beside_the_vectors(name: str, folder: Path) -> Path:
    """The sources where tests find what they share: `../../tests/vectors` from the SDK's folder."""
    shutil.copytree(environment.TESTS / "vectors", folder / "tests" / "vectors")
    shutil.copytree(environment.ROOT / "docs", folder / "docs")
    return packages.sources(name, folder / "sdk")


def test_python(tmp_path: Path) -> None:
    source = beside_the_vectors("python", tmp_path)
    # Without the frameworks their adapters are left out: what is not there cannot be tested.
    words = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "tests"]
    # The packages themselves are the tests' own; only the SDK comes from the copy.
    said = packages.run(sys.executable, "-c", RUN.format(source=str(source / "src"), words=words), cwd=source)
    assert int(re.findall(r"(\d+) passed", said)[-1]) >= 50, said


RUN = "import os, sys; os.environ['PYTHONPATH'] = {source!r}; os.execv(sys.executable, [sys.executable, *{words}])"


def test_typescript(tmp_path: Path) -> None:
    source = beside_the_vectors("typescript", tmp_path)
    (source / "node_modules").symlink_to(sdks.SDK / "typescript" / "node_modules")
    said = packages.npm(source, "test")
    assert int(re.findall(r"^\S+ pass (\d+)", said, re.MULTILINE)[-1]) >= 50, said
    assert re.findall(r"^\S+ fail (\d+)", said, re.MULTILINE)[-1] == "0"


def test_go(tmp_path: Path) -> None:
    source = beside_the_vectors("go", tmp_path)
    packages.run("go", "vet", "./...", cwd=source, env=sdk_builds.GO)
    said = packages.run("go", "test", "-v", "./...", cwd=source, env=sdk_builds.GO)
    assert said.count("--- PASS") >= 50 and "--- FAIL" not in said
