"""How far the content that drives the agent can be trusted."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from ._errors import ConfigurationError

LABELS = (
    "trusted_internal_signed",
    "trusted_internal_unsigned",
    "semi_trusted_customer",
    "untrusted_external",
    "malicious_suspected",
    "unknown",
)
"""Most trusted first."""

SOURCE_TRUST: ContextVar[str | None] = ContextVar("aegis_source_trust", default=None)
"""The label of what runs in this context; `None` says nothing. Threads start without one, tasks inherit it."""


@contextmanager
def source_trust(label: str) -> Iterator[None]:
    """Everything that is asked inside has at most this trust; nesting can only lower it."""
    token = SOURCE_TRUST.set(least(checked(label), SOURCE_TRUST.get()))
    try:
        yield
    finally:
        SOURCE_TRUST.reset(token)


def least(*labels: str | None) -> str | None:
    """The least trusted of those that were said."""
    said = [checked(label) for label in labels if label is not None]
    return max(said, key=LABELS.index) if said else None


def checked(label: str) -> str:
    """A label, in its exact spelling."""
    if label not in LABELS:
        raise ConfigurationError(f"source trust `{label}` is none of {', '.join(LABELS)}")
    return label
