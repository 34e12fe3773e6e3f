#!/usr/bin/env python3
"""Authorize as the Python SDK sees it, against a bare HTTP echo of the same size, asked by the same library.

    python tests/bench/sdk_python.py --gateway http://127.0.0.1:8080 --token aegis_agt_… [--json]

Both are measured in turns over kept connections, in one process: `authorize` is everything from a function's
arguments to the permission (binding, hashing, HTTP, checking the answer, hashing again), `echo` is httpcore's own
POST of the same bytes to a server that gives as many bytes back. Outcomes are reported outside the clock.
Measure a release build of the gateway. Needs the `aegisagent` package; `AEGIS_GATEWAY_URL` and
`AEGIS_AGENT_TOKEN` can stand in for the options.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import socket
import sys
import threading
import time
from typing import Any

import httpcore
from aegisagent import AegisClient
from aegisagent._answers import Decision
from aegisagent._flow import Exchange, Limits
from aegisagent._guard import Guard

WARM_UP = 200


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gateway", help="URL of the agents' listener")
    parser.add_argument("--token", help="agent token")
    parser.add_argument("--tool", default="github")
    parser.add_argument("--action", default="get_repository", help="something that the policies allow")
    parser.add_argument("--arguments", default='{"repo": "octo/payments"}', help="JSON")
    parser.add_argument("--calls", type=int, default=2000)
    parser.add_argument("--target-ms", type=float, default=1.5, help="p50 of authorize that is asked for")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    client = AegisClient(options.gateway, options.token)
    guard = Guard(client, options.tool, options.action, Limits(10, 10))
    row = measure(client, guard, json.loads(options.arguments), options.calls)
    row["target_p50_ms"], row["holds"] = options.target_ms, row["authorize"]["p50_ms"] < options.target_ms
    if options.json:
        print(json.dumps(row, indent=2))
    else:
        for name in ("authorize", "echo"):
            print(f"{name:10} p50 {row[name]['p50_ms']:.3f} ms   p99 {row[name]['p99_ms']:.3f} ms")
        held = "holds" if row["holds"] else "MISSED"
        print(f"authorize is {row['p50_ratio']} times the echo; target {options.target_ms} ms: {held}")
    sys.exit(0 if row["holds"] else 1)


def measure(client: AegisClient, guard: Guard, arguments: dict[str, Any], calls: int) -> dict[str, Any]:
    """Both, call by call, so that what else the machine does meets both alike."""
    asked, answered = sizes(client, guard, arguments)
    server = socket.create_server(("127.0.0.1", 0))
    process = multiprocessing.get_context("fork").Process(target=echo, args=(server, asked, answered), daemon=True)
    process.start()
    pool = httpcore.ConnectionPool()
    url = f"http://127.0.0.1:{server.getsockname()[1]}/v1/authorize"
    headers = [(b"Content-Type", b"application/json"), (b"Authorization", b"Bearer " + b"x" * 50)]
    content = b"x" * asked
    times: dict[str, list[float]] = {"authorize": [], "echo": []}
    for number in range(calls + WARM_UP):
        started = time.perf_counter()
        decision: Decision = guard.decide(arguments, None)
        decided = time.perf_counter()
        pool.request(b"POST", url, headers=headers, content=content).read()
        echoed = time.perf_counter()
        guard.report(decision, "completed")
        if number >= WARM_UP:
            times["authorize"].append(decided - started)
            times["echo"].append(echoed - decided)
    process.kill()
    row: dict[str, Any] = {"calls": calls, "request_bytes": asked, "answer_bytes": answered}
    row.update({name: {"p50_ms": at(taken, 0.5), "p99_ms": at(taken, 0.99)} for name, taken in times.items()})
    row["p50_ratio"] = round(row["authorize"]["p50_ms"] / row["echo"]["p50_ms"], 2)
    return row


def sizes(client: AegisClient, guard: Guard, arguments: dict[str, Any]) -> tuple[int, int]:
    """Bytes of the body that is asked, and of its answer."""
    seen: dict[str, int] = {}
    exchange = client._sync.exchange

    def noted(what: Exchange) -> Any:
        outcome = exchange(what)
        if what.path == "/v1/authorize":
            seen.update(asked=len(what.body or b""), answered=len(outcome.body))
        return outcome

    client._sync.exchange = noted  # type: ignore[method-assign]
    guard.report(guard.decide(arguments, None), "completed")
    del client._sync.exchange
    return seen["asked"], seen["answered"]


def echo(server: socket.socket, asked: int, answered: int) -> None:
    """Answers every request of `asked` bytes with as many bytes as the gateway gave."""
    answer = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % answered
    answer += b"x" * answered

    def serve(connection: socket.socket) -> None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        got = b""
        while chunk := connection.recv(65_536):
            got += chunk
            end = got.find(b"\r\n\r\n")
            if end >= 0 and len(got) >= end + 4 + asked:
                got = got[end + 4 + asked :]
                connection.sendall(answer)

    while True:
        threading.Thread(target=serve, args=(server.accept()[0],), daemon=True).start()


def at(times: list[float], share: float) -> float:
    return round(sorted(times)[min(len(times) - 1, int(len(times) * share))] * 1000, 3)


if __name__ == "__main__":
    main()
