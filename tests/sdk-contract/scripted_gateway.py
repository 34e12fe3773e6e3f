#!/usr/bin/env python3
"""A gateway that answers by a script, good and bad, and keeps what it was asked.

    echo '{"op":"open","token":"aegis_agt_x","script":{"authorize":["allow"]}}' | python3 scripted_gateway.py

One JSON object per line in, one out. `open` starts listeners for one case and gives their ports, `close` ends them
and gives the log. A script has a list of answers for each step (catalog, authorize, approval, consume, outcome);
the last one is given again and again. `answers.py` says what an answer can be. Nothing of the SDKs is used here.
"""

from __future__ import annotations

import base64
import contextlib
import json
import re
import socket
import ssl
import struct
import sys
import threading
import time
from typing import Any

import answers
from answers import Asked, Made

STEPS = {
    "catalog": ("GET", re.compile(r"/v1/actions/([A-Za-z0-9_\-.]+)")),
    "authorize": ("POST", re.compile(r"/v1/authorize")),
    "approval": ("GET", re.compile(rf"/v1/approvals/({answers.APPROVAL_ID})")),
    "consume": ("POST", re.compile(rf"/v1/approvals/({answers.APPROVAL_ID})/consume")),
    "outcome": ("POST", re.compile(rf"/v1/decisions/({answers.DECISION_ID})/outcome")),
}
DEFAULT = {
    "catalog": ["entry"], "authorize": ["allow"], "approval": ["approved"], "consume": ["allow"], "outcome": ["noted"],
}  # fmt: skip
MEMBERS = {
    "authorize": {"tool_call", "context", "request_id", "trace", "user", "dry_run"},
    "consume": {"action_hash", "tool_call"},
    "outcome": {"status", "result_digest", "result_bytes"},
}
CALL = {"tool", "action", "resource", "mutates_state", "parameters"}
IDLE_SECONDS = 60.0
MAX_REQUEST = 8 * 1024 * 1024


class Case:
    """The listeners of one case, its script and its log."""

    def __init__(self, order: dict[str, Any]) -> None:
        self.script = {**DEFAULT, **order.get("script", {})}
        self.token = order["token"]
        self.played = dict.fromkeys(self.script, 0)
        self.log: list[dict[str, Any]] = []
        self.errors: list[str] = []
        self.accepted = 0
        self.hash, self.dry_run = "0" * 64, False
        self.lock, self.over = threading.Lock(), threading.Event()
        self.context = tls_context(order["tls"]) if order.get("tls") else None
        self.listeners: list[socket.socket] = []
        self.connections: list[socket.socket] = []
        self.port = self._listen(self._serve)
        self.elsewhere = self._listen(self._serve_elsewhere)
        self.places = {"elsewhere": f"127.0.0.1:{self.elsewhere}", "token": self.token, "port": str(self.port)}

    def close(self) -> dict[str, Any]:
        self.over.set()
        with self.lock:
            for each in [*self.listeners, *self.connections]:
                with contextlib.suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)
                each.close()
        return {"log": self.log, "connections": self.accepted, "errors": self.errors}

    def _listen(self, serve: Any) -> int:
        listener = fresh_listener()
        self.listeners.append(listener)
        threading.Thread(target=self._accept, args=(listener, serve), daemon=True).start()
        return int(listener.getsockname()[1])

    def _accept(self, listener: socket.socket, serve: Any) -> None:
        while not self.over.is_set():
            try:
                peer, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=self._connection, args=(peer, serve), daemon=True).start()

    def _connection(self, peer: socket.socket, serve: Any) -> None:
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with self.lock:
            self.accepted += 1
            number = self.accepted
        peer.settimeout(IDLE_SECONDS)
        try:
            if self.context and serve == self._serve:
                peer = self.context.wrap_socket(peer, server_side=True)
            with self.lock:
                self.connections.append(peer)
            serve(Wire(peer), number)
        except (OSError, Gone):
            pass
        except Exception as error:  # a defect of a script must not look like a gateway that hangs
            self.errors.append(f"{type(error).__name__}: {error}")
        finally:
            with contextlib.suppress(OSError):
                peer.close()

    def _serve_elsewhere(self, wire: Wire, number: int) -> None:
        head, _ = wire.request()
        self._note("elsewhere", head, b"", number)
        wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")

    def _serve(self, wire: Wire, number: int) -> None:
        while True:
            # Whether to read at all is the first answer's matter: a connection can be closed on sight.
            if self._closes_on_sight():
                return
            head, body = wire.request()
            step, name = step_of(head)
            entry = self._note(step, head, body, number)
            if step == "unknown":
                wire.send(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
                continue
            made = self._answer(step, name, entry, body)
            if made is None or not self._send(wire, made, head.split(" ", 1)[0]):
                return

    def _closes_on_sight(self) -> bool:
        with self.lock:
            left = self.script.get("on_sight", 0) - self.played.get("on_sight", 0)
            if left > 0:
                self.played["on_sight"] += 1
            return left > 0

    def _note(self, step: str, head: str, body: bytes, number: int) -> dict[str, Any]:
        line, *fields = head.split("\r\n")
        method, path, *_ = [*line.split(" "), "", ""]
        headers = [[name, value.strip()] for name, _, value in (each.partition(":") for each in fields)]
        entry = {
            "step": step, "method": method, "path": path, "headers": headers, "connection": number,
            "at": time.monotonic(), "body_b64": base64.b64encode(body).decode(), "faults": [],
        }  # fmt: skip
        with self.lock:
            self.log.append(entry)
        return entry

    def _answer(self, step: str, name: str, entry: dict[str, Any], body: bytes) -> Made | None:
        faults = entry["faults"]
        given = [value for key, value in entry["headers"] if key.lower() in ("authorization", "aegis-agent-token")]
        if given not in ([f"Bearer {self.token}"], [self.token]):
            faults.append(f"{len(given)} credentials, or not the agent's token")
        if step in MEMBERS:
            self._read(step, body, faults)
        elif body:
            faults.append("a body on GET")
        if step == "catalog" and name not in answers.CATALOG and self.script["catalog"] == DEFAULT["catalog"]:
            missing = {"problem": {"status": 404, "reason": "not_found", "detail": "no such action"}}
            return answers.make(missing, Asked("", False, name), self.places)
        if step == "catalog":
            self.name = name
        with self.lock:
            script = self.script[step]
            answer = script[min(self.played[step], len(script) - 1)]
            self.played[step] += 1
        if answer == "hang":
            self.over.wait(IDLE_SECONDS)
            return None
        return answers.make(answer, Asked(self.hash, self.dry_run, self.name), self.places)

    name = ""

    def _read(self, step: str, body: bytes, faults: list[str]) -> None:
        """The gateway reads strictly, so what it would refuse is a fault here."""
        try:
            content = json.loads(body, object_pairs_hook=once)
            if extra := set(content) - MEMBERS[step]:
                faults.append(f"unknown members {sorted(extra)}")
            call = content.get("tool_call")
            if step == "outcome" or (step == "consume" and call is None):
                return
            if set(call) != CALL:
                faults.append(f"members of `tool_call` {sorted(call)}")
            extra = set(content.get("context") or {}) - {"source_trust", "contains_sensitive_data"}
            if extra or ("context" in content and not isinstance(content["context"], dict)):
                faults.append("`context` is not what the gateway takes")
            if step == "authorize":
                self.hash = answers.hash_of(call)
                self.dry_run = content.get("dry_run", False)
        except (ValueError, TypeError, AttributeError, KeyError) as error:
            faults.append(f"body: {error}")

    def _send(self, wire: Wire, made: Made, method: str) -> bool:
        """Whether the connection goes on."""
        how = made.wire
        if "delay" in how and self.over.wait(how["delay"]):
            return False
        if how.get("close"):
            if how["close"] == "reset":
                wire.reset()
            return False
        head = head_of(made)
        if "cut_head" in how:
            wire.send(head[: how["cut_head"]])
            return False
        if "early" in how:
            wire.send(how["early"].encode())
        self._drip(wire, head, how.get("drip_head", 0))
        body = chunked(made.body) if how.get("chunked") else made.body
        if "cut" in how:
            wire.send(body[: how["cut"]])
            return False
        self._drip(wire, body, how.get("drip_body", 0))
        if how.get("silent"):
            self.over.wait(IDLE_SECONDS)
        return not how.get("then_close")

    def _drip(self, wire: Wire, data: bytes, seconds: float) -> None:
        if not seconds:
            wire.send(data)
            return
        for at in range(len(data)):
            wire.send(data[at : at + 1])
            if self.over.wait(seconds):
                raise Gone


def fresh_listener() -> socket.socket:
    """On a port that no case before had: a client that remembers an address must not find another case there."""
    tried = []
    while True:
        listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        tried.append(listener)
        port = listener.getsockname()[1]
        if port not in PORTS:
            PORTS.add(port)
            for other in tried[:-1]:
                other.close()
            return listener


PORTS: set[int] = set()


class Gone(Exception):
    """The other side ended the connection, or the case is over."""


class Wire:
    """Requests out of a byte stream, nothing tolerated."""

    def __init__(self, peer: socket.socket) -> None:
        self.peer, self.data = peer, b""

    def request(self) -> tuple[str, bytes]:
        while b"\r\n\r\n" not in self.data:
            self._more()
            if self.data.startswith(b"\x16"):
                # A TLS handshake on a plain port, answered as servers do.
                self.send(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
                raise Gone
        raw, _, self.data = self.data.partition(b"\r\n\r\n")
        head = raw.decode("latin-1")
        lengths = re.findall(r"\r\ncontent-length:[ \t]*(\d+)", head, re.IGNORECASE)
        if re.search(r"\r\ntransfer-encoding:", head, re.IGNORECASE):
            return head, self._chunks()
        length = int(lengths[0]) if lengths else 0
        while len(self.data) < length:
            self._more()
        body, self.data = self.data[:length], self.data[length:]
        return head, body

    def _chunks(self) -> bytes:
        body = b""
        while True:
            while b"\r\n" not in self.data:
                self._more()
            line, _, self.data = self.data.partition(b"\r\n")
            size = int(line, 16)
            while len(self.data) < size + 2:
                self._more()
            body += self.data[:size]
            self.data = self.data[size + 2 :]
            if size == 0:
                return body

    def _more(self) -> None:
        got = self.peer.recv(65_536)
        if not got or len(self.data) > MAX_REQUEST:
            raise Gone
        self.data += got

    def send(self, data: bytes) -> None:
        self.peer.sendall(data)

    def reset(self) -> None:
        self.peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def step_of(head: str) -> tuple[str, str]:
    method, path, *_ = [*head.split("\r\n")[0].split(" "), "", ""]
    for step, (verb, pattern) in STEPS.items():
        if verb == method and (found := pattern.fullmatch(path)):
            return step, found[1] if found.groups() else ""
    return "unknown", ""


def head_of(made: Made) -> bytes:
    how = made.wire
    if "raw_head" in how:
        return how["raw_head"].replace("\n", "\r\n").encode()
    lines = [f"HTTP/1.1 {made.status} {how.get('phrase', 'Said')}"]
    names = {name.lower() for name, _ in made.headers}
    lines += [f"{name}: {value}" for name, value in made.headers]
    if how.get("chunked"):
        lines.append("Transfer-Encoding: chunked")
    elif "content-length" not in names and made.status != 204 and not how.get("until_close"):
        lines.append(f"Content-Length: {len(made.body) + how.get('length', 0)}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def chunked(body: bytes) -> bytes:
    parts = [body[at : at + 700] for at in range(0, len(body), 700)]
    return b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"


def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len({key for key, _ in pairs}) != len(pairs):
        raise ValueError("a member twice")
    return dict(pairs)


def tls_context(files: dict[str, str]) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files["certificate"], files["key"])
    return context


def main() -> None:
    cases: dict[int, Case] = {}
    for line in sys.stdin:
        order = json.loads(line)
        if order["op"] == "open":
            case = Case(order)
            cases[case.port] = case
            answer: dict[str, Any] = {"port": case.port, "elsewhere": case.elsewhere}
        else:
            answer = cases.pop(order["port"]).close()
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
