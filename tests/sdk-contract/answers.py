"""What a gateway says: good answers made from the request, and the ways in which a script bends them.

An answer in a script is a kind (`allow`), or a mapping of one kind to changes of its members, with
`wire` beside it for what happens below JSON:

    allow
    {allow: {decision: maybe, receipt.receipt_id: (gone)}}
    {allow: {}, wire: {status: 201, cut: 40}}

Members are named by path. `(gone)` removes one, `(flipped)` changes a digest's first digit, `(upper)` writes it in capitals,
`(in N s)` is an instant, and in a header `(date in N s)` an HTTP date.
"""

from __future__ import annotations

import datetime
import email.utils
import gzip
import hashlib
import json
import re
import time
from dataclasses import dataclass, field
from typing import Any

import rfc8785

BULK = 65_536
DECISION_ID, APPROVAL_ID, RECEIPT_ID = "dec_7f3k", "apr_9m2x", "rcp_n1_41"
AGENT_ID = "agt_1"

DECIDED = {"allow": "allow", "deny": "deny", "ask": "require_approval"}
STATUSES = ("pending", "approved", "rejected", "expired", "consumed", "cancelled")


def entry(
    name: str, resource: str | None, parameters: dict[str, Any], aliases: dict[str, str], **more: Any
) -> dict[str, Any]:
    tool, _, action = name.partition(".")
    return {
        "name": name, "tool": tool, "summary": action.replace("_", " "), "operation": action, "wire": f"POST /{action}",
        "class": "write", "risk": "high", "mutates_state": True, "resource": resource,
        "parameters": {key: {"type": kind, "required": False} for key, kind in parameters.items()},
        "facts": {}, "aliases": aliases, **more,
    }  # fmt: skip


CATALOG = {
    each["name"]: each
    for each in (
        entry(
            "github.merge_pull_request", "{owner}/{repo}#{pull_number}",
            {"commit_message": "string", "commit_title": "string", "merge_method": "string", "sha": "string"},
            {"pr_number": "pull_number", "number": "pull_number", "method": "merge_method"},
        ),
        entry(
            "github.create_issue", "{owner}/{repo}",
            {"title": "opaque", "body": "string", "assignees": {"list": "string"}, "labels": "opaque"},
            {}, risk="medium",
        ),
        entry("github.get_file_contents", "{owner}/{repo}", {"path": "string", "ref": "string"}, {"branch": "ref"},
              mutates_state=False, risk="low", **{"class": "read"}),
        entry("github.add_org_member", "{org}", {"role": "string"}, {"organization": "org"}, risk="critical"),
        entry("shop.refund", None, {"amount": "integer", "charge": "string"}, {"chargeId": "charge"}, **{"class": "money"}),
    )
}  # fmt: skip


def fold(value: Any) -> Any:
    """Long strings become their digests, as every implementation does it."""
    if isinstance(value, str):
        raw = value.encode()
        return {"$bulk": {"bytes": len(raw), "sha256": hashlib.sha256(raw).hexdigest()}} if len(raw) > BULK else value
    if isinstance(value, list):
        return [fold(item) for item in value]
    if isinstance(value, dict):
        return {key: fold(item) for key, item in value.items()}
    return value


def hash_of(tool_call: dict[str, Any]) -> str:
    """The action hash, by an RFC 8785 implementation that is none of ours."""
    return hashlib.sha256(rfc8785.dumps({**tool_call, "parameters": fold(tool_call["parameters"])})).hexdigest()


@dataclass
class Made:
    """An answer on its way out."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes
    wire: dict[str, Any] = field(default_factory=dict)


@dataclass
class Asked:
    """What answers are made from."""

    hash: str
    dry_run: bool
    name: str


def make(script: Any, asked: Asked, places: dict[str, str]) -> Made:
    """The bytes of one scripted answer. `places` fills `{elsewhere}` and `{token}` in."""
    kind, changes, wire = read(script)
    if kind == "noted":
        return bend(Made(204, [], b""), wire, places)
    if kind == "problem":
        reason = changes.get("reason", "some_reason")
        status = changes["status"]
        content: Any = {
            "type": f"urn:aegis:problem:{reason}", "title": reason.replace("_", " "), "status": status,
            "detail": changes.get("detail", "told by the script"),
        }  # fmt: skip
        if changes.get("receipt"):
            content["receipt"] = RECEIPT_ID
        if changes.get("decision"):
            content["decision"] = decision("deny", asked)
        headers = [("Content-Type", "application/problem+json"), ("Aegis-Reason", reason)]
        return bend(Made(status, headers, escaped(dumped(filled(content, places)), places)), wire, places)
    content = content_of(kind, asked)
    for path, value in changes.items():
        change(content, path.split("."), value)
    return bend(Made(200, [("Content-Type", "application/json")], escaped(dumped(filled(content, places)), places)), wire, places)


def escaped(body: bytes, places: dict[str, str]) -> bytes:
    """Puts the token where `{escaped_token}` stands, each letter as a JSON escape."""
    return body.replace(b"{escaped_token}", "".join(f"\\u{ord(letter):04x}" for letter in places["token"]).encode())


def read(script: Any) -> tuple[str, dict[str, Any], dict[str, Any]]:
    if isinstance(script, str):
        return script, {}, {}
    kinds = [key for key in script if key != "wire"]
    if len(kinds) != 1:
        raise ValueError(f"one kind per answer: {script}")
    return kinds[0], script[kinds[0]] or {}, script.get("wire") or {}


def content_of(kind: str, asked: Asked) -> dict[str, Any]:
    if kind in DECIDED:
        return decision(kind, asked)
    if kind in STATUSES:
        return {
            "approval_id": APPROVAL_ID, "tenant": "default", "agent_id": AGENT_ID, "route": "github",
            "action_hash": asked.hash, "version": None, "groups": ["platform-leads"], "quorum": 1, "status": kind,
            "action": asked.name, "resource": None, "risk": "high", "source_trust": "semi_trusted_customer",
            "policies": ["github-merge"], "snapshot": "0" * 64, "created_at": instant(0), "expires_at": instant(900),
            "settled_at": None, "settled_by": [], "payload": None,
        }  # fmt: skip
    if kind == "entry":
        return json.loads(json.dumps(CATALOG[asked.name]))
    raise ValueError(f"unknown kind of answer `{kind}`")


def decision(kind: str, asked: Asked) -> dict[str, Any]:
    made = {
        "decision_id": DECISION_ID, "decision": DECIDED[kind],
        "reason": {"allow": "allowed", "deny": "forbidden", "ask": "approval"}[kind],
        "message": f"{kind}: said the script", "action_hash": asked.hash, "canon_version": "aegis-jcs-1",
        "matched_policies": ["github-merge"], "risk": {"level": "high", "class": "write"},
        "effective_trust": "semi_trusted_customer",
        "receipt": {"receipt_id": RECEIPT_ID, "receipt_hash": "1" * 64, "prev_receipt_hash": "2" * 64},
        "dry_run": asked.dry_run,
    }  # fmt: skip
    if kind == "ask":
        made["approval"] = {
            "approval_id": APPROVAL_ID, "status": "pending", "approver_group": "platform-leads",
            "expires_at": instant(900), "action_hash": asked.hash,
        }  # fmt: skip
    return made


def change(content: Any, path: list[str], value: Any) -> None:
    *way, last = path
    for step in way:
        content = content.setdefault(step, {})
    if value == "(gone)":
        content.pop(last, None)
    elif value == "(flipped)":
        content[last] = ("0" if content[last][0] != "0" else "1") + content[last][1:]
    elif value == "(upper)":
        # A digest without letters would stay what it is.
        content[last] = content[last].upper() if re.search("[a-f]", content[last]) else "A" + content[last][1:]
    elif isinstance(value, str) and (seconds := re.fullmatch(r"\(in (-?[\d.]+) s\)", value)):
        content[last] = instant(float(seconds[1]))
    else:
        content[last] = value


def filled(value: Any, places: dict[str, str]) -> Any:
    if isinstance(value, str):
        for name, text in places.items():
            value = value.replace("{" + name + "}", text)
        return value
    if isinstance(value, dict):
        return {key: filled(item, places) for key, item in value.items()}
    return [filled(item, places) for item in value] if isinstance(value, list) else value


def bend(made: Made, wire: dict[str, Any], places: dict[str, str]) -> Made:
    """What a script does to an answer below JSON. What happens in time is left to the server."""
    made.wire = wire
    made.status = wire.get("status", made.status)
    for old, new in wire.get("replace", []):
        if old.encode() not in made.body:
            raise ValueError(f"{old!r} is not in the answer")
        made.body = made.body.replace(old.encode(), new.encode(), 1)
    if "body" in wire:
        made.body = filled(wire["body"], places).encode()
    if "hex" in wire:
        made.body = bytes.fromhex(wire["hex"])
    if "invalid_utf8" in wire:
        made.body = made.body.replace(b"said the script", b"said \xff\xfe script")
    made.body = wire.get("prepend", "").encode() + made.body + wire.get("append", "").encode()
    if "pad" in wire:
        made.body = made.body[:-1] + b',"pad":"' + b"x" * wire["pad"] + b'"}'
    if "nest" in wire:
        made.body = b'{"a":' * wire["nest"] + b"1" + b"}" * wire["nest"]
    if wire.get("gzip"):
        made.body = gzip.compress(made.body)
        made.headers.append(("Content-Encoding", "gzip"))
    for name, value in (wire.get("headers") or {}).items():
        made.headers = [pair for pair in made.headers if pair[0].lower() != name.lower()]
        for each in [] if value is None else value if isinstance(value, list) else [value]:
            if seconds := re.fullmatch(r"\(date in (-?\d+) s\)", str(each)):
                each = email.utils.formatdate(time.time() + int(seconds[1]), usegmt=True)
            made.headers.append((name, filled(str(each), places)))
    return made


def instant(seconds: float) -> str:
    at = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=seconds)
    return at.strftime("%Y-%m-%dT%H:%M:%S.") + f"{at.microsecond // 1000:03}Z"


def dumped(content: Any) -> bytes:
    return json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode()
