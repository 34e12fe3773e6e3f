/** One type for each way in which a call does not run. Nothing else is thrown, except what the function itself throws. */

/** Stable codes, the same in every SDK. */
export type AegisErrorCode =
  | "denied"
  | "approval_rejected"
  | "approval_expired"
  | "approval_cancelled"
  | "approval_timeout"
  | "approval_replayed"
  | "approval_stale"
  | "consume_unknown"
  | "action_hash_mismatch"
  | "unauthenticated"
  | "agent_stopped"
  | "request_refused"
  | "request_conflict"
  | "rate_limited"
  | "gateway_unavailable"
  | "gateway_timeout"
  | "tls_error"
  | "unexpected_answer"
  | "not_canonical"
  | "configuration";

/** What is known about an error; members that are not known are left out. */
export interface ErrorDetails {
  /** The gateway's own code. */
  reason?: string | undefined;
  /** HTTP status of the answer. */
  status?: number | undefined;
  decisionId?: string | undefined;
  receiptId?: string | undefined;
  approvalId?: string | undefined;
  /** The hash that was computed here. */
  actionHash?: string | undefined;
  cause?: unknown;
}

/** The base of all errors of this package. The function did not run. */
export abstract class AegisError extends Error {
  /** Stable code, the same in every SDK. */
  abstract readonly code: AegisErrorCode;
  readonly reason: string | undefined;
  readonly status: number | undefined;
  decisionId: string | undefined;
  receiptId: string | undefined;
  approvalId: string | undefined;
  actionHash: string | undefined;

  constructor(message: string, details: ErrorDetails = {}) {
    super(message, details.cause === undefined ? undefined : { cause: details.cause });
    this.name = new.target.name;
    this.reason = details.reason;
    this.status = details.status;
    this.decisionId = details.decisionId;
    this.receiptId = details.receiptId;
    this.approvalId = details.approvalId;
    this.actionHash = details.actionHash;
  }
}

/** The decision is `deny`. */
export class DeniedError extends AegisError {
  readonly code = "denied";
}
/** An approver said no. */
export class ApprovalRejectedError extends AegisError {
  readonly code = "approval_rejected";
}
/** The approval reached its own end. */
export class ApprovalExpiredError extends AegisError {
  readonly code = "approval_expired";
}
/** The approval was withdrawn. */
export class ApprovalCancelledError extends AegisError {
  readonly code = "approval_cancelled";
}
/** Still pending when `approvalTimeout` was over. */
export class ApprovalTimeoutError extends AegisError {
  readonly code = "approval_timeout";
}
/** The approval was used before. */
export class ApprovalReplayedError extends AegisError {
  readonly code = "approval_replayed";
}
/** The policies or the resource changed after the yes. */
export class ApprovalStaleError extends AegisError {
  readonly code = "approval_stale";
}
/** The answer to consume was lost: the approval may be used up, and the function did not run. */
export class ConsumeUnknownError extends AegisError {
  readonly code = "consume_unknown";
}
/** A hash differs: the gateway's, the approval's, or that of arguments that changed meanwhile. */
export class ActionHashMismatchError extends AegisError {
  readonly code = "action_hash_mismatch";
}
/** 401: no token, or not one that is known. */
export class UnauthenticatedError extends AegisError {
  readonly code = "unauthenticated";
}
/** 403: the agent is frozen or quarantined. */
export class AgentStoppedError extends AegisError {
  readonly code = "agent_stopped";
}
/** 400, 404, 413, 422: the message says which field. */
export class RequestRefusedError extends AegisError {
  readonly code = "request_refused";
}
/** 409: the same `request_id` with another body. */
export class RequestConflictError extends AegisError {
  readonly code = "request_conflict";
}
/** 429, retries included. */
export class RateLimitedError extends AegisError {
  readonly code = "rate_limited";
}
/** Unreachable, connection lost, 5xx. */
export class GatewayUnavailableError extends AegisError {
  readonly code = "gateway_unavailable";
}
/** No answer in time. */
export class GatewayTimeoutError extends AegisError {
  readonly code = "gateway_timeout";
}
/** The gateway's certificate does not hold. */
export class TlsError extends AegisError {
  readonly code = "tls_error";
}
/** An answer that means nothing here: a redirect, HTML, half an answer, an unknown decision. */
export class UnexpectedAnswerError extends AegisError {
  readonly code = "unexpected_answer";
}
/** An argument has no canonical form. */
export class NotCanonicalError extends AegisError {
  readonly code = "not_canonical";
}
/** The wrapper does not fit the function or the catalog, or the client lacks its URL or token. */
export class ConfigurationError extends AegisError {
  readonly code = "configuration";
}
