"""One type for each way in which a call does not run (docs/sdk.md, Errors)."""

from __future__ import annotations

from typing import ClassVar


class AegisError(Exception):
    """The function did not run. Each subclass is one `code`; what is not known is `None`."""

    code: ClassVar[str] = "unexpected_answer"

    def __init__(
        self,
        message: str,
        *,
        reason: str | None = None,
        status: int | None = None,
        decision_id: str | None = None,
        receipt_id: str | None = None,
        approval_id: str | None = None,
        action_hash: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.reason = reason
        """The gateway's stable code, e.g. `forbidden`, `agent_frozen`."""
        self.status = status
        """HTTP status of the answer."""
        self.decision_id = decision_id
        self.receipt_id = receipt_id
        self.approval_id = approval_id
        self.action_hash = action_hash
        """The hash as it was computed here."""

    def __str__(self) -> str:
        known = [("reason", self.reason), ("receipt", self.receipt_id), ("approval", self.approval_id)]
        said = "".join(f"; {name} {value}" for name, value in known if value)
        return f"{self.code}: {self.message}{said}"


class DeniedError(AegisError):
    """The decision is `deny`."""

    code = "denied"


class ApprovalRejectedError(AegisError):
    """Somebody said no."""

    code = "approval_rejected"


class ApprovalExpiredError(AegisError):
    """Nobody answered before the approval's end."""

    code = "approval_expired"


class ApprovalCancelledError(AegisError):
    """The approval was cancelled."""

    code = "approval_cancelled"


class ApprovalTimeoutError(AegisError):
    """Still pending when `approval_timeout` was over."""

    code = "approval_timeout"


class ApprovalReplayedError(AegisError):
    """The approval was used before."""

    code = "approval_replayed"


class ApprovalStaleError(AegisError):
    """The policies or the resource changed after the yes."""

    code = "approval_stale"


class ConsumeUnknownError(AegisError):
    """The answer to consume was lost: the approval may be used up, and the function did not run."""

    code = "consume_unknown"


class ActionHashMismatchError(AegisError):
    """A hash differs: the gateway's, the approval's, or that of arguments that changed meanwhile."""

    code = "action_hash_mismatch"


class UnauthenticatedError(AegisError):
    """The token is unknown, expired or revoked."""

    code = "unauthenticated"


class AgentStoppedError(AegisError):
    """The agent is frozen or quarantined."""

    code = "agent_stopped"


class RequestRefusedError(AegisError):
    """The gateway does not take the request; the message says which field."""

    code = "request_refused"


class RequestConflictError(AegisError):
    """The same `request_id` came with another body, or is still being decided."""

    code = "request_conflict"


class RateLimitedError(AegisError):
    """Too many requests, retries included."""

    code = "rate_limited"


class GatewayUnavailableError(AegisError):
    """Unreachable, connection lost, or a status of 500 and above."""

    code = "gateway_unavailable"


class GatewayTimeoutError(AegisError):
    """No answer in time."""

    code = "gateway_timeout"


class TlsError(AegisError):
    """The certificate does not hold."""

    code = "tls_error"


class UnexpectedAnswerError(AegisError):
    """An answer that no gateway gives: a redirect, HTML, half an answer, an unknown decision or status."""

    code = "unexpected_answer"


class NotCanonicalError(AegisError):
    """An argument has no canonical form."""

    code = "not_canonical"


class ConfigurationError(AegisError):
    """The wrapper does not fit the function or the catalog, or the client lacks its URL or token."""

    code = "configuration"


BY_CODE: dict[str, type[AegisError]] = {kind.code: kind for kind in AegisError.__subclasses__()}
"""Every code and its type."""
