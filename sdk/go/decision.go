package aegisagent

import (
	"slices"
	"time"

	"github.com/aegisagent/aegis/sdk/go/internal/jcs"
)

// Decision is the gateway's answer to one call.
type Decision struct {
	ID string
	// Verdict is `allow`, `deny` or `require_approval`.
	Verdict Verdict
	// Reason is a stable code, e.g. `no_permit`.
	Reason string
	// Message is one sentence for people.
	Message string
	// ActionHash is that of the arguments, computed here and by the gateway.
	ActionHash      string
	MatchedPolicies []string
	RiskLevel       Risk
	RiskClass       string
	EffectiveTrust  SourceTrust
	// Approval is the one that is waited for or was used; nil where there is none.
	Approval *Approval
	Receipt  Receipt
	DryRun   bool
}

// Verdict is what was decided.
type Verdict string

// The verdicts.
const (
	Allow           Verdict = "allow"
	Deny            Verdict = "deny"
	RequireApproval Verdict = "require_approval"
)

// Approval is a question to people.
type Approval struct {
	ID string
	// Status is `pending`, `approved`, `rejected`, `expired`, `consumed` or `cancelled`.
	Status string
	// ApproverGroup names who has to agree, joined by a comma.
	ApproverGroup string
	ExpiresAt     time.Time
	ActionHash    string
}

// Receipt says where something is on record.
type Receipt struct{ ID, Hash, PreviousHash string }

var approvalStatuses = []string{"pending", "approved", "rejected", "expired", "consumed", "cancelled"}

// readDecision holds an answer to everything that makes it count.
func readDecision(a answer, made call, dryRun bool) (*Decision, *Error) {
	m, fault := a.object()
	if fault != nil {
		return nil, fault
	}
	r := reader{m: m}
	d := &Decision{
		ID: r.text("decision_id"), Verdict: Verdict(r.text("decision")), ActionHash: r.hash("action_hash"),
		Reason: r.optional("reason"), Message: r.optional("message"), EffectiveTrust: SourceTrust(r.optional("effective_trust")),
		MatchedPolicies: r.list("matched_policies"), DryRun: r.flag("dry_run"),
	}
	receipt := reader{m: r.object("receipt")}
	d.Receipt = Receipt{receipt.text("receipt_id"), receipt.optional("receipt_hash"), receipt.optional("prev_receipt_hash")}
	risk := reader{m: r.optionalObject("risk")}
	d.RiskLevel, d.RiskClass = Risk(risk.optional("level")), risk.optional("class")
	if approval := r.optionalObject("approval"); approval != nil {
		d.Approval, fault = readApproval(approval)
		if fault != nil {
			return nil, d.explain(fault, a.status)
		}
	}
	switch {
	case r.missing != "":
		fault = unexpected("the decision lacks `%s`", r.missing)
	case receipt.missing != "":
		fault = unexpected("the decision lacks `receipt.%s`", receipt.missing)
	case !isID(d.ID):
		fault = unexpected("the decision's id is none")
	case !isID(receipt.text("receipt_id")):
		fault = unexpected("the receipt's id is none")
	case m["canon_version"] != jcs.Version:
		fault = unexpected("the decision's `canon_version` is not `%s`", jcs.Version)
	case !slices.Contains([]Verdict{Allow, Deny, RequireApproval}, d.Verdict):
		fault = unexpected("unknown decision")
	case d.DryRun != dryRun:
		fault = unexpected("the decision's `dry_run` is not what was asked for")
	case d.Verdict == RequireApproval && d.Approval == nil && !dryRun:
		fault = unexpected("an approval is required and none is named")
	case d.ActionHash != made.hash, d.Approval != nil && d.Approval.ActionHash != made.hash:
		fault = failf(ActionHashMismatch, "the gateway decided about another action than this one")
	default:
		return d, nil
	}
	return nil, d.explain(fault, a.status)
}

// readApproval reads what a decision and `GET /v1/approvals/{id}` have in common.
func readApproval(m map[string]any) (*Approval, *Error) {
	r := reader{m: m}
	a := &Approval{
		ID: r.text("approval_id"), Status: r.text("status"), ActionHash: r.hash("action_hash"),
		ApproverGroup: r.optional("approver_group"),
	}
	ends, err := time.Parse(time.RFC3339, r.text("expires_at"))
	a.ExpiresAt = ends
	switch {
	case r.missing != "":
		return nil, unexpected("the approval lacks `%s`", r.missing)
	case err != nil:
		return nil, unexpected("the approval's `expires_at` is no instant")
	case !slices.Contains(approvalStatuses, a.Status):
		return nil, unexpected("unknown status of an approval")
	case !isID(a.ID):
		return nil, unexpected("the approval's id is none")
	}
	return a, nil
}

// explain adds to an error what is known of the decision.
func (d *Decision) explain(fault *Error, status int) *Error {
	fault.DecisionID, fault.ReceiptID, fault.Status = d.ID, d.Receipt.ID, status
	if fault.Code == Denied || fault.Code == ApprovalStale {
		fault.Reason = d.Reason
	}
	if d.Approval != nil {
		fault.ApprovalID = d.Approval.ID
	}
	return fault
}

// isID keeps what goes into a path to what ids are made of.
func isID(id string) bool { return jcs.IsName(id) && id != "." && id != ".." }

// reader takes members by type and remembers the first that is missing or has another.
type reader struct {
	m       map[string]any
	missing string
}

func (r *reader) lack(name string) {
	if r.missing == "" {
		r.missing = name
	}
}

func (r *reader) text(name string) string {
	text, _ := r.m[name].(string)
	if text == "" {
		r.lack(name)
	}
	return text
}

// hash may be empty: then it is another one than ours.
func (r *reader) hash(name string) string {
	text, ok := r.m[name].(string)
	if !ok {
		r.lack(name)
	}
	return text
}

func (r *reader) flag(name string) bool {
	flag, ok := r.m[name].(bool)
	if !ok {
		r.lack(name)
	}
	return flag
}

func (r *reader) object(name string) map[string]any {
	object, ok := r.m[name].(map[string]any)
	if !ok {
		r.lack(name)
	}
	return object
}

// optional and the next two are for what only informs, or may be null.
func (r *reader) optional(name string) string {
	text, ok := r.m[name].(string)
	if !ok && r.m[name] != nil {
		r.lack(name)
	}
	return text
}

func (r *reader) optionalObject(name string) map[string]any {
	object, ok := r.m[name].(map[string]any)
	if !ok && r.m[name] != nil {
		r.lack(name)
	}
	return object
}

func (r *reader) list(name string) []string {
	items, ok := r.m[name].([]any)
	if !ok && r.m[name] != nil {
		r.lack(name)
	}
	var texts []string
	for _, item := range items {
		if text, ok := item.(string); ok {
			texts = append(texts, text)
		}
	}
	return texts
}
