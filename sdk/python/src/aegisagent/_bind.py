"""A function's arguments under its own parameter names."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any, Callable

from ._errors import ConfigurationError
from ._mapping import variables

_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


class Binder:
    """Binds calls of one function. What does not fit its signature is an error when it is wrapped."""

    def __init__(self, function: Callable[..., Any], exclude: frozenset[str], resource: str | None) -> None:
        self.function = function
        try:
            self._signature = inspect.signature(function)
        except (TypeError, ValueError):
            raise ConfigurationError("the function has no signature to bind arguments by") from None
        parameters = list(self._signature.parameters.values())
        self._positional = _named(parameters, inspect.Parameter.VAR_POSITIONAL)
        self._keywords = _named(parameters, inspect.Parameter.VAR_KEYWORD)
        self._left_out = set(exclude)
        first = parameters[0] if parameters else None
        if first is not None and first.name in ("self", "cls") and first.kind in _POSITIONAL:
            self._left_out.add(first.name)
        if self._keywords is None:
            self._check({each.name for each in parameters}, exclude, resource)

    def arguments(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """Names and values of a call, defaults included, without what is left out. A `TypeError` as Python's own."""
        bound = self._signature.bind(*args, **kwargs)
        bound.apply_defaults()
        found = dict(bound.arguments)
        more = found.pop(self._keywords, {}) if self._keywords else {}
        if self._positional and not found[self._positional]:
            del found[self._positional]
        found.update(more)
        return {name: value for name, value in found.items() if value is not None and name not in self._left_out}

    def _check(self, names: set[str], exclude: frozenset[str], resource: str | None) -> None:
        for name in sorted(exclude - names):
            raise ConfigurationError(f"`exclude` names `{name}`, which is no parameter of the function")
        template = resource or ""
        for name in variables(template):
            from_repo = name == "owner" and "{owner}/{repo}" in template and "repo" in names
            if name not in names - self._left_out and not from_repo:
                raise ConfigurationError(
                    f"the resource `{template}` names `{name}`, which is no parameter of the function"
                )


def _named(parameters: Sequence[inspect.Parameter], kind: Any) -> str | None:
    return next((each.name for each in parameters if each.kind is kind), None)
