"""One decision path: the proxy and `POST /v1/authorize` say the same of the same action."""

from __future__ import annotations

from typing import Any

import pytest

from harness.gateway import Agent, Gateway
from upstreams.strict_origin import StrictOrigin

pytestmark = pytest.mark.binary
HEAD = "6dcb09b5b57875f334f61aebed695e2e4193db5e"


def call(action: str, resource: str | None, mutates: bool, **parameters: Any) -> dict[str, Any]:
    return {
        "tool": "github",
        "action": action,
        "resource": resource,
        "mutates_state": mutates,
        "parameters": parameters,
    }


PAIRS: list[tuple[str, str, Any, dict[str, Any], str]] = [
    ("GET", "/repos/octo/hello", None, call("get_repository", "octo/hello", False), "allow"),
    ("GET", "/repos/OCTO/Hello", None, call("get_repository", "octo/hello", False), "allow"),
    ("GET", "/repos/octo/hello/issues?state=all&per_page=5", None,
     call("list_issues", "octo/hello", False, state="all", per_page=5), "allow"),
    ("POST", "/repos/octo/hello/issues", {"title": "a", "labels": ["x"]},
     call("create_issue", "octo/hello", True, title="a", labels=["x"]), "allow"),
    ("POST", "/repos/octo/hello/issues/7/comments", {"body": "añadir 😀"},
     call("add_issue_comment", "octo/hello#7", True, body="añadir 😀"), "allow"),
    ("POST", "/repos/octo/hello/pulls", {"title": "t", "head": "topic", "base": "main", "draft": False},
     call("create_pull_request", "octo/hello", True, title="t", head="topic", base="main", draft=False), "allow"),
    ("PUT", "/repos/octo/hello/contents/notes/a%20b.txt", {"message": "m", "content": "aGk=", "branch": "topic"},
     call("create_or_update_file", "octo/hello", True, path="notes/a b.txt", message="m", content="aGk=", branch="topic"), "allow"),
    ("PUT", "/repos/octo/hello/contents/notes%2Fa%20b.txt", {"message": "m", "content": "aGk=", "branch": "topic"},
     call("create_or_update_file", "octo/hello", True, path="notes/a b.txt", message="m", content="aGk=", branch="topic"), "allow"),
    ("PUT", "/repos/octo/hello/contents/big.txt", {"message": "m", "content": "QUFB" * 30_000, "branch": "topic"},
     call("create_or_update_file", "octo/hello", True, path="big.txt", message="m", content="QUFB" * 30_000, branch="topic"), "allow"),
    ("PUT", "/repos/octo/hello/contents/.github/workflows/x.yml", {"message": "m", "content": "aGk="},
     call("create_or_update_file", "octo/hello", True, path=".github/workflows/x.yml", message="m", content="aGk="), "deny"),
    ("DELETE", "/repos/octo/hello", None, call("delete_repository", "octo/hello", True), "deny"),
    ("PUT", "/repos/octo/hello/pulls/7/merge", {"merge_method": "squash"},
     call("merge_pull_request", "octo/hello#7", True, merge_method="squash"), "require_approval"),
    ("PUT", "/repos/octo/hello/pulls/7/merge", None, call("merge_pull_request", "octo/hello#7", True), "require_approval"),
]  # fmt: skip


@pytest.fixture(autouse=True)
def answers(origin: StrictOrigin) -> None:
    pull = {
        "head": {"sha": HEAD, "ref": "topic"},
        "base": {"ref": "main"},
        "draft": False,
        "user": {"login": "mallory"},
    }
    origin.answer("GET", "/repos/octo/hello/pulls/7", pull)
    origin.answer("GET", "/repos/octo/hello/branches/main", {"name": "main", "protected": True})
    origin.answer("GET", "/repos/octo/hello/branches/topic", {"name": "topic", "protected": False})
    origin.answer("GET", "/repos/octo/hello", {"full_name": "octo/hello", "default_branch": "main"})


@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: f"{pair[3]['action']} {pair[0]} {pair[1]}"[:70])
def test_same_decision_and_hash(pair: tuple, gateway: Gateway, agent: Agent) -> None:
    method, path, body, tool_call, expected = pair
    proxied = gateway.call(agent, method, path, json=body)
    asked = gateway.authorize(agent, tool_call, dry_run=True)
    assert asked.status_code == 200, asked.text
    record = asked.json()
    assert (proxied.headers["aegis-decision"], proxied.headers["aegis-action-hash"]) == (
        record["decision"],
        record["action_hash"],
    )
    assert record["decision"] == expected, record
    leaf = gateway.leaf_of(proxied.headers["aegis-receipt"])
    assert [leaf[key] for key in ("tool", "action", "resource", "mutates_state")] == [
        tool_call[key] for key in ("tool", "action", "resource", "mutates_state")
    ]
    other = gateway.leaf_of(record["receipt"]["receipt_id"])
    assert (other["policies"], other["door"]) == (leaf["policies"], "sdk")


def test_requests_with_different_effects_have_different_hashes(gateway: Gateway, agent: Agent) -> None:
    def hash_of(method: str, path: str, body: Any = None) -> str:
        return gateway.call(agent, method, path, json=body).headers["aegis-action-hash"]

    issues = "/repos/octo/hello/issues"
    variants = [
        hash_of("GET", issues), hash_of("GET", issues + "?page=1"), hash_of("GET", issues + "?page=2"),
        hash_of("GET", "/repos/octo/other/issues"), hash_of("POST", issues, {"title": "a"}), hash_of("POST", issues, {"title": "b"}),
        hash_of("POST", issues, {"title": "a", "unknown": None}), hash_of("POST", issues, {"title": "a", "unknown": 0}),
    ]  # fmt: skip
    assert len(set(variants)) == len(variants)


def test_spelling_alone_changes_nothing(gateway: Gateway, agent: Agent) -> None:
    url, key = "/repos/octo/hello/issues", {"Content-Type": "application/json"}
    texts = ['{"title":"a","body":"b"}', '{ "body" : "b",\n "title" : "a" }', '{"t\\u0069tle":"a","body":"b"}']
    hashes = {gateway.call(agent, "POST", url, data=text, headers=key).headers["aegis-action-hash"] for text in texts}
    assert len(hashes) == 1
