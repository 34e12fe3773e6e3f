"""`aegis run`: a command finds the way to the gateway, a token that ends with it, and none of our secrets."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from harness.gateway import Agent, Gateway
from harness.run import SECRETS, Runner, Terminal

pytestmark = pytest.mark.binary

# Says which signals it gets; ends on TERM with 42.
LISTENER = """
import signal, sys
def got(number, _):
    print(signal.Signals(number).name, flush=True)
    if number == signal.SIGTERM:
        sys.exit(42)
for name in ("HUP", "INT", "QUIT", "TERM", "USR1", "USR2", "WINCH", "CONT"):
    if signal.getsignal(getattr(signal, "SIG" + name)) != signal.SIG_IGN:
        signal.signal(getattr(signal, "SIG" + name), got)
print("ready", flush=True)
while True:
    signal.pause()
"""
PYTHON = sys.executable
CALL = """
import os, sys, urllib.request
request = urllib.request.Request(os.environ["AEGIS_URL"] + sys.argv[1])
request.add_header("Authorization", "Bearer " + os.environ["AEGIS_AGENT_TOKEN"])
for pair in sys.argv[2:]:
    request.add_header(*pair.split("="))
opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
try:
    print(opener.open(request, timeout=20).status)
except urllib.error.HTTPError as error:
    print(error.code)
"""


@pytest.fixture()
def run(gateway: Gateway, tmp_path: Path) -> Runner:
    return Runner(gateway, tmp_path)


def environ(run: Runner, *options: str) -> dict[str, str]:
    """What the command finds."""
    done = run(*options, "--", "env", "-0")
    assert done.returncode == 0, done.stderr
    return dict(pair.split("=", 1) for pair in done.stdout.split("\0") if pair)


def events(gateway: Gateway, kind: str) -> list[dict]:
    return [leaf.body for leaf in gateway.leaves() if leaf.kind == "event" and leaf["kind"] == kind]


def test_the_command_finds_the_gateway_and_none_of_our_secrets(run: Runner, gateway: Gateway) -> None:
    found = environ(run)
    token = found["AEGIS_AGENT_TOKEN"]
    assert re.fullmatch(r"aegis_agt_[A-Za-z0-9]{38}", token)
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"):
        assert found[name] == f"http://aegis:{token}@{gateway.listen}"
    assert found["GITHUB_TOKEN"] == found["OPENAI_API_KEY"] == found["AWS_ACCESS_KEY_ID"] == token
    assert "runCanary" not in str(found)
    assert "LINEAR_API_KEY" not in found and "SSH_AUTH_SOCK" not in found
    kept = environ(run, "--keep-env", "LINEAR_API_KEY")
    assert kept["LINEAR_API_KEY"] == SECRETS["LINEAR_API_KEY"] and "DATABASE_PASSWORD" not in kept


def test_a_secret_of_the_gateways_environment_goes_by_whatever_name(run: Runner, gateway: Gateway) -> None:
    """routes.toml may name variables for the `env` vault; the person who starts both may have them set."""
    routes = (gateway.folder / "routes.toml").read_text()
    try:
        extra = '\n[[credential]]\nname = "of-env"\nvault = "env"\nkey = "HARMLESS_NAME"\nkind = "bearer"\n'
        offset = gateway.stderr.stat().st_size
        (gateway.folder / "routes.toml").write_text(routes + extra)
        gateway.wait_log("snapshot", offset)
        run.env["HARMLESS_NAME"] = "runCanary-env-vault"
        assert "HARMLESS_NAME" not in environ(run)
    finally:
        offset = gateway.stderr.stat().st_size
        (gateway.folder / "routes.toml").write_text(routes)
        gateway.wait_log("snapshot", offset)


def test_certificate_files_can_be_read_by_their_owner_and_go_with_the_run(run: Runner) -> None:
    script = 'stat -c %a "$(dirname "$SSL_CERT_FILE")"; for f in "$SSL_CERT_FILE" "$NODE_EXTRA_CA_CERTS"; do '
    script += 'grep -c BEGIN.CERTIFICATE "$f"; done; echo "$SSL_CERT_FILE"'
    done = run("--", "sh", "-c", script)
    mode, every, ours, path = done.stdout.split()
    assert mode == "700" and int(every) >= int(ours) == 1
    assert Path(path).is_relative_to(run.temporary) and not Path(path).exists()
    assert run.left_behind() == []


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["true"], 0),
        (["sh", "-c", "exit 7"], 7),
        (["sh", "-c", "exit 255"], 255),
        (["sh", "-c", "kill -TERM $$"], 143),
        (["sh", "-c", "kill -KILL $$"], 137),
        (["no-such-command-anywhere"], 127),
        (["/etc/passwd"], 126),
    ],
    ids=lambda value: str(value),
)
def test_the_exit_code_is_the_commands(run: Runner, words: list[str], code: int) -> None:
    done = run("--", *words)
    assert done.returncode == code, done.stderr
    assert (code in (126, 127)) == (words[0] in done.stderr)
    assert run.left_behind() == []


def test_input_output_and_arguments_pass_through(run: Runner) -> None:
    done = run("cat", input="über\n")
    assert (done.stdout, done.stderr) == ("über\n", "")
    done = run("--", "printf", "%s|", "a b", "--json", "-x", "--", "")
    assert done.stdout == "a b|--json|-x|--||"


@pytest.mark.parametrize("name", ["HUP", "INT", "QUIT", "USR1", "USR2", "WINCH"])
def test_a_signal_sent_to_us_reaches_the_command_once(run: Runner, name: str) -> None:
    process = run.start("--", PYTHON, "-c", LISTENER)
    assert process.stdout and process.stdout.readline() == "ready\n"
    process.send_signal(getattr(signal, "SIG" + name))
    assert process.stdout.readline() == f"SIG{name}\n"
    process.send_signal(signal.SIGTERM)
    assert process.communicate(timeout=30)[0] == "SIGTERM\n"
    assert process.returncode == 42
    assert run.left_behind() == []


def test_ignored_signals_stay_ignored(run: Runner) -> None:
    """As under nohup."""
    words = ("--", PYTHON, "-c", LISTENER)
    process = run.start(*words, preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))
    assert process.stdout and process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGHUP)
    process.send_signal(signal.SIGTERM)
    assert process.communicate(timeout=30)[0] == "SIGTERM\n"


@pytest.mark.parametrize("isolate", [(), ("--isolate",)], ids=["plain", "isolated"])
def test_the_terminals_signals_reach_the_command_once(run: Runner, isolate: tuple[str, ...]) -> None:
    words = run.words(*isolate, "--", PYTHON, "-c", LISTENER)
    terminal = Terminal(words, cwd=run.work, env=run.env)
    terminal.expect("ready")
    terminal.type("\x03")
    terminal.expect("SIGINT")
    terminal.process.send_signal(signal.SIGUSR1)
    assert "SIGINT" not in terminal.expect("SIGUSR1"), "it came twice"
    terminal.process.send_signal(signal.SIGTERM)
    terminal.expect("SIGTERM")
    assert terminal.process.wait(30) == 42
    terminal.close()


@pytest.mark.parametrize("isolate", [(), ("--isolate",)], ids=["plain", "isolated"])
def test_a_shell_stops_and_continues_the_command(run: Runner, isolate: tuple[str, ...]) -> None:
    shell = Terminal(["bash", "--norc", "--noprofile", "-i"], cwd=run.work, env={**run.env, "PS1": "prompt> "})
    shell.expect("prompt> ")
    shell.type(shlex.join(run.words(*isolate, "--", PYTHON, str(listener(run)))) + "\n")
    shell.expect("ready\r\n")
    shell.type("\x1a")
    shell.expect("Stopped")
    shell.expect("prompt> ")
    shell.type("fg\n")
    shell.expect("SIGCONT")
    # Through us, so that everybody has gone on before it is stopped again.
    os.kill(int(Path(f"/proc/{shell.process.pid}/task/{shell.process.pid}/children").read_text()), signal.SIGUSR1)
    shell.expect("SIGUSR1")
    shell.type("\x03")
    shell.expect("SIGINT")
    shell.type("\x1a")
    shell.expect("Stopped")
    shell.type("kill -TERM %1; fg\n")
    shell.expect("SIGTERM")
    shell.expect("prompt> ")
    shell.type("echo code=$?.\n")
    shell.expect("code=42.")
    shell.close()


def listener(run: Runner) -> Path:
    path = run.work / "listener.py"
    path.write_text(LISTENER)
    return path


def test_the_session_ends_with_the_command(run: Runner, gateway: Gateway) -> None:
    found = environ(run)
    run_id, token = found["AEGIS_RUN_ID"], found["AEGIS_AGENT_TOKEN"]
    tool_call = {"tool": "github", "action": "get_authenticated_user", "resource": None}
    tool_call |= {"mutates_state": False, "parameters": {}}
    answer = gateway.api("POST", "/v1/authorize", {"tool_call": tool_call}, token, admin=False)
    assert answer.status_code == 401
    started = [e for e in events(gateway, "session_started") if e["body"]["session_id"] == run_id]
    assert len(started) == 1
    agent = gateway.api("GET", f"/v1/agents/{started[0]['body']['agent_id']}").json()
    assert (agent["state"], agent["name"]) == ("revoked", "env")
    assert agent["agent_key"].startswith("run-")


def test_every_receipt_names_the_run_and_no_header_another(run: Runner, gateway: Gateway) -> None:
    start = len(gateway.leaves())
    script = 'echo "$AEGIS_RUN_ID"; "$0" -c "$1" /github/user; "$0" -c "$1" /github/user Aegis-Run-Id=other'
    done = run("--", "sh", "-c", script, PYTHON, CALL)
    run_id, *answers = done.stdout.split()
    assert answers == ["200", "200"], done.stderr
    intents = [leaf for leaf in gateway.leaves()[start:] if leaf.kind == "intent"]
    assert [leaf["run_id"] for leaf in intents] == [run_id, run_id]


def test_an_enrolled_agent_keeps_its_own_token(run: Runner, gateway: Gateway) -> None:
    agent = gateway.enrol("run-by-name")
    for named in ("run-by-name", agent.agent_id):
        found = environ(run, "--agent", named)
        assert found["AEGIS_AGENT_TOKEN"] != agent.token
        assert gateway.call(agent, "GET", "/user").status_code == 200
        ended = [e["body"]["session_id"] for e in events(gateway, "session_ended")]
        assert ended[-1] == found["AEGIS_RUN_ID"]
    missing = run("--agent", "nobody-of-this-name", "--", "true")
    assert missing.returncode == 125 and "aegis agent list" in missing.stderr
    gateway.set_agent(agent, "freeze")
    frozen = run("--agent", "run-by-name", "--", "true")
    assert frozen.returncode == 125 and "frozen" in frozen.stderr


def test_the_session_outlives_its_lease_while_the_command_runs_and_not_a_killed_run(
    run: Runner, gateway: Gateway
) -> None:
    lease = 3
    process = run.start("--lease", f"{lease}s", "--", "sh", "-c", 'echo "$AEGIS_AGENT_TOKEN"; echo $$; sleep 600')
    assert process.stdout
    token, child = process.stdout.readline().strip(), int(process.stdout.readline())
    try:

        def works() -> bool:
            return gateway.call(Agent("", token), "GET", "/user").status_code == 200

        started = time.monotonic()
        while time.monotonic() < started + 2 * lease:
            assert works(), "it ended while the command ran"
            time.sleep(0.2)
        process.kill()
        process.wait()
        killed = time.monotonic()
        while works():
            assert time.monotonic() < killed + lease + 10, "it outlives its lease"
            time.sleep(0.1)
        assert time.monotonic() < killed + lease + 2
    finally:
        os.kill(child, signal.SIGKILL)


def test_without_a_gateway_nothing_runs(run: Runner, tmp_path: Path, gateway: Gateway) -> None:
    other = tmp_path / "other"
    other.mkdir()
    config = other / "aegis.toml"
    config.write_text(gateway.config.read_text())
    words = [*run.words("--", "touch", str(tmp_path / "ran"))]
    words[2] = str(config)
    done = subprocess.run(words, capture_output=True, text=True, env=run.env, cwd=run.work, timeout=30)
    assert done.returncode == 125 and "no gateway runs" in done.stderr
    assert not (tmp_path / "ran").exists()
    assert sorted(p.name for p in other.iterdir()) == ["aegis.toml"], "looking made something"
    assert run.left_behind() == []


def test_a_signal_before_the_command_starts_stops_everything(run: Runner, gateway: Gateway) -> None:
    """Whenever it comes, nothing is left behind and no session stays open."""
    for pause in (0.0, 0.02, 0.05, 0.1, 0.2):
        process = run.start("--", "sleep", "600")
        time.sleep(pause)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=30)
        assert process.returncode in (143, -signal.SIGTERM)
        assert run.left_behind() == []
    states = {a["state"] for a in all_agents(gateway) if a["agent_key"].startswith("run-") and a["name"] == "sleep"}
    assert states <= {"revoked"}


def all_agents(gateway: Gateway) -> list[dict]:
    return json.loads(gateway.cli("agent", "list", "--json").stdout)["agents"]
