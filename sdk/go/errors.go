package aegisagent

import (
	"fmt"
	"strings"
)

// Code names a kind of error. Every Code is an error itself, so that errors.Is tells kinds apart:
//
//	if errors.Is(err, aegisagent.Denied) { … }
type Code string

// The codes, as all SDKs know them.
const (
	// Denied: the decision is `deny`.
	Denied Code = "denied"
	// ApprovalRejected: an approver said no.
	ApprovalRejected Code = "approval_rejected"
	// ApprovalExpired: nobody answered before the approval's own end.
	ApprovalExpired Code = "approval_expired"
	// ApprovalCancelled: the approval was withdrawn.
	ApprovalCancelled Code = "approval_cancelled"
	// ApprovalTimeout: still pending when ApprovalTimeout was over.
	ApprovalTimeout Code = "approval_timeout"
	// ApprovalReplayed: the approval was used before.
	ApprovalReplayed Code = "approval_replayed"
	// ApprovalStale: the policies or the resource changed after the yes.
	ApprovalStale Code = "approval_stale"
	// ConsumeUnknown: the answer to consume was lost. The approval may be used up; the function did not run.
	ConsumeUnknown Code = "consume_unknown"
	// ActionHashMismatch: a hash differs, the gateway's, the approval's, or that of arguments that changed meanwhile.
	ActionHashMismatch Code = "action_hash_mismatch"
	// Unauthenticated: 401.
	Unauthenticated Code = "unauthenticated"
	// AgentStopped: 403, the agent is frozen or quarantined.
	AgentStopped Code = "agent_stopped"
	// RequestRefused: 400, 404, 413 or 422; the message says which field.
	RequestRefused Code = "request_refused"
	// RequestConflict: 409.
	RequestConflict Code = "request_conflict"
	// RateLimited: 429, retries included.
	RateLimited Code = "rate_limited"
	// GatewayUnavailable: unreachable, connection lost, 5xx.
	GatewayUnavailable Code = "gateway_unavailable"
	// GatewayTimeout: no answer in time.
	GatewayTimeout Code = "gateway_timeout"
	// TLSError: the certificate does not hold.
	TLSError Code = "tls_error"
	// UnexpectedAnswer: anything else, such as a redirect, HTML, half an answer, an unknown decision or status.
	UnexpectedAnswer Code = "unexpected_answer"
	// NotCanonical: an argument that has no canonical form; the message names it.
	NotCanonical Code = "not_canonical"
	// Configuration: the wrapper does not fit the function, or the client lacks its URL or token.
	Configuration Code = "configuration"
)

// Error is the code itself.
func (c Code) Error() string { return "aegisagent: " + string(c) }

// Error is what every refusal is. The function did not run.
type Error struct {
	Code Code
	// Reason is the gateway's own stable code, e.g. `no_permit`.
	Reason string
	// Message is one sentence for people.
	Message string
	// Status is the HTTP status of the answer that led here; 0 where there was none.
	Status     int
	DecisionID string
	ReceiptID  string
	ApprovalID string

	cause error
}

func (e *Error) Error() string {
	var text strings.Builder
	text.WriteString(e.Code.Error())
	if e.Message != "" {
		text.WriteString(": " + e.Message)
	}
	separator := " ("
	for _, part := range []struct{ name, value string }{
		{"reason", e.Reason}, {"decision", e.DecisionID}, {"receipt", e.ReceiptID}, {"approval", e.ApprovalID},
	} {
		if part.value != "" {
			text.WriteString(separator + part.name + " " + part.value)
			separator = ", "
		}
	}
	if separator != " (" {
		text.WriteString(")")
	}
	return text.String()
}

// Is compares with a Code.
func (e *Error) Is(target error) bool {
	code, ok := target.(Code)
	return ok && code == e.Code
}

// Unwrap is the error of the network or of the context, where one led here.
func (e *Error) Unwrap() error { return e.cause }

func failf(code Code, format string, args ...any) *Error {
	return &Error{Code: code, Message: fmt.Sprintf(format, args...)}
}

func unexpected(format string, args ...any) *Error { return failf(UnexpectedAnswer, format, args...) }
