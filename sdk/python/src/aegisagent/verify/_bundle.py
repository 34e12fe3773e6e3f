"""An exported bundle: a few leaves byte for byte, with what opens their commitments."""

from __future__ import annotations

import hashlib
import json
import re
from typing import Any

from .._canon import CanonError, canonicalize, sha256_hex
from .._strict import parse_strict
from ._leaf import LeafView
from ._report import Broken, Report, Tampered, Unreadable
from ._shape import check_shape

FORMAT = "aegis-receipt-bundle-1"
_DOMAIN = b"aegis-commitment-1\0"
_MAX_SEQ = 2**64 - 1


def verify_bundle(raw: bytes) -> Report:
    """Shows that the leaves are what the log said, as far as their hashes are known from elsewhere."""
    report = Report()
    try:
        bundle = _members(_parse(raw), ("format", "node", "leaves"), ())
        entries = [_entry(each) for each in _list(bundle["leaves"])]
        form, node = _text(bundle["format"]), _text(bundle["node"])
        if form != FORMAT:
            raise Unreadable(f"unknown bundle format `{form}`")
    except Unreadable as fault:
        return report.fail(fault)
    report.node = node
    before: dict[str, Any] | None = None
    for entry in entries:
        try:
            _check(entry, before, node, report)
        except Broken as why:
            return report.fail(Tampered(entry["seq"], "bundle", str(why)))
        before = entry
    return report


def _check(entry: dict[str, Any], before: dict[str, Any] | None, node: str, report: Report) -> None:
    raw = entry["leaf"].encode("utf-8")
    view = LeafView.read(raw)
    if sha256_hex(raw) != entry["receipt_hash"]:
        raise Broken("its bytes do not have its `receipt_hash`")
    if view.seq != entry["seq"]:
        raise Broken(f"its `seq` is {view.seq}")
    if view.node != node:
        raise Broken(f"its `node` is `{view.node}`")
    if before is not None:
        _follows(before, view, report)
    if entry.get("opening") is not None:
        check_shape(view.value)
        if view.type_name != "intent.v1":
            raise Broken("it has an opening and no commitments")
        _open(entry["opening"], view.value)
        report.openings += 1
    report.count(view.type_name, view.ts, len(raw))
    report.last_hash = entry["receipt_hash"]


def _follows(before: dict[str, Any], view: LeafView, report: Report) -> None:
    if before["seq"] >= view.seq:
        raise Broken("it is not behind the leaf before it")
    if before["seq"] + 1 == view.seq:
        if view.prev != before["receipt_hash"]:
            raise Broken("its `prev_receipt_hash` is not the hash of the leaf before it")
    else:
        report.find(f"leaves {before['seq']} and {view.seq} are not neighbours: nothing here links them")


def _open(opening: dict[str, Any], intent: dict[str, Any]) -> None:
    """Whether an action is the one the leaf committed to, and the one it names."""
    action = opening["action"].encode("utf-8")
    if sha256_hex(action) != opening["action_hash"]:
        raise Broken("the opened action does not have its `action_hash`")
    try:
        value = parse_strict(action)
        if canonicalize(value) != action or not isinstance(value, dict) or "parameters" not in value:
            raise Broken("the opened action is not canonical")
        parameters = canonicalize(value["parameters"])
    except CanonError:
        raise Broken("the opened action is not canonical") from None
    salt = bytes.fromhex(opening["salt"])
    for member, what, raw in (
        ("action_commitment", "action", action),
        ("parameters_commitment", "parameters", parameters),
    ):
        if hashlib.sha256(_DOMAIN + salt + hashlib.sha256(raw).digest()).hexdigest() != intent[member]:
            raise Broken(f"`{member}` is not a commitment to the opened {what}")
    resource = value.get("resource")
    names_it = (
        value.get("tool") == intent["tool"]
        and value.get("action") == intent["action"]
        and (resource if isinstance(resource, str) else None) == intent.get("resource")
        and value.get("mutates_state") is intent["mutates_state"]
    )
    if not names_it:
        raise Broken("the leaf names another action than the opened one")


def _parse(raw: bytes) -> Any:
    """Plain JSON: what a bundle may hold is settled member by member."""
    try:
        value = json.loads(raw.decode("utf-8"), object_pairs_hook=_once, parse_constant=_refuse)
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except (ValueError, RecursionError):
        raise Unreadable(f"not a bundle: {_why(raw)}") from None
    return value


def _why(raw: bytes) -> str:
    try:
        parse_strict(raw, len(raw))
    except CanonError as error:
        return re.sub("^not valid JSON: ", "", str(error))
    return "it is no JSON that a bundle can be"


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise Unreadable("not a bundle: a member is there twice")
    return members


def _refuse(word: str) -> Any:
    raise ValueError(word)


def _entry(value: Any) -> dict[str, Any]:
    entry = _members(value, ("seq", "receipt_hash", "leaf"), ("opening",))
    seq = entry["seq"]
    if isinstance(seq, bool) or not isinstance(seq, int) or not 0 <= seq <= _MAX_SEQ:
        raise Unreadable("not a bundle: `seq` is no number of a leaf")
    _digest(entry["receipt_hash"])
    _text(entry["leaf"])
    if entry.get("opening") is not None:
        opening = entry["opening"] = _members(entry["opening"], ("action", "action_hash", "salt"), ())
        _text(opening["action"])
        _digest(opening["action_hash"])
        if not re.fullmatch("[0-9a-fA-F]{64}", _text(opening["salt"])):
            raise Unreadable("not a bundle: `salt` is not 32 bytes in hex")
    return entry


def _members(value: Any, required: tuple[str, ...], optional: tuple[str, ...]) -> dict[str, Any]:
    """The members of an object, or of an array that lists them in order, which the gateway's verifier reads too."""
    names = required + optional
    if isinstance(value, list) and len(required) <= len(value) <= len(names):
        value = dict(zip(names, value))
    if not isinstance(value, dict):
        raise Unreadable("not a bundle: expected an object")
    for name in value:
        if name not in names:
            raise Unreadable(f"not a bundle: unknown field `{name}`")
    for name in required:
        if name not in value:
            raise Unreadable(f"not a bundle: missing field `{name}`")
    return value


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise Unreadable("not a bundle: `leaves` is no array")
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise Unreadable("not a bundle: expected a string")
    return value


def _digest(value: Any) -> str:
    if not re.fullmatch("[0-9a-f]{64}", _text(value)):
        raise Unreadable("not a bundle: expected 64 lowercase hex digits")
    return str(value)
