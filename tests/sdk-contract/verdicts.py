"""What must hold of a case that was played: what it says itself, and what holds of every one."""

from __future__ import annotations

import hashlib
import json
import re
from typing import Any

import rfc8785

import answers
from casefile import ACTION, RESULT_MARK, TOKEN, Case
from played import Played, body_of, json_of

ERROR_MEMBERS = {"code", "reason", "message", "status", "decision_id", "receipt_id", "approval_id", "type"}
CODES = {
    "denied", "approval_rejected", "approval_expired", "approval_cancelled", "approval_timeout", "approval_replayed",
    "approval_stale", "consume_unknown", "action_hash_mismatch", "unauthenticated", "agent_stopped", "request_refused",
    "request_conflict", "rate_limited", "gateway_unavailable", "gateway_timeout", "tls_error", "unexpected_answer",
    "not_canonical", "configuration",
}  # fmt: skip
MAX_TRIES = 3
# Every request_id of this run, and whose it is.
SEEN: dict[str, tuple[str, str, str]] = {}
SLACK_SECONDS = 1.5


def faults(played: Played) -> list[str]:
    """Everything that is wrong, in words. Nothing is what a test wants to see."""
    found = [*played.errors]
    for check in (
        of_errors,
        of_runs,
        of_requests,
        of_headers,
        of_resends,
        of_secrets,
        of_outcome,
        of_action,
        of_time,
        of_case,
    ):
        found += check(played, played.case)
    return found


def of_errors(played: Played, case: Case) -> list[str]:
    found = []
    *earlier, last = played.answers
    for answer in earlier:
        if answer["error"] is not None and not case.code:
            found.append(f"an earlier call failed: {answer['error']}")
    error = last["error"]
    code = error and error["code"]
    if code not in case.codes:
        found.append(f"the code is {code}, not {case.code}: {error}")
    if error and code != "body":
        if code not in CODES:
            found.append(f"no such code: {code}")
        if missing := ERROR_MEMBERS - set(error):
            found.append(f"an error without {sorted(missing)}")
        if not error.get("message") or not error.get("type"):
            found.append("an error without message or type")
    for name, wanted in case.has.items():
        if not fits(error and error.get(name), wanted):
            found.append(f"the error's {name} is {error and error.get(name)!r}, not {wanted!r}")
    return found


def fits(value: Any, wanted: Any) -> bool:
    """`/…/` is a pattern that has to be found, anything else has to be equal."""
    if isinstance(wanted, str) and len(wanted) > 2 and wanted[0] == wanted[-1] == "/":
        return isinstance(value, str) and re.search(wanted[1:-1], value) is not None
    return bool(value == wanted)


def of_runs(played: Played, case: Case) -> list[str]:
    found = []
    ran = sum(answer["ran"] for answer in played.answers)
    wanted = case.runs * (len(case.calls) or 1) if case.ran is None else case.ran
    if len(case.codes) > 1 and None in case.codes:
        wanted = sum(answer["error"] is None for answer in played.answers)
    if ran != wanted:
        found.append(f"the body ran {ran} times, not {wanted}")
    if case.decision and played.answers[-1].get("decision") != case.decision:
        found.append(f"the decision is {played.answers[-1].get('decision')!r}, not {case.decision!r}")
    returned = case.orders(played.mode)[-1]["returns"] if case.result is None else case.result
    result = played.answers[-1].get("result")
    if wanted and case.codes == [None] and result != returned:
        found.append(f"the result is {result!r}, not {returned!r}")
    if not wanted and result is not None:
        found.append(f"a result without a run: {result!r}")
    return found


def of_requests(played: Played, case: Case) -> list[str]:
    found = []
    for entry in played.log:
        found += [f"{entry['step']}: {fault}" for fault in entry["faults"]]
        if entry["step"] in ("unknown", "elsewhere"):
            found.append(f"it asked for {entry['method']} {entry['path']} ({entry['step']})")
    steps = [entry["step"] for entry in played.log]
    if case.asked is not None:
        pattern = "".join(f"(?:{s[:-1]} )*" if s.endswith("*") else f"{s} " for s in case.asked)
        if not re.fullmatch(pattern, "".join(f"{step} " for step in steps)):
            found.append(f"the requests were {steps}, not {case.asked}")
    for step, bounds in case.times.items():
        low, high = bounds if isinstance(bounds, list) else (bounds, bounds)
        if not low <= steps.count(step) <= high:
            found.append(f"{step} was asked {steps.count(step)} times, not {low} to {high}")
    for entry in played.of("consume"):
        if any(other["connection"] == entry["connection"] for other in played.log if other is not entry):
            found.append("consume was sent on a connection that another request was on")
    if case.connections is not None and played.connections > case.connections:
        found.append(f"{played.connections} connections, not {case.connections}")
    return found


def of_headers(played: Played, case: Case) -> list[str]:
    found = []
    for entry in played.log:
        headers: dict[str, list[str]] = {}
        for name, value in entry["headers"]:
            headers.setdefault(name.lower(), []).append(value)
        found += [f"{entry['step']}: {name} twice" for name, values in headers.items() if len(values) > 1]
        kind = headers.get("content-type", [""])[0]
        if entry["method"] == "POST" and not kind.lower().startswith("application/json"):
            found.append(f"{entry['step']}: content-type {kind!r}")
        if entry["method"] == "POST" and "content-length" not in headers:
            found.append(f"{entry['step']}: no content-length")
        if "host" not in headers or not headers["host"][0].startswith(("127.0.0.1:", "localhost:")):
            found.append(f"{entry['step']}: host {headers.get('host')}")
        if headers.get("accept-encoding", ["identity"]) != ["identity"]:
            found.append(f"{entry['step']}: asks for {headers['accept-encoding']}, and 1 MiB is counted unpacked")
        for name in ("expect", "transfer-encoding", "cookie", "upgrade", "proxy-authorization", "referer"):
            if name in headers:
                found.append(f"{entry['step']}: {name} is sent")
    return found


def of_resends(played: Played, case: Case) -> list[str]:
    found = []
    ids: dict[str, bytes] = {}
    for entry in played.of("authorize"):
        body = body_of(entry)
        try:
            name = json.loads(body).get("request_id")
        except ValueError:
            continue
        if not isinstance(name, str) or len(name) < 16:
            found.append(f"request_id is {name!r}")
        elif ids.setdefault(name, body) != body:
            found.append("sent again with another body")
    if ids and len(ids) != len(played.answers):
        found.append(f"{len(ids)} request_ids for {len(played.answers)} calls")
    own = (played.sdk, played.mode, case.id)
    found += [f"request_id {name} was another call's" for name in ids if SEEN.setdefault(name, own) != own]
    if len(played.of("authorize")) > MAX_TRIES * len(played.answers):
        found.append(f"authorize was sent {len(played.of('authorize'))} times")
    if len(played.of("consume")) > len(played.answers):
        found.append(f"consume was sent {len(played.of('consume'))} times")
    for entry in played.of("consume"):
        body = json_of(entry)
        if body.get("tool_call") is None or answers.hash_of(body["tool_call"]) != body["action_hash"]:
            found.append("consume without its `tool_call`, or with another's hash")
    return found


def of_secrets(played: Played, case: Case) -> list[str]:
    found = []
    told = json.dumps(played.answers)
    if TOKEN in told or TOKEN[14:30] in told:
        found.append("the token is in what the caller gets")
    for entry in played.log:
        others = [
            value for name, value in entry["headers"] if name.lower() not in ("authorization", "aegis-agent-token")
        ]
        if TOKEN[14:30] in " ".join([entry["path"], *others]) or TOKEN.encode() in body_of(entry):
            found.append(f"the token is in {entry['step']} outside its header")
        if RESULT_MARK.encode() in body_of(entry):
            found.append(f"the result was sent ({entry['step']})")
    return found


def of_outcome(played: Played, case: Case) -> list[str]:
    sent = played.of("outcome")
    runs = sum(answer["ran"] for answer in played.answers)
    if not runs or case.outcome == "none":
        return [f"an outcome of nothing: {json_of(entry)}" for entry in sent if not runs]
    if len({body_of(entry) for entry in sent}) != 1 and len(played.answers) == 1:
        return [f"{len(sent)} outcomes that differ, or none"]
    found = []
    for entry in sent:
        outcome = json_of(entry)
        kind = case.outcome or "digest"
        wanted: dict[str, Any] = {"status": "failed" if kind == "failed" else "completed"}
        if kind == "digest":
            raw = digested(case.orders(played.mode)[-1]["returns"], "stream" in played.mode)
            wanted |= {"result_digest": hashlib.sha256(raw).hexdigest(), "result_bytes": len(raw)}
        if {key: value for key, value in outcome.items() if value is not None} != wanted:
            found.append(f"the outcome is {outcome}, not {wanted}")
    return found


def digested(result: Any, stream: bool) -> bytes:
    return b"".join(rfc8785.dumps(item) + b"\n" for item in result) if stream else rfc8785.dumps(result)


def of_action(played: Played, case: Case) -> list[str]:
    found = []
    wanted = {**ACTION, **(case.action or {})}
    for entry in played.of("authorize"):
        try:
            content = json_of(entry)
        except ValueError:
            continue
        call = content["tool_call"]
        if case.action is not None or (not case.call.get("args") and not case.calls and "tool" not in case.call):
            if rfc8785.dumps(call) != rfc8785.dumps(wanted):
                found.append(f"the call is {call}, not {wanted}")
        for path, value in {"dry_run": bool(case.call.get("dry_run")), **case.body}.items():
            if (got := at(content, path, False if path == "dry_run" else "(gone)")) != value:
                found.append(f"{path} is {got!r}, not {value!r}")
    hashes = {answer["action_hash"] for answer in played.answers if answer["ran"]}
    if hashes and not case.calls and hashes != {answers.hash_of(json_of(played.of("authorize")[-1])["tool_call"])}:
        found.append(f"the hash told is {hashes}")
    return found


def at(content: Any, path: str, missing: Any) -> Any:
    for step in path.split("."):
        content = content.get(step) if isinstance(content, dict) else None
    return missing if content is None else content


def of_time(played: Played, case: Case) -> list[str]:
    found = []
    for order, answer in zip(case.orders(played.mode), played.answers, strict=True):
        waits = order["approval_timeout_s"] if played.of("approval") else 0
        limit = case.within or 2 * order["timeout_s"] + waits + SLACK_SECONDS
        if answer["elapsed_ms"] > limit * 1000:
            found.append(f"it took {answer['elapsed_ms']} ms, not {limit} s")
    return found


def of_case(played: Played, case: Case) -> list[str]:
    """Requests come with their pauses."""
    found = []
    for step, (low, high) in case.apart.items():
        sent = [entry["at"] for entry in played.of(step)]
        pauses = [round(late - early, 3) for early, late in zip(sent, sent[1:], strict=False)]
        if not pauses or any(not low <= pause <= high for pause in pauses):
            found.append(f"{step} was sent {pauses} s apart, not {low} to {high}")
    return found + of_polls(played, case)


def of_polls(played: Played, case: Case) -> list[str]:
    if case.gaps is None:
        return []
    polls = [entry["at"] for entry in played.of("approval")]
    gaps = [late - early for early, late in zip(polls, polls[1:], strict=False)]
    pairs = list(zip(gaps, case.gaps, strict=False))
    if len(gaps) < len(case.gaps) or any(not 0.9 * wanted <= gap <= wanted + 0.3 for gap, wanted in pairs):
        return [f"polls were {[round(gap, 3) for gap in gaps]} s apart, not {case.gaps}"]
    return []
