#!/usr/bin/env python3
"""What connections cost that do nothing, or too little: memory, and the time of those who behave.

    cargo xtask bench connections                 10,000 idle, 1,000 slow, 200 requests/s
    python tests/bench/connections.py --idle 1000 --slow 100 --seconds 4

Load, idle and slow clients and the origin are processes of their own. Rounds without idle and slow clients
alternate with rounds beside them; a percentile is the median over a round's windows. What counts is
their ratio within the run: the baseline is the median over the rounds alone. Exits 1 where memory
reaches 1 GiB or the 99th percentile more than doubles.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import multiprocessing
import os
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from harness import environment  # noqa: E402
from harness.gateway import Agent, Credential, Gateway, Route  # noqa: E402

CREDENTIAL = "ghp_connectionsconnectionsconnections00"
GIB = 1 << 30
WINDOWS = 4
ALONE = "alone"


@dataclass
class Sample:
    """One phase."""

    name: str
    requests: int
    failed: int
    p50_ms: float
    p99_ms: float
    rss_mb: float
    cpu_us: float
    """Of the gateway, for each request: what a busy machine does not change."""


@dataclass
class Options:
    idle: int = 10_000
    slow: int = 1_000
    rate: int = 200
    seconds: float = 10


def measure(options: Options, folder: Path) -> list[Sample]:
    """Alone, with idle connections, alone, with slow clients, and alone."""
    raise_open_files()
    with origin() as url, gateway(folder, url, options) as (running, agent):
        target = (running.listen, agent.token)

        def phase(name: str) -> Sample:
            before = cpu(running)
            failed, windows = in_process(paced, *target, options.rate, options.seconds)
            spent = (cpu(running) - before) / (options.rate * options.seconds) * 1e6
            p50, p99 = (statistics.median(percentile(w, q) for w in windows) for q in (50, 99))
            return Sample(name, sum(map(len, windows)), failed, p50 * 1000, p99 * 1000, rss(running) / 1e6, spent)

        phase("warm")
        samples = [phase(ALONE)]
        with held(idle, running.listen, options.idle):
            samples.append(phase(f"{options.idle} idle"))
        samples.append(phase(ALONE))
        with held(slow, running.listen, agent.token, options.slow):
            samples.append(phase(f"{options.slow} slow"))
        samples.append(phase(ALONE))
        return samples


def verdict(samples: list[Sample], noise_ms: float = 0) -> list[str]:
    """What does not hold; `noise_ms` is what a busy machine's scheduling alone may add."""
    base = statistics.median(s.p99_ms for s in samples if s.name == ALONE)
    wrong = [f"{s.name}: {s.failed} requests failed" for s in samples if s.failed]
    wrong += [f"{s.name}: {s.rss_mb:.0f} MB resident" for s in samples if s.rss_mb * 1e6 >= GIB]
    late = [s for s in samples if s.name != ALONE and s.p99_ms > max(2 * base, base + noise_ms)]
    return wrong + [f"{s.name}: p99 {s.p99_ms:.1f} ms, {s.p99_ms / base:.1f} times {base:.1f}" for s in late]


def percentile(values: list[float], q: int) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, math.ceil(len(ordered) * q / 100) - 1)]


# What runs.


@contextmanager
def origin() -> Any:
    script = environment.TESTS / "upstreams" / "strict_origin.py"
    command = [sys.executable, script, "--credential-env", "REAL", "--control", "127.0.0.1:0"]
    env = environment.clean({"REAL": CREDENTIAL})
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=env, text=True) as process:
        try:
            assert process.stdout
            yield f"http://{json.loads(process.stdout.readline())['listen']}"
        finally:
            process.kill()


@contextmanager
def gateway(folder: Path, url: str, options: Options) -> Any:
    made = Gateway(folder / "gw", [Route("github", url)], [Credential(CREDENTIAL)])
    limits = (
        f"max_connections_per_source = {options.idle + options.slow + 1000}\n"
        f"max_connections = {options.idle + options.slow + 1000}\nkeepalive_timeout_seconds = 600\n"
    )
    made.config.write_text(made.config.read_text().replace("[state]", limits + "[state]"))
    with made as running:
        yield running, running.enrol()


@contextmanager
def held(work: Callable[..., Any], *args: Any) -> Any:
    """Clients in a process of their own, once they are there, for as long as the block."""
    ready, done = multiprocessing.Event(), multiprocessing.Event()
    process = multiprocessing.Process(target=run_held, args=(work, args, ready, done), daemon=True)
    process.start()
    try:
        assert ready.wait(120), "the clients do not get through"
        yield
    finally:
        done.set()
        process.join(20)
        process.kill()


def run_held(work: Callable[..., Any], args: tuple[Any, ...], ready: Any, done: Any) -> None:
    asyncio.run(work(*args, ready, done))


def in_process(work: Callable[..., Any], *args: Any) -> Any:
    with multiprocessing.Pool(1) as pool:
        return pool.apply(run_alone, (work, args))


def run_alone(work: Callable[..., Any], args: tuple[Any, ...]) -> Any:
    return asyncio.run(work(*args))


def rss(running: Gateway) -> int:
    assert running.process
    status = Path(f"/proc/{running.process.pid}/status").read_text()
    return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmRSS"))


def cpu(running: Gateway) -> float:
    """Seconds of the process until now."""
    assert running.process
    fields = Path(f"/proc/{running.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def raise_open_files() -> None:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


# Clients.


async def paced(address: str, token: str, rate: int, seconds: float) -> tuple[int, list[list[float]]]:
    """`rate` requests a second on kept connections, begun on time whatever became of the ones before."""
    request = (f"GET /github/repos/octo/hello HTTP/1.1\r\nHost: g\r\nAuthorization: Bearer {token}\r\n\r\n").encode()
    pool: asyncio.LifoQueue[Any] = asyncio.LifoQueue()
    windows: list[list[float]] = [[] for _ in range(WINDOWS)]
    failed = 0

    async def one(window: int, due: float) -> None:
        nonlocal failed
        try:
            pair = pool.get_nowait() if not pool.empty() else await connect(address)
            pair[1].write(request)
            head = await pair[0].readuntil(b"\r\n\r\n")
            await read_body(pair[0], head.lower())
            if head[9:12] != b"200":
                raise OSError(head[:40])
            windows[window].append(time.monotonic() - due)
            pool.put_nowait(pair)
        except (OSError, asyncio.IncompleteReadError):
            failed += 1

    start, tasks = time.monotonic(), []
    for number in range(int(rate * seconds)):
        due = start + number / rate
        await asyncio.sleep(max(0, due - time.monotonic()))
        tasks.append(asyncio.ensure_future(one(number * WINDOWS // int(rate * seconds), due)))
    await asyncio.gather(*tasks)
    return failed, windows


async def read_body(reader: asyncio.StreamReader, head: bytes) -> None:
    """The answer's body, of which nothing is kept: by its length, else chunk by chunk."""
    length = re.search(rb"\r\ncontent-length: *(\d+)", head)
    if length:
        await reader.readexactly(int(length[1]))
        return
    size = -1
    while size:
        size = int(await reader.readuntil(b"\r\n"), 16)
        await reader.readexactly(size + 2)


async def idle(address: str, count: int, ready: Any, done: Any) -> None:
    """Connections that asked once and stay."""
    streams = []
    for start in range(0, count, 100):
        pairs = await asyncio.gather(*(connect(address) for _ in range(min(100, count - start))))
        for reader, writer in pairs:
            writer.write(b"GET /health HTTP/1.1\r\nHost: g\r\n\r\n")
        for reader, writer in pairs:
            await reader.readuntil(b"}")
        streams += pairs
    ready.set()
    while not done.is_set():
        await asyncio.sleep(0.1)


async def slow(address: str, token: str, count: int, ready: Any, done: Any) -> None:
    """Heads and bodies that come a byte at a time; who is cut off comes back."""
    head = f"POST /github/repos/octo/hello/issues HTTP/1.1\r\nHost: g\r\nAuthorization: Bearer {token}\r\n".encode()
    body = head + b"Content-Type: application/json\r\nContent-Length: 4000\r\n\r\n"

    async def one(number: int) -> None:
        while not done.is_set():
            try:
                _, writer = await connect(address)
                writer.write(body if number % 2 else head[:20])
                while not done.is_set():
                    await asyncio.sleep(1)
                    writer.write(b"x")
                    await writer.drain()
            except OSError:
                await asyncio.sleep(0.5)

    tasks = [asyncio.ensure_future(one(number)) for number in range(count)]
    await asyncio.sleep(2)
    ready.set()
    while not done.is_set():
        await asyncio.sleep(0.1)
    for task in tasks:
        task.cancel()


async def connect(address: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    host, _, port = address.rpartition(":")
    return await asyncio.open_connection(host, int(port))


def main() -> int:
    parser = argparse.ArgumentParser(description="What connections cost that do nothing, or too little.")
    for name, default in asdict(Options()).items():
        parser.add_argument(f"--{name}", type=type(default), default=default)
    parser.add_argument("--json", action="store_true")
    given = vars(parser.parse_args())
    as_json = given.pop("json")
    with tempfile.TemporaryDirectory(prefix="aegis-bench-") as folder:
        samples = measure(Options(**given), Path(folder))
    wrong = verdict(samples)
    if as_json:
        print(json.dumps({"samples": [asdict(s) for s in samples], "wrong": wrong}))
    else:
        print(f"{'':<14} {'requests':>9} {'failed':>7} {'p50 ms':>8} {'p99 ms':>8} {'RSS MB':>8} {'CPU us':>8}")
        for s in samples:
            print(f"{s.name:<14} {s.requests:>9} {s.failed:>7} {s.p50_ms:>8.2f} {s.p99_ms:>8.2f} {s.rss_mb:>8.0f} {s.cpu_us:>8.0f}")
        print("\n".join(wrong) or "holds: RSS below 1 GiB, p99 within 2x")
    return 1 if wrong else 0


if __name__ == "__main__":
    environment.clean_this_process()
    os.environ.setdefault("AEGIS_BIN", str(environment.ROOT / "target" / "release" / "aegis"))
    sys.exit(main())
