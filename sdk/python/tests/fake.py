"""A gateway that answers by a script, on a real socket. Hashes come from the `rfc8785` package, not from the SDK."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from datetime import datetime, timedelta, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import rfc8785

TOKEN = "aegis_agt_canaryCANARY7Qx2"
Answer = tuple[int, dict[str, Any]]

ENTRIES: dict[str, dict[str, Any]] = {
    "github.merge_pull_request": {
        "name": "github.merge_pull_request",
        "resource": "{owner}/{repo}#{pull_number}",
        "mutates_state": True,
        "risk": "high",
        "parameters": {"merge_method": {}, "sha": {}},
        "aliases": {"pr_number": "pull_number", "method": "merge_method"},
    },
    "shop.refund": {
        "name": "shop.refund",
        "resource": None,
        "mutates_state": True,
        "risk": "high",
        "parameters": {"amount": {}},
        "aliases": {},
    },
}


class Gateway:
    """`script` maps a step to answers, each used once; then the default is given again."""

    def __init__(self) -> None:
        self.script: dict[str, list[Any]] = {}
        self.asked: list[tuple[str, Any]] = []
        self.raw: list[bytes] = []
        self.connections = 0
        self.hash = ""
        self.dry_run = False
        gateway = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def setup(self) -> None:
                gateway.connections += 1
                super().setup()

            def do_GET(self) -> None:
                self.answer()

            def do_POST(self) -> None:
                self.answer()

            def answer(self) -> None:
                raw = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                assert self.headers["Authorization"] == f"Bearer {TOKEN}"
                made = gateway.answer(self.path, raw)
                if made is None:
                    self.close_connection = True
                    return
                status, body = made
                content = json.dumps(body).encode() if status != 204 else b""
                self.send_response(status)
                kind = "application/json" if status == 200 else "application/problem+json"
                self.send_header("Content-Type", kind)
                for name, value in body.pop("headers", {}).items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    def __enter__(self) -> Gateway:
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()

    @property
    def steps(self) -> list[str]:
        return [step for step, _ in self.asked]

    def body(self, step: str, at: int = -1) -> Any:
        return [body for asked, body in self.asked if asked == step][at]

    def answer(self, path: str, raw: bytes) -> Answer | None:
        body: Any = json.loads(raw) if raw else None
        step = step_of(path)
        self.asked.append((step, body))
        self.raw.append(raw)
        if step == "authorize":
            self.hash, self.dry_run = hash_of(body["tool_call"]), body["dry_run"]
        scripted = self.script.get(step, [])
        chosen = scripted.pop(0) if scripted else "default"
        if callable(chosen):
            chosen = chosen()
        if chosen is None or isinstance(chosen, tuple):
            return chosen
        return 204 if step == "outcome" else 200, self.content(step, path, chosen)

    def content(self, step: str, path: str, chosen: str) -> dict[str, Any]:
        if step == "catalog":
            return dict(ENTRIES[path.rsplit("/", 1)[1]])
        if step == "approval":
            status = "approved" if chosen == "default" else chosen
            return {"approval_id": "apr_1", "status": status, "action_hash": self.hash}
        if step == "outcome":
            return {}
        return self.decision("allow" if chosen == "default" else chosen)

    def decision(self, word: str, **more: Any) -> dict[str, Any]:
        made: dict[str, Any] = {
            "decision_id": "dec_1",
            "decision": word,
            "reason": "because",
            "message": f"said: {word}",
            "action_hash": self.hash,
            "canon_version": "aegis-jcs-1",
            "matched_policies": ["p"],
            "risk": {"level": "high", "class": "write"},
            "effective_trust": "semi_trusted_customer",
            "receipt": {"receipt_id": "rcp_n1_1", "receipt_hash": "1" * 64, "prev_receipt_hash": "2" * 64},
            "dry_run": self.dry_run,
        }
        if word == "require_approval":
            made["approval"] = {
                "approval_id": "apr_1",
                "status": "pending",
                "approver_group": "leads",
                "expires_at": instant(900),
                "action_hash": self.hash,
            }
        return {**made, **more}


def step_of(path: str) -> str:
    last = path.rsplit("/", 1)[1]
    if last in ("authorize", "consume", "outcome"):
        return last
    return "catalog" if path.startswith("/v1/actions/") else "approval"


def problem(status: int, reason: str, **more: Any) -> Answer:
    return status, {"type": f"urn:aegis:problem:{reason}", "title": reason, "status": status, "detail": "told", **more}


def slow(seconds: float, answer: Any) -> Any:
    def late() -> Any:
        time.sleep(seconds)
        return answer

    return late


def instant(seconds: float) -> str:
    at = datetime.now(timezone.utc) + timedelta(seconds=seconds)
    return at.strftime("%Y-%m-%dT%H:%M:%S.") + f"{at.microsecond // 1000:03}Z"


def hash_of(call: dict[str, Any]) -> str:
    return hashlib.sha256(rfc8785.dumps({**call, "parameters": folded(call["parameters"])})).hexdigest()


def folded(value: Any) -> Any:
    if isinstance(value, str) and len(value.encode()) > 65_536:
        return {"$bulk": {"bytes": len(value.encode()), "sha256": hashlib.sha256(value.encode()).hexdigest()}}
    if isinstance(value, list):
        return [folded(item) for item in value]
    return {key: folded(item) for key, item in value.items()} if isinstance(value, dict) else value
