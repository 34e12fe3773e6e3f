"""From a function's arguments to the action that the catalog names (docs/sdk.md)."""

from __future__ import annotations

import re
import string
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ._action import Action, seal
from ._canon import CanonError, Writer, bounded
from ._errors import ConfigurationError, NotCanonicalError

RISKS = ("low", "medium", "high", "critical")
"""Lowest first."""


@dataclass(frozen=True)
class Entry:
    """What the SDK needs of a catalog entry."""

    tool: str
    action: str
    resource: str | None
    mutates_state: bool
    risk: str
    parameters: frozenset[str]
    aliases: Mapping[str, str]

    @property
    def known(self) -> frozenset[str]:
        """Names that an argument can have as they are."""
        return self.parameters | frozenset(variables(self.resource or ""))


def variables(template: str) -> list[str]:
    """Names in braces."""
    return _VARIABLE.findall(template)


def check_risk(entry: Entry, expected: str | None) -> None:
    """A catalog that takes a call more lightly than its author is an error."""
    if expected is not None and RISKS.index(entry.risk) < RISKS.index(expected):
        raise ConfigurationError(
            f"the catalog says that `{entry.tool}.{entry.action}` is of risk `{entry.risk}`, less than `{expected}`"
        )


def make_action(entry: Entry, arguments: Mapping[str, Any], own_resource: str | None) -> Action:
    """The sealed action of a call. `arguments` are the function's own names, without what is left out."""
    origins = _rename(entry, arguments)
    resource: str | None = None
    used: frozenset[str] = frozenset()
    if own_resource is not None:
        resource = _fill(own_resource, arguments)
        used = frozenset(variables(own_resource))
    elif entry.resource is not None:
        resource = _fill(entry.resource, {name: arguments[origin] for name, origin in origins.items()})
        used = frozenset(origins[name] for name in variables(entry.resource) if name in origins)
    named = {name: arguments[origin] for name, origin in origins.items() if origin not in used}
    try:
        return seal(entry.tool, entry.action, resource, entry.mutates_state, named)
    except CanonError as error:
        raise NotCanonicalError(_culprit(named, origins, error), reason=error.reason) from None


def _rename(entry: Entry, arguments: Mapping[str, Any]) -> dict[str, str]:
    """The catalog's names, and which argument each of them is."""
    known = entry.known
    origins: dict[str, str] = {}
    for origin in arguments:
        name = _name(entry, known, origin)
        if name in origins:
            raise ConfigurationError(f"the arguments `{origins[name]}` and `{origin}` are both `{name}` in the catalog")
        origins[name] = origin
    return origins


def _name(entry: Entry, known: frozenset[str], name: str) -> str:
    if name in known:
        return name
    if name in entry.aliases:
        return entry.aliases[name]
    snake = snake_case(name)
    if snake in known:
        return snake
    return entry.aliases.get(snake, name)


def snake_case(name: str) -> str:
    """`pullNumber` is `pull_number`, `HTMLUrl` is `html_url`; letters beyond ASCII stay."""
    return _LOWER_UPPER.sub("_", name).translate(_ASCII_LOWER)


def _fill(template: str, values: Mapping[str, Any]) -> str:
    filled: dict[str, str] = {}
    split = _split_owner(template, values)
    for name in variables(template):
        if split is not None and name in ("owner", "repo"):
            filled[name] = split[name == "repo"]
        elif name not in values:
            raise ConfigurationError(f"the resource `{template}` needs an argument `{name}`")
        else:
            filled[name] = _part(template, name, values[name])
    return _VARIABLE.sub(lambda match: filled[match.group(1)], template)


def _split_owner(template: str, values: Mapping[str, Any]) -> tuple[str, str] | None:
    """`repo="octo/payments"` where the template wants owner and repository."""
    repo = values.get("repo")
    if "{owner}/{repo}" not in template or "owner" in values or not isinstance(repo, str) or repo.count("/") != 1:
        return None
    owner, _, name = str.__str__(repo).partition("/")
    return owner, name


def _part(template: str, name: str, value: Any) -> str:
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int) and not isinstance(value, bool):
        try:
            return Writer(fold=False).text(value)
        except CanonError as error:
            raise NotCanonicalError(f"argument `{name}`: {error}", reason=error.reason) from None
    raise ConfigurationError(f"`{name}` in the resource `{template}` is neither a string nor an integer")


def _culprit(named: Mapping[str, Any], origins: Mapping[str, str], error: CanonError) -> str:
    """Which argument it was; the whole is at fault where each one alone holds."""
    for name, value in named.items():
        try:
            bounded(Writer(fold=True).text({name: value}, 1))
        except CanonError as own:
            return f"argument `{_printable(origins[name])}`: {own}"
    return str(error)


def _printable(name: str) -> str:
    return name.encode("utf-8", "replace").decode("utf-8")


_VARIABLE = re.compile(r"\{([^{}]+)\}")
_LOWER_UPPER = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_ASCII_LOWER = {ord(letter): letter.lower() for letter in string.ascii_uppercase}
