"""`aegis run --isolate`: whatever the command tries, the gateway is the only address it reaches.

Run as root, every test runs twice: as root and as a user without any privilege. A kernel that
refuses namespaces fails these tests; they are not skipped.
"""

from __future__ import annotations

import http.server
import os
import platform
import shutil
import signal
import socket
import subprocess
import tempfile
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from conftest import CANARY
from harness.gateway import Credential, Gateway, Route
from harness.run import Runner
from upstreams.strict_origin import StrictOrigin

pytestmark = pytest.mark.binary

NOBODY = 65534
WHO = ["self", "nobody"] if os.geteuid() == 0 else ["self"]
# The system's own: another user may not be able to read where ours is.
PYTHON = "/usr/bin/python3"


@pytest.fixture(scope="module", params=WHO)
def place(request: pytest.FixtureRequest, one_origin: StrictOrigin) -> Iterator[tuple[Gateway, Path]]:
    """A gateway, and a folder to run in, both of one user. pytest's own folders are for nobody else."""
    folder = Path(tempfile.mkdtemp(prefix="isolate-"))
    gateway = Gateway(folder / "gw", [Route("github", one_origin.url)], [Credential(CANARY)])
    if request.param == "nobody":
        gateway.user = {"user": NOBODY, "group": NOBODY, "extra_groups": []}
        for path in [folder, *folder.rglob("*")]:
            os.chown(path, NOBODY, NOBODY)
    try:
        with gateway:
            yield gateway, folder
    finally:
        shutil.rmtree(folder)


@pytest.fixture()
def gateway(place: tuple[Gateway, Path]) -> Gateway:
    return place[0]


@pytest.fixture()
def run(place: tuple[Gateway, Path]) -> Runner:
    runner = Runner(*place)
    # Folders of ours in it are not everybody's to look into.
    runner.env["PATH"] = "/usr/sbin:/usr/bin:/sbin:/bin"
    for made in (runner.home, runner.temporary, runner.work):
        owner = place[0].user.get("user", os.geteuid())
        os.chown(made, owner, owner if place[0].user else -1)
    return runner


def python(run: Runner, text: str, *options: str, **more: object) -> str:
    """What a program says that runs isolated."""
    done = run("--isolate", *options, "--", PYTHON, "-c", textwrap.dedent(text), **more)
    assert done.returncode == 0, f"{done.returncode}\n{done.stdout}{done.stderr}"
    return done.stdout


def outside_address() -> str:
    """An address of this machine that is not loopback; loopback where there is none."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
            return str(probe.getsockname()[0])
        except OSError:
            return "127.0.0.1"


def test_the_gateway_answers_and_nothing_else_does(run: Runner, gateway: Gateway) -> None:
    """The same calls work outside, so it is the isolation that they fail for."""
    here = outside_address()
    with socket.create_server((here, 0)) as tcp, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        udp.bind((here, 0))
        udp.settimeout(0.5)
        text = f"""
            import os, socket, urllib.request
            admin = ("127.0.0.1", {gateway.admin.rpartition(":")[2]})
            for target in (("{here}", {tcp.getsockname()[1]}), admin, ("192.0.2.1", 443), ("169.254.169.254", 80)):
                try:
                    socket.create_connection(target, 3)
                    print("connected to", target)
                except OSError:
                    pass
            for target in (("{here}", {udp.getsockname()[1]}), ("192.0.2.1", 443), ("192.0.2.1", 53)):
                try:
                    socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"hello", target)
                    print("sent to", target)
                except OSError:
                    pass
            for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
                try:
                    socket.socket(socket.AF_INET6, kind).connect(("2001:db8::1", 443))
                    print("IPv6")
                except OSError:
                    pass
            try:
                print(socket.getaddrinfo("example.com", 443))
            except socket.gaierror:
                pass
            request = urllib.request.Request(os.environ["AEGIS_URL"] + "/github/user")
            request.add_header("Authorization", "Bearer " + os.environ["AEGIS_AGENT_TOKEN"])
            print(urllib.request.urlopen(request, timeout=20).status)
        """
        assert python(run, text) == "200\n"
        with pytest.raises(TimeoutError):
            udp.recv(10)
        outside = subprocess.run(
            [PYTHON, "-c", f"import socket; socket.create_connection({tcp.getsockname()!r}, 3)"], check=False
        )
        assert outside.returncode == 0


def test_the_door_is_where_it_is_outside_and_only_agents_come_in(run: Runner, gateway: Gateway) -> None:
    token = gateway.admin_token
    text = f"""
        import os, urllib.request, urllib.error
        assert os.environ["AEGIS_URL"] == "http://{gateway.listen}"
        request = urllib.request.Request(os.environ["AEGIS_URL"] + "/v1/agents")
        request.add_header("Authorization", "Bearer {token}")
        try:
            urllib.request.urlopen(request, timeout=20)
        except urllib.error.HTTPError as error:
            print(error.code)
    """
    assert python(run, text) == "404\n"


def test_sockets_that_lead_elsewhere_cannot_be_made(run: Runner, place: tuple[Gateway, Path]) -> None:
    """A service on a Unix socket would do for the command what it may not do itself."""
    path = place[1] / "service.sock"
    with socket.socket(socket.AF_UNIX) as service, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as abstract:
        service.bind(str(path))
        service.listen()
        path.chmod(0o777)
        abstract.bind("\0aegis-isolate-test")
        text = f"""
            import socket
            def tried(what, call):
                try:
                    call()
                    print(what)
                except OSError as error:
                    assert error.errno == 1, (what, error)
            path = "{path}"
            tried("path", lambda: socket.socket(socket.AF_UNIX).connect(path))
            tried("abstract", lambda: socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM).sendto(b"x", "\\0aegis-isolate-test"))
            for family in (socket.AF_VSOCK, socket.AF_PACKET, socket.AF_ALG, 31, 30, 42, 44):
                tried(family, lambda: socket.socket(family, socket.SOCK_RAW))
            for kind in (socket.SOCK_DGRAM, socket.SOCK_RAW, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC):
                tried("pair", lambda: socket.socketpair(socket.AF_UNIX, kind))
            one, two = socket.socketpair()
            one.sendall(b"x")
            print(two.recv(1).decode())
            socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)
        """
        assert python(run, text) == "x\n"
        connect = f'import socket; socket.socket(socket.AF_UNIX).connect("{path}"); print("there")'
        assert python(run, connect, "--danger-unix-sockets") == "there\n"
    path.unlink()


def test_other_ways_to_a_socket_are_closed(run: Runner) -> None:
    text = """
        import ctypes, errno
        libc = ctypes.CDLL(None, use_errno=True)
        def call(*words):
            result = libc.syscall(*words)
            return ctypes.get_errno() if result < 0 else 0
        print(call(425, 8, ctypes.create_string_buffer(256)) == errno.EPERM)   # io_uring_setup
        import platform
        if platform.machine() == "x86_64":
            # By its x32 number the call may not exist at all; it must not succeed.
            print(call(0x40000000 + 41, 1, 1, 0) in (errno.EPERM, errno.ENOSYS))
        else:
            print(True)
    """
    assert python(run, text) == "True\nTrue\n"


def test_nothing_can_be_typed_into_the_terminal(run: Runner) -> None:
    """The shell outside would run it (CVE-2017-5226)."""
    text = """
        import ctypes, os, termios
        master, slave = os.openpty()
        libc = ctypes.CDLL(None, use_errno=True)
        # The kernel looks at the lower half of the number only.
        for request in (termios.TIOCSTI, 0x541c, termios.TIOCSTI | 1 << 32):
            done = libc.syscall(ctypes.c_long(ioctl), slave, ctypes.c_ulong(request), b"x")
            print("typed" if done == 0 else ctypes.get_errno())
    """
    number = {"x86_64": 16, "aarch64": 29, "riscv64": 29}[platform.machine()]
    assert python(run, f"ioctl = {number}\n" + textwrap.dedent(text)).split() == ["1", "1", "1"]


def test_no_privilege_is_left_and_none_is_gained(run: Runner) -> None:
    text = """
        import os, subprocess
        status = dict(line.split(":\\t") for line in open("/proc/self/status").read().splitlines() if ":\\t" in line)
        assert {status["Cap" + name] for name in ("Inh", "Prm", "Eff", "Bnd", "Amb")} == {"0" * 16}
        assert status["NoNewPrivs"] == "1" and status["Seccomp"] == "2"
        for words in (["unshare", "-n", "true"], ["mount", "-t", "tmpfs", "x", "/mnt"], ["umount", "/proc"]):
            assert subprocess.run(words, capture_output=True).returncode != 0, words
        # A user namespace of its own brings capabilities over nothing that matters.
        inner = "mount -t tmpfs x /mnt && umount /proc/sys; nsenter -t 1 -n true; ip link add v type veth peer netns 1"
        done = subprocess.run(["unshare", "-Urnm", "sh", "-c", inner], capture_output=True, text=True)
        assert done.returncode != 0
        print(os.getuid(), sorted(os.listdir("/sys/class/net")) != [], open("/proc/net/dev").read().count(":"))
    """
    user = run.gateway.user.get("user", os.geteuid())
    assert python(run, text).split() == [str(user), "True", "1"]


def test_processes_outside_are_out_of_sight_and_reach(run: Runner, gateway: Gateway) -> None:
    assert gateway.process
    text = f"""
        import os
        names = [name for name in os.listdir("/proc") if name.isdigit()]
        print(len(names) <= 3, os.getppid())
        for target in ({gateway.process.pid}, {os.getpid()}):
            try:
                os.kill(target, 0)
                print("reached", target)
            except ProcessLookupError:
                pass
    """
    assert python(run, text) == "True 0\n"


def test_what_guards_the_gateway_is_out_of_reach(run: Runner, gateway: Gateway) -> None:
    """The command is the same user, but a command that could read the vault or write policies needs no token."""
    text = f"""
        import os
        folder = "{gateway.folder}"
        print(os.listdir(folder + "/state"))
        def tried(what, call):
            try:
                call()
                print(what)
            except OSError:
                pass
        for name in ("state/admin.token", "state/master.key", "state/aegis.db"):
            tried(name, lambda: open(folder + "/" + name))
        for name in ("aegis.toml", "routes.toml", "policies/default.cedar", "policies/new.cedar", "state/new"):
            tried(name, lambda: open(folder + "/" + name, "a"))
        parent = os.path.dirname(folder)
        for old, new in ((folder, parent + "/x"), (parent, parent + "x"), (folder + "/state", folder + "/y"),
                         (folder + "/policies", folder + "/z"), (folder + "/routes.toml", folder + "/r")):
            tried("renamed " + old, lambda: os.rename(old, new))
        # By way of folders that were open before anything was mounted.
        for link in ("/proc/self/cwd", "/proc/1/cwd", "/proc/1/root"):
            tried(link, lambda: open(link + folder + "/state/admin.token"))
            tried(link, lambda: open(link + "/../gw/state/admin.token"))
        print(open(folder + "/routes.toml").read()[:9], open(folder + "/policies/default.cedar").read()[:2])
    """
    assert python(run, text) == "[]\n[[route]] //\n"
    inside = run("--isolate", "--", "true", cwd=gateway.state)
    assert inside.returncode == 125 and "another folder" in inside.stderr


def test_open_files_are_not_handed_in(run: Runner, gateway: Gateway) -> None:
    """Through a folder or socket that somebody left open there would be a way round."""
    opened = os.open(gateway.folder, os.O_RDONLY)
    with socket.create_connection(("127.0.0.1", int(gateway.admin.rpartition(":")[2]))) as connected:
        done = run("--isolate", "--", "ls", "/proc/self/fd", pass_fds=(opened, connected.fileno()))
    os.close(opened)
    # The fourth is the folder that `ls` reads.
    assert done.stdout.split() == ["0", "1", "2", "3"], done.stderr


def test_the_command_is_itself(run: Runner) -> None:
    done = run("--isolate", "--", "sh", "-c", "cat; pwd; exit 7", input="in\n")
    assert (done.returncode, done.stdout) == (7, f"in\n{run.work}\n"), done.stderr
    done = run("--isolate", "--", "sh", "-c", "kill -KILL $$")
    assert done.returncode == 137
    done = run("--isolate", "--", "no-such-command")
    assert done.returncode == 127 and "no-such-command" in done.stderr
    assert run.left_behind() == []


@pytest.mark.parametrize("name", ["TERM", "INT", "USR1"])
def test_signals_reach_an_isolated_command(run: Runner, name: str) -> None:
    script = f"trap 'echo got; exit 9' {name}; echo ready; while :; do sleep 0.1; done"
    process = run.start("--isolate", "--", "sh", "-c", script)
    assert process.stdout and process.stdout.readline() == "ready\n"
    process.send_signal(getattr(signal, f"SIG{name}"))
    assert process.communicate(timeout=30)[0] == "got\n"
    assert process.returncode == 9


def waits_for(what: object, seconds: float = 10) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if what():  # type: ignore[operator]
            return True
        time.sleep(0.02)
    return False


@pytest.mark.parametrize("how", ["exit", "kill"])
def test_nothing_outlives_the_command_or_a_killed_run(run: Runner, how: str) -> None:
    """Daemons of the command go with it; and with us, even when nobody can clean up."""
    marker = f"aegis-isolate-{how}-{os.getpid()}-{run.gateway.user.get('user', 0)}"
    daemon = f"setsid {PYTHON} -c 'import time; time.sleep(600)' {marker} & echo started; cat"
    process = run.start("--isolate", "--", "sh", "-c", daemon)
    assert process.stdout and process.stdin and process.stdout.readline() == "started\n"

    def alive() -> bool:
        return any(marker in cmdline(pid) and "setsid" not in cmdline(pid) for pid in os.listdir("/proc"))

    assert waits_for(alive)
    if how == "exit":
        process.stdin.close()
        assert process.wait(30) == 0
        assert not alive(), "it is over when we are"
    else:
        process.kill()
        process.wait()
        assert waits_for(lambda: not alive())
    for pipe in (process.stdout, process.stderr):
        assert pipe
        pipe.close()


def cmdline(pid: str) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode() if pid.isdigit() else ""
    except OSError:
        return ""


def test_many_connections_and_large_bodies_pass(run: Runner, gateway: Gateway, origin: StrictOrigin) -> None:
    origin.answer("GET", "/repos/octo/large", {"text": "x" * 3_000_000})
    text = """
        import concurrent.futures, os, urllib.request
        def call(n):
            request = urllib.request.Request(os.environ["AEGIS_URL"] + "/github/repos/octo/large")
            request.add_header("Authorization", "Bearer " + os.environ["AEGIS_AGENT_TOKEN"])
            return len(urllib.request.urlopen(request, timeout=60).read())
        with concurrent.futures.ThreadPoolExecutor(16) as pool:
            sizes = set(pool.map(call, range(32)))
        print(len(sizes) == 1 and sizes.pop() > 3_000_000)
    """
    assert python(run, text) == "True\n"


# Where the kernel refuses.


def refused(run: Runner, wrapper: list[str], marker: Path) -> subprocess.CompletedProcess[str]:
    words = [*wrapper, *run.words("--isolate", "--", "touch", str(marker))]
    return subprocess.run(words, capture_output=True, text=True, timeout=60, env=run.env, cwd=run.work)


NO_MORE = "echo 0 > /proc/sys/user/max_user_namespaces; exec "


def test_where_namespaces_are_refused_nothing_runs(tmp_path: Path, run: Runner, gateway: Gateway) -> None:
    """In a user namespace whose root forbids others below it, and somebody without privilege there."""
    marker = run.work / "ran"
    own = ["setpriv", "--reuid", str(NOBODY), "--regid", str(NOBODY), "--clear-groups"] if gateway.user else []
    drop = "setpriv --bounding-set -all --inh-caps -all "
    wrapper = [*own, "unshare", "-U", "--map-root-user", "sh", "-c", NO_MORE + drop + '"$@"', "sh"]
    done = refused(run, wrapper, marker)
    assert done.returncode == 125, done.stderr
    assert "user.max_user_namespaces" in done.stderr and "not isolated" in done.stderr
    assert not marker.exists()
    assert run.left_behind() == []


def test_root_isolates_without_user_namespaces(run: Runner, gateway: Gateway) -> None:
    own = ["setpriv", "--reuid", str(NOBODY), "--regid", str(NOBODY), "--clear-groups"] if gateway.user else []
    wrapper = [*own, "unshare", "-U", "--map-root-user", "sh", "-c", NO_MORE + '"$@"', "sh"]
    text = """
        import os, socket
        assert not os.path.exists("{state}/admin.token")
        status = open("/proc/self/status").read()
        assert "CapEff:\\t0000000000000000" in status and "CapBnd:\\t0000000000000000" in status
        print(open("/proc/net/dev").read().count(":"))
    """.format(state=gateway.state)
    words = [*wrapper, *run.words("--isolate", "--", PYTHON, "-c", textwrap.dedent(text))]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, env=run.env, cwd=run.work)
    assert (done.returncode, done.stdout) == (0, "1\n"), done.stderr


class Paced(http.server.BaseHTTPRequestHandler):
    """A stand-in for the gateway that sends a byte every 100 ms: it is the relay that is measured."""

    certificates = b""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        if self.path == "/v1/ca":
            self.wfile.write(self.certificates)
            return
        for _ in range(10):
            self.wfile.write(b"x")
            time.sleep(0.1)

    def log_message(self, *_: object) -> None:
        pass


def test_streams_are_not_held_back(run: Runner, gateway: Gateway) -> None:
    Paced.certificates = gateway.api("GET", "/v1/ca", token="", admin=False).content
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Paced) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        text = """
            import os, time, urllib.request
            answer = urllib.request.urlopen(os.environ["AEGIS_URL"] + "/stream", timeout=20)
            times = []
            while answer.read(1):
                times.append(time.monotonic())
            gaps = sorted(b - a for a, b in zip(times, times[1:]))
            print(len(gaps), 0.05 < gaps[4] < 0.2)
        """
        address = "%s:%d" % server.server_address
        assert python(run, text, "--gateway", address) == "9 True\n"
        server.shutdown()
