"""Clients under `aegis run` that need more than the variables everybody reads: Java, git's helpers, AWS, Stripe."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from conftest import CANARY
from harness import environment
from harness.gateway import Credential, Gateway, Route
from harness.run import Runner
from upstreams.strict_origin import StrictOrigin

pytestmark = pytest.mark.binary

JAVA = """
import java.net.*;
public class Get {
    public static void main(String[] words) throws Exception {
        var connection = (HttpURLConnection) new URL(words[0]).openConnection();
        connection.setRequestProperty("Authorization", "Bearer " + System.getenv("GITHUB_TOKEN"));
        System.out.println(connection.getResponseCode());
    }
}
"""


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory, one_origin: StrictOrigin) -> Iterator[Gateway]:
    """Two hosts: one asks its clients as a proxy does, the other as the API would."""
    routes = [
        Route("asks", one_origin.url, hosts=["asks.github.test"]),
        Route("inner", one_origin.url, hosts=["inner.github.test"], more={"proxy_auth": "inner"}),
    ]
    with Gateway(tmp_path_factory.mktemp("clients"), routes, [Credential(CANARY)]) as running:
        yield running


@pytest.fixture()
def run(hub: Gateway, tmp_path: Path, origin: StrictOrigin) -> Runner:
    return Runner(hub, tmp_path)


@pytest.mark.parametrize("isolate", [(), ("--isolate",)], ids=["plain", "isolated"])
@pytest.mark.parametrize("version", ["--http1.1", "--http2"])
def test_curl_needs_nothing_but_the_url(run: Runner, isolate: tuple[str, ...], version: str) -> None:
    show = ("-o", "/dev/null", "-w", "%{http_code} %{http_version} %{ssl_verify_result}")
    done = run(*isolate, "--", environment.tool("curl"), "-sS", version, *show, "https://asks.github.test/user")
    number = version.removeprefix("--http").removesuffix(".0")
    assert done.stdout == f"200 {number} 0", done.stderr


def test_a_host_that_is_not_routed_is_refused(run: Runner) -> None:
    done = run("--", environment.tool("curl"), "-sS", "https://elsewhere.test/")
    assert done.returncode == 56 and "403" in done.stderr


def test_loopback_is_the_commands_own(run: Runner) -> None:
    """A command's own server on this machine is not the gateway's business."""
    script = """
        python3 -m http.server --bind 127.0.0.1 0 > log 2>&1 & server=$!
        while ! port=$(grep -o 'port [0-9]*' log); do sleep 0.05; done
        curl -sS -o /dev/null -w '%{http_code}' "http://127.0.0.1:${port#port }/"; kill $server
    """
    for isolate in ((), ("--isolate",)):
        done = run(*isolate, "--", "sh", "-c", script)
        assert done.stdout == "200", done.stderr


@pytest.mark.skipif(shutil.which("java") is None, reason="no Java on this machine")
def test_java_trusts_the_gateway(run: Runner, tmp_path: Path) -> None:
    source = tmp_path / "Get.java"
    source.write_text(JAVA)
    done = run("--", "java", str(source), "https://inner.github.test/user", timeout=120)
    assert done.stdout == "200\n", done.stderr
    token_like = "aegis_agt_"
    assert "JAVA_TOOL_OPTIONS" in done.stderr and token_like not in done.stderr


@pytest.mark.skipif(shutil.which("keytool") is None, reason="no Java on this machine")
def test_the_key_store_is_whole(run: Runner) -> None:
    """keytool checks the digest; every root of the bundle is in it."""
    script = """
        store=$(echo "$JAVA_TOOL_OPTIONS" | grep -o "trustStore='[^']*'" | cut -d"'" -f2)
        JAVA_TOOL_OPTIONS= keytool -list -keystore "$store" -storepass changeit | grep -c trustedCertEntry
        grep -c BEGIN.CERTIFICATE "$SSL_CERT_FILE"
    """
    done = run("--", "sh", "-c", script)
    entries, roots = done.stdout.split()
    assert entries == roots, done.stderr


def test_git_asks_nobody_else_for_a_credential(run: Runner) -> None:
    """Helpers in files have real credentials to give; the empty helper forgets them, also those for one host."""
    (run.home / ".gitconfig").write_text(
        '[credential]\n\thelper = "!echo password=ghp_real #"\n'
        '[credential "https://github.com"]\n\thelper = "!echo password=ghp_real #"\n'
        "[http]\n\tproxy = http://192.0.2.1:1\n"
    )
    script = "printf 'protocol=https\\nhost=github.com\\n\\n' | git credential fill; git config http.proxy"
    done = run("--", "sh", "-c", script + '; echo "$AEGIS_AGENT_TOKEN"')
    *lines, proxy, token = done.stdout.splitlines()
    assert f"password={token}" in lines and "username=aegis" in lines, done.stderr
    assert "ghp_real" not in done.stdout + done.stderr
    assert token in proxy
    assert (run.home / ".gitconfig").read_text().count("helper") == 2, "no file was touched"


def test_the_token_is_found_in_the_shapes_that_clients_insist_on(run: Runner) -> None:
    """As Stripe's clients send a key, and as AWS's send an access key id; to the API, not to the proxy."""
    curl = environment.tool("curl") + ' -sS -o /dev/null -w "%{http_code} " --proxy "$AEGIS_URL" '
    url = "https://inner.github.test/user"
    script = f"""
        {curl} -H "Authorization: Bearer $STRIPE_API_KEY" {url}
        {curl} -u "$STRIPE_API_KEY:" {url}
        {curl} --aws-sigv4 aws:amz:us-east-1:s3 -u "$AWS_ACCESS_KEY_ID:$AWS_SECRET_ACCESS_KEY" {url}
        {curl} -H "Authorization: Bearer sk_test_real" {url}
        {curl} --aws-sigv4 aws:amz:us-east-1:s3 -u "AKIAREAL:secret" {url}
    """
    assert run("--", "sh", "-c", script).stdout.split() == ["200", "200", "200", "401", "401"]


def test_the_credential_reaches_the_origin_and_not_the_command(run: Runner, origin: StrictOrigin) -> None:
    before = origin.mark()
    script = f'{environment.tool("curl")} -sS https://asks.github.test/user; env; cat /proc/self/environ'
    done = run("--isolate", "--", "sh", "-c", script)
    assert CANARY not in done.stdout + done.stderr
    sent = origin.since(before)[1]
    assert [r.all("authorization")[0] for r in sent] == [f"Bearer {CANARY}"]


def test_a_command_finds_what_it_would_find_otherwise(run: Runner) -> None:
    """Apart from what docs/run.md lists, the environment is the caller's."""
    done = run("--", "env", "-0")
    found = dict(pair.split("=", 1) for pair in done.stdout.split("\0") if pair)
    for name in ("PATH", "HOME", "TMPDIR", "PYTHONUNBUFFERED"):
        assert found[name] == run.env[name]
    plain = subprocess.run(["env", "-0"], env=run.env, capture_output=True, text=True, check=True)
    assert {pair.split("=", 1)[0] for pair in plain.stdout.split("\0") if pair} - set(found) <= {
        "AWS_SESSION_TOKEN", "DATABASE_PASSWORD", "LINEAR_API_KEY", "SSH_AUTH_SOCK", "SSL_CERT_DIR",
        *(name for name in os.environ if name.upper().endswith(("TOKEN", "SECRET", "PASSWORD", "KEY"))),
    }  # fmt: skip
