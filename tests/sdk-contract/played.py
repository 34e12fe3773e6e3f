"""Runs cases: a scripted gateway, the drivers, and what came of each."""

from __future__ import annotations

import atexit
import base64
import concurrent.futures
import functools
import json
import subprocess
import sys
import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import certificates_of
from casefile import TOKEN, Case
from harness import environment
from sdks import HERE, Pool

AT_ONCE = 3


@dataclass
class Played:
    """What a case led to: the driver's answers, and what the gateway was asked."""

    case: Case
    sdk: str
    mode: str
    answers: list[dict[str, Any]]
    log: list[dict[str, Any]]
    connections: int
    errors: list[str]

    def of(self, step: str) -> list[dict[str, Any]]:
        return [entry for entry in self.log if entry["step"] == step]


class Scripted:
    """The scripted gateway's process."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(HERE / "scripted_gateway.py")],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment.clean(), text=True,
        )  # fmt: skip
        self.lock = threading.Lock()

    def order(self, **order: Any) -> dict[str, Any]:
        with self.lock:
            assert self.process.stdin and self.process.stdout
            print(json.dumps(order), file=self.process.stdin, flush=True)
            return json.loads(self.process.stdout.readline())


class Stage:
    """Everything that a run of cases shares; made once."""

    def __init__(self) -> None:
        self.gateway = Scripted()
        self.pool = Pool(AT_ONCE)
        self.threads = concurrent.futures.ThreadPoolExecutor(AT_ONCE * 3)
        self.folder = Path(tempfile.mkdtemp(prefix="sdk-contract-"))
        self.certificates = certificates_of.make(self.folder)
        self.futures: dict[tuple[str, str, str], concurrent.futures.Future[Played]] = {}

    def begin(self, wanted: list[tuple[Case, str, str]]) -> None:
        """Starts all that was selected at once: most of the time goes by in time-outs."""
        for case, sdk, mode in wanted:
            key = (case.id, sdk, mode)
            if key not in self.futures:
                self.futures[key] = self.threads.submit(self.play, case, sdk, mode)

    def result(self, case: Case, sdk: str, mode: str) -> Played:
        self.begin([(case, sdk, mode)])
        return self.futures[case.id, sdk, mode].result()

    def play(self, case: Case, sdk: str, mode: str) -> Played:
        driver = self.pool.take(sdk)
        try:
            return self.play_with(driver, case, sdk, mode)
        finally:
            self.pool.give(driver)

    def play_with(self, driver: Any, case: Case, sdk: str, mode: str) -> Played:
        tls = self.certificates.files(case.listen)
        opened = self.gateway.order(op="open", token=TOKEN, script=case.play, tls=tls)
        port, answers = opened["port"], []
        if case.listen == "refused":
            # Nobody listens there any more.
            self.gateway.order(op="close", port=port)
        scheme = "https" if tls else "http"
        url = (f"{scheme}://127.0.0.1:{{port}}" if case.url is None else case.url).format(port=port)
        for number, order in enumerate(case.orders(mode)):
            order |= {"id": f"{case.id} {number}", "gateway_url": url}
            if order["ca_file"]:
                order["ca_file"] = str(self.certificates.ca(order["ca_file"]))
            answers.append(driver.ask(order))
        closed = {"log": [], "connections": 0, "errors": []}
        if case.listen != "refused":
            closed = self.gateway.order(op="close", port=port)
        return Played(case, sdk, mode, answers, closed["log"], closed["connections"], closed["errors"])

    def stop(self) -> None:
        self.threads.shutdown(wait=False, cancel_futures=True)
        self.gateway.process.kill()
        self.pool.stop()


@functools.cache
def stage() -> Stage:
    made = Stage()
    atexit.register(made.stop)
    return made


def body_of(entry: dict[str, Any]) -> bytes:
    return base64.b64decode(entry["body_b64"])


def json_of(entry: dict[str, Any]) -> Any:
    return json.loads(body_of(entry))
