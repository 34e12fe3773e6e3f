package aegisagent

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"time"

	"github.com/aegisagent/aegis/sdk/go/internal/jcs"
)

const (
	firstPoll = 250 * time.Millisecond
	maxPoll   = 5 * time.Second
	// lastPoll is the least time that a poll gets, so that one can be made at the very end.
	lastPoll = time.Second
	// polls in a row that may fail before the wait is given up.
	failedPolls = 3
)

// approved waits for people and uses their yes up. The decision that it returns allows the call.
func (c *Client) approved(ctx context.Context, tool Tool, args any, made call, asked *Decision) (*Decision, error) {
	if tool.OnPending != nil {
		tool.OnPending(ctx, *asked.Approval)
	}
	if err := c.wait(ctx, made, *asked.Approval); err != nil {
		if fault := asError(err); fault != nil {
			return nil, asked.fillIn(fault)
		}
		return nil, err
	}
	if fault := same(tool, args, made); fault != nil {
		return nil, asked.explain(fault, 0)
	}
	decision, err := c.consume(ctx, made, asked.Approval.ID)
	if err != nil {
		if fault := asError(err); fault != nil {
			return nil, asked.fillIn(fault)
		}
		return nil, err
	}
	return decision, nil
}

// fillIn adds the ids of the first decision where an error has none of its own.
func (d *Decision) fillIn(fault *Error) *Error {
	if fault.DecisionID == "" {
		fault.DecisionID = d.ID
	}
	if fault.ReceiptID == "" {
		fault.ReceiptID = d.Receipt.ID
	}
	if fault.ApprovalID == "" {
		fault.ApprovalID = d.Approval.ID
	}
	return fault
}

// wait returns nil once the approval is `approved`.
func (c *Client) wait(ctx context.Context, made call, approval Approval) error {
	deadline, late := time.Now().Add(c.approvalTimeout), ApprovalTimeout
	failed := 0
	for delay := firstPoll; ; delay = min(delay*3/2, maxPoll) {
		end, onEnd := deadline, late
		if approval.ExpiresAt.Before(deadline) {
			end, onEnd = approval.ExpiresAt, ApprovalExpired
		}
		left := max(time.Until(end), 0)
		if !sleep(ctx, min(delay, left)) {
			return gaveUpWaiting(ctx)
		}
		now, err := c.poll(ctx, made, approval.ID, min(c.timeout, max(time.Until(end), lastPoll)))
		switch fault := asError(err); {
		case err == nil:
			failed, approval = 0, now
		case fault == nil, ctx.Err() != nil:
			return gaveUpWaiting(ctx)
		case failed+1 < failedPolls && passing(fault) && left > 0:
			failed++
			continue
		default:
			return err
		}
		switch approval.Status {
		case "approved":
			return nil
		case "pending":
			// Asked a last time after the end.
			if left <= delay && !time.Now().Before(end) {
				return failf(onEnd, "nobody answered in time")
			}
		default:
			return settled(approval.Status)
		}
	}
}

// settled is the error of an approval that leads nowhere.
func settled(status string) *Error {
	switch status {
	case "rejected":
		return failf(ApprovalRejected, "an approver said no")
	case "expired":
		return failf(ApprovalExpired, "nobody answered in time")
	case "cancelled":
		return failf(ApprovalCancelled, "the approval was withdrawn")
	case "consumed":
		return failf(ApprovalReplayed, "the approval was used before")
	}
	return unexpected("unknown status of an approval")
}

// passing says that the next poll may well succeed.
func passing(fault *Error) bool {
	switch fault.Code {
	case GatewayTimeout, RateLimited:
		return true
	case GatewayUnavailable:
		return fault.Status != http.StatusInternalServerError
	}
	return false
}

func gaveUpWaiting(ctx context.Context) error {
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return &Error{Code: ApprovalTimeout, Message: "the context's deadline passed", cause: ctx.Err()}
	}
	return ctx.Err()
}

// poll is one look at the approval. It is not repeated; the next poll is the repetition.
func (c *Client) poll(ctx context.Context, made call, id string, limit time.Duration) (Approval, error) {
	got, _, fault := c.attempt(ctx, request{method: http.MethodGet, path: "/v1/approvals/" + id}, limit)
	if fault != nil {
		return Approval{}, fault
	}
	if got.status != http.StatusOK {
		return Approval{}, c.refusal(got)
	}
	m, fault := got.object()
	if fault != nil {
		return Approval{}, fault
	}
	approval, fault := readApproval(m)
	switch {
	case fault != nil:
	case approval.ID != id:
		fault = unexpected("the answer is about another approval")
	case approval.ActionHash != made.hash:
		fault = failf(ActionHashMismatch, "the approval is for another action than this one")
	default:
		return *approval, nil
	}
	fault.Status = got.status
	return Approval{}, fault
}

// consume uses the approval up for this very call. It is sent once.
func (c *Client) consume(ctx context.Context, made call, id string) (*Decision, error) {
	body, err := jcs.Text(map[string]any{"action_hash": made.hash, "tool_call": made.Value()})
	if err != nil {
		return nil, &Error{Code: NotCanonical, Message: err.Error(), cause: err}
	}
	got, err := c.exchange(ctx, request{
		method: http.MethodPost, path: "/v1/approvals/" + id + "/consume", body: body, once: true,
	})
	if err != nil {
		return nil, err
	}
	if got.status != http.StatusOK {
		return nil, c.consumeRefusal(got)
	}
	decision, fault := readDecision(got, made, false)
	if fault != nil {
		return nil, fault
	}
	switch decision.Verdict {
	case Allow:
		return decision, nil
	case Deny:
		fault = &Error{Code: Denied, Message: decision.Message}
	default:
		fault = &Error{Code: ApprovalStale, Message: decision.Message}
	}
	return nil, decision.explain(fault, got.status)
}

// consumeRefusal tells apart what 409 can mean here.
func (c *Client) consumeRefusal(got answer) *Error {
	fault := c.refusal(got)
	if got.status != http.StatusConflict {
		return fault
	}
	switch fault.Reason {
	case "approval_hash_mismatch":
		fault.Code = ActionHashMismatch
	case "not_allowed_any_more":
		fault.Code = ApprovalStale
	case "approval_settled":
		fault.Code = ApprovalReplayed
		// The gateway says how it was settled as the last word.
		for _, status := range []string{"rejected", "expired", "cancelled"} {
			if strings.HasSuffix(fault.Message, " "+status) {
				fault.Code = settled(status).Code
			}
		}
	}
	return fault
}
