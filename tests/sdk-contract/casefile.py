"""Reads the cases. A word that no case may have is an error, so that a typo cannot make a test say nothing.

    - case: the gateway hashed another call         what is played, one line
      call: {dry_run: true}                         changes of the call below; or `calls`, a list of them
      play: {authorize: [{allow: {…}}]}             answers of each step, see answers.py
      code: action_hash_mismatch                    the error; a list where more than one is right; none: it runs
      ran: 0                                        how often the body runs (1 without a code, 0 with one)
      asked: [catalog, authorize]                   the requests in their order, `step*` for any number of it
      times: {authorize: [1, 3]}                    how many of a step at least and at most
      has: {reason: …, message: …, status: 403}     parts of the error
      action: {resource: …}                         what `tool_call` has to be, where it is not the default
      body: {context.source_trust: …}               members of the body of authorize; `(gone)` for none
      decision: deny                                what a dry run gives back
      outcome: none|digest|failed|no digest         what is reported afterwards
      result: …                                     what the caller gets, where it is not what the body returned
      listen: tls_expired                           how the gateway listens
      url: "http://127.0.0.1:{port}/"               where it is not the listener's own
      connections: 1                                how many were opened at most
      within: 3                                     seconds
      gaps: [0.25, 0.375]                           seconds between polls
      apart: {authorize: [1.5, 4]}                  seconds between requests of a step, at least and at most
      modes: all|plain|streams                      also as generators, as ordinary functions alone, as generators alone
      skip: {go: why}                               what a language cannot express

`!long N`, `!long_blanks N`, `!umlauts N`, `!strings N`, `!nested N` and `!surrogate HEX` stand for values too long to be written down.
"""

from __future__ import annotations

import copy
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

FOLDER = Path(__file__).resolve().parent / "cases"
TOKEN = "aegis_agt_c0ntr4ctCANARYtoken7Qx2LmZ9vT4kW8s"
RESULT_MARK = "result-that-must-never-be-sent"

CALL: dict[str, Any] = {
    "agent_token": TOKEN, "ca_file": None, "danger_plaintext": False, "timeout_s": 3, "approval_timeout_s": 4,
    "tool": "github", "action": "merge_pull_request", "risk": None, "resource": None, "exclude": [],
    "source_trust": None, "context_trust": None, "dry_run": False,
    "args": {"repo": "octo/payments", "pr_number": 482, "branch": "topic", "labels": ["a", "b"]},
    "on_pending": None, "returns": {"merged": True, "note": RESULT_MARK, "n": [1, 2.5]}, "fails": False,
}  # fmt: skip
ITEMS = [{"at": 1}, RESULT_MARK, None, [1.5, "é"]]
ACTION: dict[str, Any] = {
    "tool": "github", "action": "merge_pull_request", "resource": "octo/payments#482", "mutates_state": True,
    "parameters": {"branch": "topic", "labels": ["a", "b"]},
}  # fmt: skip


@dataclass
class Case:
    """One case as it stands in its file."""

    case: str
    file: str = ""
    call: dict[str, Any] = field(default_factory=dict)
    calls: list[dict[str, Any]] = field(default_factory=list)
    play: dict[str, Any] = field(default_factory=dict)
    code: Any = None
    ran: int | None = None
    asked: list[str] | None = None
    times: dict[str, Any] = field(default_factory=dict)
    has: dict[str, Any] = field(default_factory=dict)
    action: dict[str, Any] | None = None
    body: dict[str, Any] = field(default_factory=dict)
    decision: str | None = None
    outcome: str | None = None
    result: Any = None
    listen: str = "plain"
    url: str | None = None
    connections: int | None = None
    within: float | None = None
    gaps: list[float] | None = None
    apart: dict[str, list[float]] = field(default_factory=dict)
    modes: str = "functions"
    skip: dict[str, str] = field(default_factory=dict)

    @property
    def id(self) -> str:
        return f"{self.file}: {self.case}"

    @property
    def codes(self) -> list[Any]:
        return self.code if isinstance(self.code, list) else [self.code]

    @property
    def runs(self) -> int:
        return self.ran if self.ran is not None else int(self.code is None and self.decision is None)

    def orders(self, mode: str) -> list[dict[str, Any]]:
        """The calls as a driver gets them, without the gateway's address."""
        made = []
        for changes in self.calls or [self.call]:
            order = {
                **copy.deepcopy(CALL),
                "op": "call",
                "mode": mode,
                **copy.deepcopy(self.call),
                **copy.deepcopy(changes),
            }
            if "stream" in mode and "returns" not in {**self.call, **changes}:
                order["returns"] = copy.deepcopy(ITEMS)
            made.append(order)
        return made


class Loader(yaml.SafeLoader):
    """YAML with tags for what is too long to be written down."""


MADE = {
    "!long": lambda text: "x" * int(text),
    "!long_blanks": lambda text: " " * int(text),
    "!umlauts": lambda text: "ä" * int(text),
    "!strings": lambda text: ["y" * 60_000] * int(text),
    "!nested": lambda text: json.loads("[" * int(text) + "]" * int(text)),
    "!surrogate": lambda text: chr(int(text, 16)),
}
for tag, made in MADE.items():
    Loader.add_constructor(tag, lambda loader, node, made=made: made(loader.construct_scalar(node)))


def load() -> list[Case]:
    cases = []
    for path in sorted(FOLDER.glob("*.yaml")):
        for each in yaml.load(path.read_text(), Loader):
            try:
                case = Case(**each, file=path.stem)
            except TypeError as error:
                raise ValueError(f"{path.name}: {each.get('case')}: {error}") from None
            if unknown := {key for call in [case.call, *case.calls] for key in call} - set(CALL):
                raise ValueError(f"{path.name}: {case.case}: a call has no {sorted(unknown)}")
            cases.append(case)
    names = [case.id for case in cases]
    if len(set(names)) != len(names):
        raise ValueError(f"two cases with one name: {sorted(n for n in names if names.count(n) > 1)}")
    return cases
