"""Aegis for Python: functions that run only when the gateway allows exactly this call."""

from ._answers import Approval, Decision, Receipt
from ._canon import CANON_VERSION, CanonError, canonicalize
from ._client import AegisClient, AsyncAegisClient
from ._errors import (
    ActionHashMismatchError,
    AegisError,
    AgentStoppedError,
    ApprovalCancelledError,
    ApprovalExpiredError,
    ApprovalRejectedError,
    ApprovalReplayedError,
    ApprovalStaleError,
    ApprovalTimeoutError,
    ConfigurationError,
    ConsumeUnknownError,
    DeniedError,
    GatewayTimeoutError,
    GatewayUnavailableError,
    NotCanonicalError,
    RateLimitedError,
    RequestConflictError,
    RequestRefusedError,
    TlsError,
    UnauthenticatedError,
    UnexpectedAnswerError,
)
from ._protect import protect_tool
from ._strict import parse_strict
from ._trust import SOURCE_TRUST, source_trust
from ._version import VERSION

__version__ = VERSION

__all__ = [
    "CANON_VERSION",
    "SOURCE_TRUST",
    "ActionHashMismatchError",
    "AegisClient",
    "AegisError",
    "AgentStoppedError",
    "Approval",
    "ApprovalCancelledError",
    "ApprovalExpiredError",
    "ApprovalRejectedError",
    "ApprovalReplayedError",
    "ApprovalStaleError",
    "ApprovalTimeoutError",
    "AsyncAegisClient",
    "CanonError",
    "ConfigurationError",
    "ConsumeUnknownError",
    "Decision",
    "DeniedError",
    "GatewayTimeoutError",
    "GatewayUnavailableError",
    "NotCanonicalError",
    "RateLimitedError",
    "Receipt",
    "RequestConflictError",
    "RequestRefusedError",
    "TlsError",
    "UnauthenticatedError",
    "UnexpectedAnswerError",
    "__version__",
    "canonicalize",
    "parse_strict",
    "protect_tool",
    "source_trust",
]
