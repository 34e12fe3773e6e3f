"""Stopping, reloading, reporting to a supervisor, and clients that hold on for too long."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from conftest import CANARY
from harness import environment, receipts
from harness.gateway import Credential, Route
from harness.life import Connection, Load, Succession, eventually, gone, request
from upstreams.faults import Fault
from upstreams.strict_origin import StrictOrigin

pytestmark = pytest.mark.binary
LIMITS = """
head_timeout_seconds = 1
keepalive_timeout_seconds = 2
max_connections_per_source = 20
"""


def gateway_at(folder: Path, origin: StrictOrigin, server: str = "") -> Succession:
    """A gateway with more in the section `[server]`."""
    made = Succession(folder, [Route("github", origin.url)], [Credential(CANARY)])
    made.config.write_text(made.config.read_text().replace("[state]", server + "[state]"))
    return made


@pytest.fixture()
def own(tmp_path: Path, origin: StrictOrigin) -> Iterator[Succession]:
    with gateway_at(tmp_path / "gw", origin) as running:
        yield running


@pytest.fixture()
def strict(tmp_path: Path, origin: StrictOrigin) -> Iterator[Succession]:
    with gateway_at(tmp_path / "gw", origin, LIMITS) as running:
        yield running


# Stopping.


def test_a_stop_under_load_answers_everything_it_took(own: Succession, origin: StrictOrigin) -> None:
    agent, mark = own.enrol(), origin.mark()
    with Load(own.listen, agent, kept=4, fresh=1) as load:
        eventually(lambda: len(load.answered) > 50, "the load goes on", 30)
        assert own.stop() == 0
    assert load.drops == []
    sent = Counter(f"{r.method} {m[1]}" for r in origin.since(mark)[1] if (m := re.search(r"/issues/(\d+)", r.path)))
    assert sent == Counter(f"{method} {number}" for number, method, _ in load.answered)
    done = receipts.verify(own.receipts)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_stop_waits_for_what_was_begun_and_says_goodbye(own: Succession, origin: StrictOrigin) -> None:
    """An answer in flight, half a body, and a kept connection that asks once more."""
    agent = own.enrol()
    origin.fault(Fault("stall", path="/repos/octo/slow", options={"seconds": 2}))
    slow, half, kept = (Connection(own.listen) for _ in range(3))
    kept.send(request(agent, "GET", "/user"))
    assert kept.answer().header("connection") != "close"
    slow.send(request(agent, "GET", "/repos/octo/slow"))
    whole = request(agent, "POST", "/repos/octo/hello/issues/7/comments", b'{"body":"xyz"}')
    half.send(whole[:-5])
    time.sleep(0.2)
    os.kill(own.pid, signal.SIGTERM)
    kept.send(request(agent, "GET", "/user"))
    answer = kept.answer()
    assert answer.status == 200 and answer.header("connection") == "close"
    time.sleep(1.5)
    half.send(whole[-5:])
    assert half.answer().status == 200
    answer = slow.answer()
    assert answer.status == 200 and answer.header("connection") == "close"
    assert own.stop() == 0


def test_an_idle_connection_does_not_hold_a_stop_up(own: Succession) -> None:
    idle = Connection(own.listen)
    started = time.monotonic()
    assert own.stop() == 0
    assert time.monotonic() - started < 5
    assert idle.closed()


def test_a_stop_has_an_end(tmp_path: Path, origin: StrictOrigin) -> None:
    origin.fault(Fault("stall", path="/repos/octo/slow", options={"seconds": 30}))
    with gateway_at(tmp_path / "gw", origin, "drain_seconds = 2\n") as own:
        slow = Connection(own.listen)
        slow.send(request(own.enrol(), "GET", "/repos/octo/slow"))
        eventually(lambda: b"octo/slow" in own.stderr.read_bytes() or own.leaves()[-1].kind == "intent", "it is sent")
        started, offset = time.monotonic(), own.stderr.stat().st_size
        assert own.stop() == 0
        assert 1.5 < time.monotonic() - started < 6
        assert "drain_timeout" in own.wait_log("drain_timeout", offset)


# Those who hold on.


def test_a_head_must_be_complete_in_time(strict: Succession) -> None:
    agent, slow = strict.enrol(), Connection(strict.listen)
    started = time.monotonic()
    data = iter(request(agent, "GET", "/user"))
    while not slow.closed():
        assert time.monotonic() - started < 5, "a byte now and then keeps the connection"
        try:
            slow.send(bytes([next(data)]))
        except OSError:
            break
        time.sleep(0.1)
    assert time.monotonic() - started > 0.8
    metrics = strict.api("GET", "/metrics").text
    assert 'aegis_connections_ended_total{reason="head_timeout"} 1' in metrics


def test_a_silent_connection_ends_and_a_used_one_starts_anew(strict: Succession) -> None:
    agent, unused, used = strict.enrol(), Connection(strict.listen), Connection(strict.listen)
    for _ in range(3):
        time.sleep(1)
        used.send(request(agent, "GET", "/user"))
        assert used.answer().status == 200
    assert unused.closed()
    eventually(used.closed, "the used one ends, too", 5)
    assert 'reason="keepalive_timeout"} 2' in strict.api("GET", "/metrics").text


def test_one_source_gets_no_more_than_its_share(strict: Succession) -> None:
    agent = strict.enrol()
    host, _, port = strict.listen.rpartition(":")
    held = [socket.create_connection((host, int(port)), source_address=("127.9.9.9", 0)) for _ in range(30)]
    def ended(sock: socket.socket) -> bool:
        sock.settimeout(0.01)
        try:
            return sock.recv(1) == b""
        except TimeoutError:
            return False
        except OSError:
            return True
    try:
        eventually(lambda: sum(map(ended, held)) == 10, "ten of thirty are turned away")
        assert strict.call(agent, "GET", "/user").status_code == 200, "others are served"
    finally:
        for sock in held:
            sock.close()
    eventually(lambda: any(leaf["reason"] == "too_many_connections" for leaf in strict.leaves()), "on record")


def test_the_limit_of_open_files_is_raised(tmp_path: Path, origin: StrictOrigin) -> None:
    own = gateway_at(tmp_path / "gw", origin)
    with own:
        own.stop()
        line = ["prlimit", "--nofile=64:4096", environment.aegis(), "serve", "--config", own.config, "--json"]
        offset = own.stdout.stat().st_size
        with own.stdout.open("ab") as out, own.stderr.open("ab") as err:
            own.process = subprocess.Popen(line, stdout=out, stderr=err, env=environment.clean(), cwd=own.folder)
        said = own.said("listening", offset)
        own.pid, own.listen, own.admin = said["pid"], said["listen"], said["admin"]
        held = [Connection(own.listen) for _ in range(200)]
        assert own.call(own.enrol(), "GET", "/user").status_code == 200
        del held


# Supervisors.


class Supervisor:
    """The receiving end of sd_notify(3)."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "notify"
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.sock.bind(str(self.path))
        self.words: list[dict[str, str]] = []

    def heard(self, **wanted: str) -> dict[str, str]:
        """Waits for a word with these fields; what came before is over."""
        end = time.monotonic() + 20
        while time.monotonic() < end:
            self.sock.settimeout(max(0.01, end - time.monotonic()))
            word = dict(line.split("=", 1) for line in self.sock.recv(4096).decode().splitlines())
            if all(word.get(name) == value for name, value in wanted.items()):
                return word
        raise AssertionError(f"never heard {wanted}")


def test_a_supervisor_hears_of_every_change(own: Succession, monkeypatch: pytest.MonkeyPatch) -> None:
    own.stop()
    # A path of its own: a socket's may have 107 bytes.
    folder = Path("/tmp") / f"aegis-notify-{os.getpid()}-{time.monotonic_ns()}"
    folder.mkdir()
    supervisor = Supervisor(folder)
    more = {"NOTIFY_SOCKET": str(supervisor.path), "WATCHDOG_USEC": "400000"}
    clean = environment.clean
    monkeypatch.setattr(environment, "clean", lambda extra=None: clean({**more, **(extra or {})}))
    own.start()
    assert "MAINPID" not in supervisor.heard(READY="1")
    supervisor.heard(WATCHDOG="1")
    os.kill(own.pid, signal.SIGHUP)
    assert int(supervisor.heard(RELOADING="1")["MONOTONIC_USEC"]) <= time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    supervisor.heard(READY="1")
    gone(own.upgrade())
    assert supervisor.heard(READY="1")["MAINPID"] == str(own.pid)
    supervisor.heard(WATCHDOG="1")
    os.kill(own.pid, signal.SIGTERM)
    supervisor.heard(STOPPING="1")
    gone(own.pid)


def test_sockets_that_a_supervisor_holds_outlive_a_restart(tmp_path: Path, origin: StrictOrigin) -> None:
    """LISTEN_FDS (sd_listen_fds(3)): who connects in between waits, and is answered."""
    own = gateway_at(tmp_path / "gw", origin)
    agents, admin = (socket.create_server(("127.0.0.1", 0)) for _ in range(2))
    place = [f"127.0.0.1:{sock.getsockname()[1]}" for sock in (agents, admin)]
    text = own.config.read_text().replace('admin_listen = "127.0.0.1:0"', f'admin_listen = "{place[1]}"')
    own.config.write_text(text.replace('listen = "127.0.0.1:0"', f'listen = "{place[0]}"', 1))
    own.cli("credential", "add", "github", stdin=CANARY)

    def start() -> subprocess.Popen[bytes]:
        def pass_on() -> None:
            os.dup2(agents.fileno(), 3)
            os.dup2(admin.fileno(), 4)
        script = f'LISTEN_PID=$$ LISTEN_FDS=2 LISTEN_FDNAMES=agents:admin exec "$0" serve --config "$1" --json'
        with own.stdout.open("ab") as out, own.stderr.open("ab") as err:
            return subprocess.Popen(
                ["sh", "-c", script, environment.aegis(), own.config], stdout=out, stderr=err, pass_fds=(3, 4),
                preexec_fn=pass_on, env=environment.clean(), cwd=own.folder,
            )  # fmt: skip

    with own.stdout.open("ab"), own.stderr.open("ab"):
        pass
    own.process = start()
    said = own.said("listening", 0)
    assert [said["listen"], said["admin"]] == place
    own.pid, own.listen, own.admin = said["pid"], *place
    agent = own.enrol()
    with Load(own.listen, agent) as load:
        for _ in range(3):
            before = len(load.answered)
            eventually(lambda: len(load.answered) > before + 10, "the load goes on", 30)  # noqa: B023
            own.process.terminate()
            assert own.process.wait(15) == 0
            offset = own.stdout.stat().st_size
            own.process = start()
            own.said("listening", offset)
    own.process.terminate()
    assert own.process.wait(15) == 0
    assert load.drops == []
    agents.close()
    admin.close()


# Mounted configuration.


def test_a_mounted_folder_that_is_swapped_as_a_whole_is_noticed(tmp_path: Path, origin: StrictOrigin) -> None:
    """Kubernetes renews a mounted ConfigMap by turning the link `..data` to another folder; the files never change."""
    own = gateway_at(tmp_path / "gw", origin)
    routes, policies = own.folder / "mount" / "routes", own.folder / "mount" / "policies"
    shipped = {path.name: path.read_text() for path in (own.folder / "policies").glob("*.cedar")}
    text = (own.folder / "routes.toml").read_text()
    mount(routes, {"routes.toml": text})
    mount(policies, shipped)
    own.config.write_text(
        own.config.read_text()
        .replace('"routes.toml"', '"mount/routes/routes.toml"')
        .replace('"policies"', '"mount/policies"')
    )
    with own:
        agent = own.enrol()
        assert own.call(agent, "GET", "/user").status_code == 200
        mount(policies, {**shipped, "extra.cedar": NO_USERS})
        eventually(lambda: own.call(agent, "GET", "/user").status_code == 403, "the new policy")
        mount(policies, shipped)
        eventually(lambda: own.call(agent, "GET", "/user").status_code == 200, "the policy gone")
        mount(routes, {"routes.toml": text.replace('name = "github"', 'name = "code"', 1)})
        eventually(lambda: own.call(agent, "GET", "/user", route="code").status_code == 200, "the new route")


NO_USERS = '@id("no-users")\nforbid (principal, action == Action::"github.get_me", resource);\n'


def mount(folder: Path, files: dict[str, str]) -> None:
    """What the kubelet does: a new folder with a name of its own, links to it, the old one removed."""
    folder.mkdir(parents=True, exist_ok=True)
    data = folder / f"..{time.strftime('%Y_%m_%d_%H_%M_%S')}.{time.monotonic_ns()}"
    data.mkdir()
    for name, text in files.items():
        (data / name).write_text(text)
        if not (folder / name).is_symlink():
            (folder / name).symlink_to(f"..data/{name}")
    old = os.readlink(folder / "..data") if (folder / "..data").is_symlink() else None
    (folder / "..data_tmp").symlink_to(data.name)
    (folder / "..data_tmp").rename(folder / "..data")
    for link in folder.iterdir():
        if link.is_symlink() and not link.name.startswith("..") and link.name not in files:
            link.unlink()
    if old:
        for file in (folder / old).iterdir():
            file.unlink()
        (folder / old).rmdir()
