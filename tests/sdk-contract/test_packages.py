"""What is published can be installed into an empty project, and the README's lines run there."""

from __future__ import annotations

import json
import shutil
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import packages
import sdks
from casefile import TOKEN
from harness import environment, receipts
from played import Scripted
from tampering import DIRECTORIES, Log
from test_verifiers import comparable, logged  # noqa: F401  a fixture

WHO = {"python": "aegisagent", "typescript": "@aegisagent/sdk", "go": packages.GO_MODULE}


@pytest.fixture()
def gateway() -> Iterator[Any]:
    """A gateway that allows everything, and what it was asked."""
    process = Scripted()
    opened = process.order(op="open", token=TOKEN, script={}, tls=None)
    yield f"http://127.0.0.1:{opened['port']}"
    log = process.order(op="close", port=opened["port"])["log"]
    process.process.kill()
    assert [entry["step"] for entry in log if entry["faults"] or entry["step"] in ("unknown", "elsewhere")] == []
    assert any(entry["step"] == "authorize" for entry in log) and any(entry["step"] == "outcome" for entry in log)


@pytest.fixture(scope="module")
def python_packages(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return packages.wheel_and_sdist(tmp_path_factory.mktemp("python"))


@pytest.fixture(scope="module")
def python_home(tmp_path_factory: pytest.TempPathFactory, python_packages: tuple[Path, Path]) -> Path:
    folder = tmp_path_factory.mktemp("python-project")
    packages.python_project(folder, python_packages[0])
    return folder


@pytest.fixture(scope="module")
def node_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("node")
    return packages.node_project(folder / "project", packages.tarball(folder))


@pytest.fixture(scope="module")
def go_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("go")
    env = packages.go_surroundings(folder, packages.go_proxy(folder))
    project = folder / "project"
    project.mkdir()
    packages.run("go", "mod", "init", "example.test/empty", cwd=project, env=env)
    packages.run("go", "get", f"{packages.GO_MODULE}@v0.1.0", cwd=project, env=env)
    (project / "env.json").write_text(json.dumps(env))
    return project


def go_env(project: Path) -> dict[str, str]:
    return dict(json.loads((project / "env.json").read_text()))


class TestPython:
    """The wheel, and the source distribution it can be made from."""

    def test_the_wheel_holds_the_package_and_its_types(self, python_packages: tuple[Path, Path]) -> None:
        names = zipfile.ZipFile(python_packages[0]).namelist()
        assert "aegisagent/py.typed" in names and "aegisagent/__init__.py" in names
        assert not [name for name in names if "test" in name.lower()]
        with tarfile.open(python_packages[1]) as archive:
            assert [name for name in archive.getnames() if name.endswith("/pyproject.toml")]

    def test_the_wheel_asks_for_little(self, python_packages: tuple[Path, Path]) -> None:
        archive = zipfile.ZipFile(python_packages[0])
        metadata = archive.read(next(n for n in archive.namelist() if n.endswith("/METADATA"))).decode()
        needed = [line for line in metadata.splitlines() if line.startswith("Requires-Dist") and "extra" not in line]
        assert len(needed) <= 4, needed
        assert "Requires-Python: >=3.9" in metadata

    def test_the_readme_runs(self, python_home: Path, gateway: str) -> None:
        readme = (sdks.SDK / "python" / "README.md").read_text().partition("\n## Frameworks")[0]
        (python_home / "README.md").write_text(readme)
        code = "\n".join(packages.blocks(python_home / "README.md", "python"))
        program = python_home / "program.py"
        program.write_text(packages.pointed(code, gateway))
        said = packages.run(
            python_home / "venv" / "bin" / "python", program, cwd=python_home, env=packages.told(gateway)
        )
        assert "merged octo/payments#482" in said

    def test_the_source_distribution_makes_the_same_wheel(
        self, python_packages: tuple[Path, Path], tmp_path: Path
    ) -> None:
        with tarfile.open(python_packages[1]) as archive:
            archive.extractall(tmp_path, filter="data")
        source = next(tmp_path.iterdir())
        packages.run(
            packages.sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", tmp_path / "out", cwd=source
        )
        again = next((tmp_path / "out").glob("*.whl"))
        assert zipfile.ZipFile(again).namelist() == zipfile.ZipFile(python_packages[0]).namelist()

    def test_the_adapters_are_left_out_until_asked_for(self, python_home: Path) -> None:
        python = python_home / "venv" / "bin" / "python"
        code = "import sys, aegisagent; print([n for n in ('langchain_core', 'mcp', 'agents') if n in sys.modules])"
        assert packages.run(python, "-c", code, cwd=python_home).strip() == "[]"


class TestTypeScript:
    """The packed tarball."""

    def test_it_brings_nothing_else(self, node_home: Path) -> None:
        installed = sorted(
            path.name for path in (node_home / "node_modules").iterdir() if not path.name.startswith(".")
        )
        assert installed == ["@aegisagent"]
        package = node_home / "node_modules" / "@aegisagent" / "sdk"
        assert (package / "dist" / "index.d.ts").is_file() and (package / "README.md").is_file()
        assert not (package / "src").exists() and not (package / "test").exists()

    def test_the_readme_runs(self, node_home: Path, gateway: str) -> None:
        readme = sdks.SDK / "typescript" / "README.md"
        code = "\n".join(packages.blocks(readme, "js"))
        program = node_home / "program.mjs"
        program.write_text(packages.pointed(code, gateway))
        said = packages.run(sdks.node(), program, cwd=node_home, env=packages.told(gateway))
        assert "merged octo/payments#482" in said

    def test_the_types_hold(self, node_home: Path) -> None:
        (node_home / "typed.ts").write_text(TYPED)
        words = ["--noEmit", "--strict", "--module", "nodenext", "--target", "es2022", "--skipLibCheck", "false"]
        types = ["--types", "node", "--typeRoots", sdks.SDK / "typescript" / "node_modules" / "@types"]
        packages.run(sdks.node(), packages.typescript_compiler(), *words, *types, "typed.ts", cwd=node_home)

    def test_the_types_refuse_what_does_not_fit(self, node_home: Path) -> None:
        wrong = TYPED.replace("pr_number: 482 }", 'pr_number: "482" }')
        assert wrong != TYPED
        (node_home / "wrong.ts").write_text(wrong)
        words = ["--noEmit", "--strict", "--module", "nodenext", "--target", "es2022", "--skipLibCheck"]
        types = ["--types", "node", "--typeRoots", sdks.SDK / "typescript" / "node_modules" / "@types"]
        told = packages.run(
            sdks.node(), packages.typescript_compiler(), *words, *types, "wrong.ts", cwd=node_home, code=2
        )
        assert "pr_number" in told or "not assignable" in told


TYPED = """
import { AegisClient, AegisError, protectTool } from "@aegisagent/sdk";
const aegis = new AegisClient({ gatewayUrl: "https://gateway.example", agentToken: "aegis_agt_x" });
const merge = protectTool(
  { client: aegis, tool: "github", action: "merge_pull_request", risk: "high" },
  async ({ repo, pr_number }: { repo: string; pr_number: number }): Promise<string> => `${repo}#${pr_number}`,
);
const merged: Promise<string> = merge({ repo: "octo/payments", pr_number: 482 });
merged.catch((e: unknown) => { if (e instanceof AegisError) { const code: string = e.code; console.log(code); } });
"""


class TestGo:
    """The module, from a proxy made of files."""

    def test_it_needs_nothing_else(self, go_home: Path) -> None:
        listed = packages.run("go", "list", "-m", "all", cwd=go_home, env=go_env(go_home))
        assert listed.split("\n")[1:2] == [f"{packages.GO_MODULE} v0.1.0"] and len(listed.strip().split("\n")) == 2

    def test_the_readme_runs(self, go_home: Path, gateway: str) -> None:
        readme = sdks.SDK / "go" / "README.md"
        code = next(block for block in packages.blocks(readme, "go") if "package main" in block)
        (go_home / "main.go").write_text(packages.pointed(code, gateway))
        packages.run("go", "vet", ".", cwd=go_home, env=go_env(go_home))
        said = packages.run("go", "run", ".", cwd=go_home, env={**go_env(go_home), **packages.told(gateway)})
        assert "merged octo/payments#482" in said


@pytest.fixture(scope="module")
def programs(python_home: Path, node_home: Path, go_home: Path) -> dict[str, Path]:
    """`aegis-verify-receipts` as each package installs it."""
    env = go_env(go_home)
    packages.run("go", "install", f"{packages.GO_MODULE}/cmd/aegis-verify-receipts@v0.1.0", cwd=go_home, env=env)
    return {
        "python": python_home / "venv" / "bin" / "aegis-verify-receipts",
        "typescript": node_home / "node_modules" / ".bin" / "aegis-verify-receipts",
        "go": Path(env["GOBIN"]) / "aegis-verify-receipts",
    }


@pytest.mark.binary
@pytest.mark.parametrize("way", ["intact", "a leaf rewritten", "no head", "a torn record behind the head"])
@pytest.mark.parametrize("sdk", WHO)
def test_the_installed_verifier(
    sdk: str,
    way: str,
    programs: dict[str, Path],
    logged: tuple[Path, str],
    tmp_path: Path,  # noqa: F811
) -> None:
    folder = Path(shutil.copytree(logged[0], tmp_path / "receipts"))
    DIRECTORIES[way](Log(folder))
    wanted = receipts.verify(folder, "--json")
    env = packages.sdk_builds.on_path(environment.cache_folder())
    said = packages.run(programs[sdk], "--json", folder, cwd=tmp_path, env=env, code=wanted.returncode)
    assert comparable(json.loads(said)) == comparable(json.loads(wanted.stdout))
    plain = packages.run(programs[sdk], folder, cwd=tmp_path, env=env, code=wanted.returncode)
    assert plain.startswith(("verified: ", "TAMPERED at leaf 4 ", "unreadable: ")[wanted.returncode])
    assert wanted.returncode == 2 or plain == receipts.verify(folder).stdout
    assert packages.run(programs[sdk], cwd=tmp_path, env=env, code=2) == ""
