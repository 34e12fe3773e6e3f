"""Packages as users get them: built from copies of the sources, installed into empty projects."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import sdk_builds
import sdks
from casefile import TOKEN
from harness import environment

GO_MODULE = "github.com/aegisagent/aegis/sdk/go"
SECONDS = 300


def run(*words: object, cwd: Path, env: dict[str, str] | None = None, code: int = 0) -> str:
    """What it writes to stdout. Another exit code than `code` is a failure that shows everything."""
    command = [str(word) for word in words]
    surroundings = {**environment.clean(env), "PYTHONPATH": ""}
    done = subprocess.run(command, cwd=cwd, env=surroundings, capture_output=True, text=True, timeout=SECONDS)
    assert done.returncode == code, f"{' '.join(command)}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def sources(name: str, folder: Path) -> Path:
    """A copy, so that no build leaves anything among the sources."""
    ignored = shutil.ignore_patterns(*(sdk_builds.SKIPPED - {"dist"}), ".*")
    return Path(shutil.copytree(sdks.SDK / name, folder / name, ignore=ignored))


def blocks(readme: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", readme.read_text(), re.MULTILINE | re.DOTALL)


def pointed(code: str, url: str) -> str:
    """The README's lines with a gateway that exists, where they name one."""
    code = re.sub(r"https?://[A-Za-z0-9.\-]+(:\d+)?(?=[\"'])", url, code)
    return code.replace("aegis_agt_…", TOKEN)


def told(url: str) -> dict[str, str]:
    """What a README's lines take from the environment."""
    return {"AEGIS_GATEWAY_URL": url, "AEGIS_AGENT_TOKEN": TOKEN}


# Python.


def wheel_and_sdist(folder: Path) -> tuple[Path, Path]:
    source, out = sources("python", folder), folder / "dist"
    run(sys.executable, "-m", "hatchling", "build", "-d", out, cwd=source)
    return next(out.glob("*.whl")), next(out.glob("*.tar.gz"))


def python_project(folder: Path, package: Path) -> Path:
    """An interpreter that has the package, what it needs, and nothing else; nothing is fetched."""
    venv.create(folder / "venv", with_pip=True, symlinks=True)
    python = folder / "venv" / "bin" / "python"
    wheels = environment.cache_folder() / "sdk" / "wheels"
    run(python, "-m", "pip", "install", "-q", "--no-index", "--find-links", wheels, package, cwd=folder)
    return python


# TypeScript.


def npm(folder: Path, *words: object) -> str:
    # A machine may send npm elsewhere, or have a cache that nobody may write.
    env = {**sdk_builds.on_path(environment.cache_folder()), "npm_config_cache": str(folder / ".npm")}
    return run("npm", *words, cwd=folder, env={**env, "npm_config_update_notifier": "false"})


def tarball(folder: Path) -> Path:
    source = sources("typescript", folder)
    # `dist` was built by install.py, and building it again takes what is installed there.
    npm(source, "pack", "--silent", "--ignore-scripts", "--pack-destination", folder)
    return next(folder.glob("*.tgz"))


def node_project(folder: Path, package: Path) -> Path:
    folder.mkdir()
    (folder / "package.json").write_text('{"name":"empty","version":"1.0.0","private":true}')
    npm(folder, "install", "--offline", "--ignore-scripts", "--no-audit", "--no-fund", package)
    return folder


def typescript_compiler() -> Path:
    return sdks.SDK / "typescript" / "node_modules" / "typescript" / "bin" / "tsc"


# Go.


def go_proxy(folder: Path, version: str = "v0.1.0") -> Path:
    """The module as a proxy's files, so that `go get` takes it as it would from anywhere."""
    source = sources("go", folder)
    place = folder / "proxy" / GO_MODULE / "@v"
    place.mkdir(parents=True)
    (place / "list").write_text(version + "\n")
    (place / f"{version}.info").write_text(f'{{"Version":"{version}","Time":"2026-01-01T00:00:00Z"}}')
    shutil.copy(source / "go.mod", place / f"{version}.mod")
    with zipfile.ZipFile(place / f"{version}.zip", "w") as archive:
        for path in sorted(each for each in source.rglob("*") if each.is_file()):
            archive.write(path, f"{GO_MODULE}@{version}/{path.relative_to(source)}")
    return folder / "proxy"


def go_surroundings(folder: Path, proxy: Path) -> dict[str, str]:
    return {
        "GOPROXY": f"file://{proxy}", "GOSUMDB": "off", "GOFLAGS": "-mod=mod -modcacherw -buildvcs=false",
        "GOMODCACHE": str(folder / "modules"), "GOBIN": str(folder / "bin"), "GOTOOLCHAIN": "local", "GOWORK": "off",
    }  # fmt: skip
