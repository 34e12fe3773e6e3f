"""From arguments to an action."""

from __future__ import annotations

from typing import Any

import pytest

from aegisagent import ConfigurationError, NotCanonicalError
from aegisagent._mapping import Entry, make_action, snake_case

ENTRY = Entry(
    tool="github",
    action="merge_pull_request",
    resource="{owner}/{repo}#{pull_number}",
    mutates_state=True,
    risk="high",
    parameters=frozenset({"merge_method"}),
    aliases={"pr_number": "pull_number", "method": "merge_method"},
)


def made(arguments: dict[str, Any], resource: str | None = None, entry: Entry = ENTRY) -> tuple[Any, Any]:
    import json

    call = json.loads(make_action(entry, arguments, resource).tool_call)
    return call["resource"], call["parameters"]


@pytest.mark.parametrize(
    "arguments, resource, parameters",
    [
        ({"repo": "octo/pay", "pr_number": 4, "branch": "x"}, "octo/pay#4", {"branch": "x"}),
        ({"owner": "octo", "repo": "pay", "pull_number": 4}, "octo/pay#4", {}),
        ({"owner": "octo", "repo": "a/b", "pull_number": 4}, "octo/a/b#4", {}),
        ({"repo": "octo/pay", "prNumber": 4, "mergeMethod": "squash"}, "octo/pay#4", {"merge_method": "squash"}),
        ({"repo": "octo/pay", "pr_number": 4, "unknownName": 1}, "octo/pay#4", {"unknownName": 1}),
    ],
)
def test_names_and_resources(arguments: dict[str, Any], resource: str, parameters: dict[str, Any]) -> None:
    assert made(arguments) == (resource, parameters)


def test_a_template_of_the_wrapper_reads_the_functions_own_names() -> None:
    given = {"repo": "octo/pay", "pr_number": 4, "method": "squash"}
    assert made(given, "{repo}!{pr_number}") == ("octo/pay!4", {"merge_method": "squash"})


@pytest.mark.parametrize(
    "arguments",
    [
        {"repo": "octo/pay", "pr_number": 1, "pull_number": 1},
        {"repo": "octo/pay"},
        {"repo": "pay", "pr_number": 1},
        {"repo": "octo/pay/x", "pr_number": 1},
        {"repo": "octo/pay", "pr_number": True},
        {"repo": "octo/pay", "pr_number": 1.5},
        {"repo": "octo/pay", "pr_number": [1]},
    ],
)
def test_what_does_not_fit(arguments: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        make_action(ENTRY, arguments, None)


def test_an_argument_without_canonical_form_is_named() -> None:
    with pytest.raises(NotCanonicalError, match="argument `labels`") as refused:
        make_action(ENTRY, {"repo": "o/r", "pr_number": 1, "labels": [2**60]}, None)
    assert refused.value.reason == "number_range"


def test_what_is_sent_is_what_was_hashed_unless_folded() -> None:
    import hashlib

    plain = make_action(ENTRY, {"repo": "o/r", "pr_number": 1, "n": [1e-7, "é"]}, None)
    assert hashlib.sha256(plain.tool_call).hexdigest() == plain.hash
    long = make_action(ENTRY, {"repo": "o/r", "pr_number": 1, "text": "x" * 65_537}, None)
    assert b'"text":"' + b"x" * 65_537 + b'"' in long.tool_call


@pytest.mark.parametrize(
    "name, snake",
    [("pullNumber", "pull_number"), ("HTMLUrl", "html_url"), ("a1B", "a1_b"), ("x", "x"), ("ÄB", "Äb")],
)
def test_snake_case(name: str, snake: str) -> None:
    assert snake_case(name) == snake
