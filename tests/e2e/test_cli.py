"""The command line, as a person and as a script use it."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from conftest import CANARY
from harness import canary, environment
from harness.gateway import Agent, Credential, Gateway, Route
from upstreams.strict_origin import StrictOrigin

pytestmark = pytest.mark.binary


def aegis(*words: object, folder: Path, ok: bool = True, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
    command = [environment.aegis(), *(str(word) for word in words)]
    extra = {"HOME": str(folder), "TMPDIR": str(folder)}
    done = subprocess.run(
        command, input=stdin, capture_output=True, text=True, timeout=120, cwd=folder, env=environment.clean(extra)
    )
    assert not ok or done.returncode == 0, f"aegis {words}: {done.returncode}\n{done.stdout}{done.stderr}"
    return done


def test_help_has_every_command_and_examples(tmp_path: Path) -> None:
    text = aegis("--help", folder=tmp_path).stdout
    for command in (
        "demo",
        "serve",
        "dev",
        "actions",
        "credential",
        "agent",
        "routes",
        "policy",
        "why",
        "receipts",
        "doctor",
    ):
        assert command in text
        assert aegis(command, "--help", folder=tmp_path).stdout.strip()
    assert aegis("nonsense", folder=tmp_path, ok=False).returncode == 2


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completions(shell: str, tmp_path: Path) -> None:
    assert "credential" in aegis("completions", shell, folder=tmp_path).stdout


def test_demo_shows_everything_and_leaves_nothing_behind(tmp_path: Path) -> None:
    done = aegis("demo", folder=tmp_path)
    for word in ("allow", "den", "approv", "revoked", "receipt"):
        assert word in done.stdout.lower(), word
    assert list(tmp_path.iterdir()) == [], "left behind"


def test_demo_for_machines(tmp_path: Path) -> None:
    done = aegis("demo", "--json", folder=tmp_path)
    values = (
        [json.loads(line) for line in done.stdout.splitlines() if line.strip()]
        if "\n{" in done.stdout.strip()
        else json.loads(done.stdout)
    )
    assert values


def test_actions(tmp_path: Path) -> None:
    count = json.loads(aegis("actions", "count", "--json", folder=tmp_path).stdout)
    assert "1223" in json.dumps(count)
    found = json.loads(aegis("actions", "search", "merge", "pull", "--json", folder=tmp_path).stdout)
    assert "merge_pull_request" in json.dumps(found)
    shown = json.dumps(
        json.loads(aegis("actions", "show", "github.merge_pull_request", "--json", folder=tmp_path).stdout)
    )
    for word in ("high", "write", "{owner}/{repo}#{pull_number}", "merge_method"):
        assert word in shown
    missing = aegis("actions", "show", "github.merge_pull_reqest", folder=tmp_path, ok=False)
    assert missing.returncode != 0 and "merge_pull_request" in missing.stdout + missing.stderr


def test_the_shipped_files_are_right(tmp_path: Path) -> None:
    root = environment.ROOT
    (tmp_path / "aegis.toml").write_text(f'[files]\nroutes = "{root}/routes.toml"\npolicies = "{root}/policies"\n')
    assert aegis("routes", "check", "--config", "aegis.toml", folder=tmp_path).returncode == 0
    assert aegis("policy", "check", "--config", "aegis.toml", folder=tmp_path).returncode == 0
    tested = aegis("policy", "test", "--config", "aegis.toml", "--json", folder=tmp_path)
    assert json.loads(tested.stdout)


def test_checks_name_file_and_line_of_every_error(tmp_path: Path) -> None:
    (tmp_path / "aegis.toml").write_text('[files]\nroutes = "routes.toml"\npolicies = "policies"\n')
    (tmp_path / "routes.toml").write_text(
        '[[route]]\nname = "github"\nconnector = "github"\nupstream = "http://example.test"\ncredential = "missing"\n'
        'colour = "red"\nhosts = ["Bad.Host."]\n'
    )
    (tmp_path / "policies").mkdir()
    (tmp_path / "policies" / "a.cedar").write_text(
        '@id("a")\npermit (\n  principal,\n  action == Action::"github.merge_pull_reqest",\n  resource\n);\n'
        '@id("b")\npermit (principal, action == Action::"github.create_issue", resource)\nwhen { context.parameters.titel == "x" };\n'
    )
    routes = aegis("routes", "check", "--config", "aegis.toml", folder=tmp_path, ok=False)
    said = routes.stdout + routes.stderr
    assert routes.returncode == 1
    for line in (4, 5, 6, 7):
        assert f"routes.toml:{line}" in said, said
    policy = aegis("policy", "check", "--config", "aegis.toml", folder=tmp_path, ok=False)
    said = policy.stdout + policy.stderr
    assert policy.returncode == 1
    assert "a.cedar:4" in said and "merge_pull_request" in said, said
    assert "a.cedar:9" in said and "did you mean `title`" in said, said


def test_a_failing_policy_case_fails_the_test(tmp_path: Path) -> None:
    root = environment.ROOT
    (tmp_path / "aegis.toml").write_text(f'[files]\nroutes = "{root}/routes.toml"\npolicies = "{root}/policies"\n')
    shipped = sorted((root / "policies" / "cases").glob("*.json"))[0]
    text = shipped.read_text().replace('"allow"', '"deny"')
    case = tmp_path / "case.json"
    case.write_text(text)
    done = aegis("policy", "test", case, "--config", "aegis.toml", folder=tmp_path, ok=False)
    assert done.returncode == 1, done.stdout


def test_unknown_settings_are_errors_all_at_once(tmp_path: Path) -> None:
    (tmp_path / "aegis.toml").write_text('[server]\nlisen = "127.0.0.1:0"\n[state]\ndir = 5\n[log]\nformat = "xml"\n')
    done = aegis("serve", "--config", "aegis.toml", folder=tmp_path, ok=False)
    assert done.returncode not in (0, 101)
    for line in (2, 4, 6):
        assert f"aegis.toml:{line}" in done.stderr, done.stderr


def test_an_admin_listener_stays_on_loopback(tmp_path: Path) -> None:
    (tmp_path / "aegis.toml").write_text('[server]\nlisten = "127.0.0.1:0"\nadmin_listen = "192.0.2.1:0"\n')
    done = aegis("serve", "--config", "aegis.toml", folder=tmp_path, ok=False)
    assert done.returncode not in (0, 101) and "loopback" in done.stderr


def test_agents_by_command(gateway: Gateway, origin: StrictOrigin) -> None:
    words = (
        "--key",
        "cli-agent",
        "--name",
        "From the CLI",
        "--team",
        "platform",
        "--email",
        "a@example.test",
        "--environment",
        "test",
    )
    made = json.loads(gateway.cli("agent", "add", *words, "--json").stdout)
    agent = Agent(made["agent_id"], made["agent_token"])
    assert gateway.call(agent, "GET", "/user").status_code == 200
    assert agent.agent_id in gateway.cli("agent", "list", "--json").stdout
    assert agent.token not in gateway.cli("agent", "list", "--json").stdout
    for verb, status in (("freeze", 403), ("unfreeze", 200), ("revoke", 401)):
        gateway.cli("agent", verb, agent.agent_id)
        assert gateway.call(agent, "GET", "/user").status_code == status
    assert gateway.cli("agent", "unfreeze", agent.agent_id, ok=False).returncode == 1


def test_why_and_receipts_by_command(gateway: Gateway, agent: Agent) -> None:
    denied = gateway.call(agent, "DELETE", "/repos/octo/hello").headers["aegis-receipt"]
    told = gateway.cli("why", denied).stdout
    assert "delete_repository" in told and "octo/hello" in told
    assert json.loads(gateway.cli("why", denied, "--json").stdout)
    assert gateway.cli("why", "rcp_n1_99999999", ok=False).returncode != 0
    assert "delete_repository" in gateway.cli("receipts", "tail").stdout
    assert gateway.cli("receipts", "verify").returncode == 0


def test_credentials_by_command_show_no_value(tmp_path: Path, one_origin: StrictOrigin) -> None:
    with Gateway(tmp_path / "gw", [Route("github", one_origin.url)], [Credential(CANARY)]) as gateway:
        for done in (gateway.cli("credential", "list"), gateway.cli("credential", "list", "--json")):
            assert "github" in done.stdout
            assert canary.find((done.stdout + done.stderr).encode(), [CANARY]) == []
        gateway.cli("credential", "remove", "github")
        answer = gateway.call(gateway.enrol(), "GET", "/user")
        assert answer.status_code == 503, "without a credential nothing goes out"
        control = gateway.cli("credential", "add", "github", stdin="ghp_with\ncontrol", ok=False)
        assert control.returncode == 1 and "ghp_with" not in control.stderr


def test_doctor_says_what_is_wrong_and_how_to_fix_it(tmp_path: Path, one_origin: StrictOrigin) -> None:
    gateway = Gateway(tmp_path / "gw", [Route("github", one_origin.url)], [Credential(CANARY)])
    with gateway:
        report = json.loads(gateway.cli("doctor", "--json", ok=False).stdout)
        assert report
    gateway.cli("credential", "remove", "github")
    (gateway.state / "admin.token").chmod(0o644)
    done = gateway.cli("doctor", ok=False)
    assert done.returncode == 1
    assert "credential add github" in done.stdout and "admin.token" in done.stdout


def test_dev_starts_from_nothing(tmp_path: Path) -> None:
    command = [
        str(environment.aegis()),
        "dev",
        "--state",
        str(tmp_path / "dev"),
        "--listen",
        "127.0.0.1:0",
        "--admin-listen",
        "127.0.0.1:0",
        "--json",
    ]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment.clean(), cwd=tmp_path
    )
    try:
        assert process.stdout
        line = json.loads(process.stdout.readline())
        assert line["event"] == "listening"
        for name in ("admin.token", "approver.token"):
            token = tmp_path / "dev" / name
            assert token.stat().st_mode & 0o777 == 0o600
    finally:
        process.terminate()
        assert process.wait(15) == 0
