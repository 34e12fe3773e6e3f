"""Outcomes and the intents they name, in bounded memory."""

from __future__ import annotations

from typing import Any

from ._leaf import LeafView, raw_text, unsigned
from ._report import Broken

MAX_WAITING = 1_000_000
_OWN_DOORS = ("route", "connect", "sql")


class Links:
    """Allowed intents that wait for an outcome."""

    def __init__(self) -> None:
        # In the order of their numbers, which is the order they come in.
        self._open: dict[int, tuple[str, bool]] = {}
        self._forgotten: int | None = None
        self._forgotten_forwarded = 0

    def follow(self, view: LeafView) -> str | None:
        """Follows a leaf. `Broken` is a reference that cannot be; a text is one that is odd."""
        if view.type_name == "intent.v1":
            self._intent(view)
            return None
        odd: int | None = None
        if view.type_name == "outcome.v1":
            link = _link(view.value)
            if link is None:
                raise Broken("its reference to an intent is missing")
            if not self._outcome(view.seq, *link):
                odd = link[0]
        elif view.type_name == "outcomes.v1":
            odd = self._outcomes(view)
        if odd is None:
            return None
        return f"leaf {view.seq} has an outcome for leaf {odd}, which does not wait for one"

    def without_outcome(self) -> int:
        """Allowed intents of the gateway's own doors that have no outcome."""
        return self._forgotten_forwarded + sum(forwarded for _, forwarded in self._open.values())

    def _outcomes(self, view: LeafView) -> int | None:
        if "entries" not in view.value:
            raise Broken("`entries` is missing")
        entries = view.value["entries"]
        if not isinstance(entries, list):
            raise Broken("`entries` is no array")
        odd: int | None = None
        for entry in entries:
            link = _link(entry)
            if link is None:
                raise Broken("an entry's reference to an intent is missing")
            if not self._outcome(view.seq, *link):
                odd = link[0]
        return odd

    def _intent(self, view: LeafView) -> None:
        decision, decision_id = raw_text(view.value.get("decision")), raw_text(view.value.get("decision_id"))
        if decision is None or decision_id is None:
            raise Broken("`decision` or `decision_id` is missing")
        if decision != "allow" or view.value.get("dry_run") is True:
            return
        self._open[view.seq] = (decision_id, view.value.get("door") in _OWN_DOORS)
        if len(self._open) > MAX_WAITING:
            first = next(iter(self._open))
            _, forwarded = self._open.pop(first)
            self._forgotten = first
            self._forgotten_forwarded += forwarded

    def _outcome(self, own_seq: int, intent_seq: int, decision_id: str) -> bool:
        if intent_seq >= own_seq:
            raise Broken(f"it is the outcome of leaf {intent_seq}, which is not before it")
        waiting = self._open.pop(intent_seq, None)
        if waiting is not None:
            if waiting[0] != decision_id:
                raise Broken(f"its `decision_id` is not that of leaf {intent_seq}")
            return True
        return self._forgotten is not None and intent_seq <= self._forgotten


def _link(value: Any) -> tuple[int, str] | None:
    if not isinstance(value, dict):
        return None
    seq, decision_id = unsigned(value.get("intent_seq")), raw_text(value.get("decision_id"))
    return None if seq is None or decision_id is None else (seq, decision_id)
