package aegisagent

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"net/http"

	"github.com/aegisagent/aegis/sdk/go/internal/jcs"
)

// Tool is what a function is called in the gateway's catalog, and how it is asked about.
type Tool struct {
	// Tool and Action are the catalog's names, e.g. `github` and `merge_pull_request`.
	Tool, Action string
	// Risk is the least that the author expects. A catalog that says less is an error.
	Risk Risk
	// Resource is a template over the names of the function's arguments, e.g. `{repo}#{pr_number}`, where the
	// catalog's own does not do.
	Resource string
	// Exclude names arguments that are not part of the action. All of them must be there.
	Exclude []string
	// SourceTrust is said with every call; see also WithSourceTrust.
	SourceTrust SourceTrust
	// OnPending is called once when people have to be waited for, before the wait begins.
	OnPending func(context.Context, Approval)
}

// DryRun asks what would be decided about a call, and runs nothing. A denial is a Decision here, not an error.
// `args` is a struct or a map, as for Protect.
func (c *Client) DryRun(ctx context.Context, tool Tool, args any) (*Decision, error) {
	made, err := c.prepare(ctx, tool, args)
	if err != nil {
		return nil, c.cleaned(err)
	}
	decision, err := c.authorize(ctx, tool, made, true)
	return decision, c.cleaned(err)
}

// permit asks, waits and uses up. It returns the decision that allows the call, or an error. Permission is for
// exactly these arguments at this moment.
func (c *Client) permit(ctx context.Context, tool Tool, args any) (*Decision, error) {
	decision, err := c.decide(ctx, tool, args)
	return decision, c.cleaned(err)
}

func (c *Client) decide(ctx context.Context, tool Tool, args any) (*Decision, error) {
	made, err := c.prepare(ctx, tool, args)
	if err != nil {
		return nil, err
	}
	decision, err := c.authorize(ctx, tool, made, false)
	if err != nil {
		return nil, err
	}
	switch decision.Verdict {
	case Allow:
	case RequireApproval:
		if decision, err = c.approved(ctx, tool, args, made, decision); err != nil {
			return nil, err
		}
	default:
		return nil, decision.explain(&Error{Code: Denied, Message: decision.Message}, http.StatusOK)
	}
	if fault := same(tool, args, made); fault != nil {
		return nil, decision.explain(fault, 0)
	}
	return decision, nil
}

// prepare makes the call of the arguments as they are now. None of them is sent before all have a canonical form.
func (c *Client) prepare(ctx context.Context, tool Tool, args any) (call, error) {
	if c == nil {
		return call{}, failf(Configuration, "there is no client")
	}
	if fault := checkTool(tool); fault != nil {
		return call{}, fault
	}
	if _, fault := effectiveTrust(ctx, tool); fault != nil {
		return call{}, fault
	}
	e, err := c.entry(ctx, tool.Tool, tool.Action)
	if err != nil {
		return call{}, err
	}
	arguments, fault := members(tool, args)
	if fault != nil {
		return call{}, fault
	}
	made, fault := bind(tool, e, arguments)
	if fault != nil {
		return call{}, fault
	}
	made.entry = e
	return made, nil
}

// same says whether the arguments still make the same call.
func same(tool Tool, args any, made call) *Error {
	arguments, fault := members(tool, args)
	if fault == nil {
		var again call
		if again, fault = bind(tool, made.entry, arguments); fault == nil && again.hash == made.hash {
			return nil
		}
	}
	return &Error{Code: ActionHashMismatch, Message: "the arguments changed after they were decided about"}
}

func (c *Client) authorize(ctx context.Context, tool Tool, made call, dryRun bool) (*Decision, error) {
	trust, fault := effectiveTrust(ctx, tool)
	if fault != nil {
		return nil, fault
	}
	id := make([]byte, 16)
	if _, err := rand.Read(id); err != nil {
		return nil, &Error{Code: Configuration, Message: "no randomness for a request id", cause: err}
	}
	body := map[string]any{"tool_call": made.Value(), "request_id": hex.EncodeToString(id), "dry_run": dryRun}
	if trust != "" {
		body["context"] = map[string]any{"source_trust": string(trust)}
	}
	text, err := jcs.Text(body)
	if err != nil {
		return nil, &Error{Code: NotCanonical, Message: err.Error(), cause: err}
	}
	got, err := c.exchange(ctx, request{method: http.MethodPost, path: "/v1/authorize", body: text})
	if err != nil {
		return nil, err
	}
	if got.status != http.StatusOK {
		return nil, c.refusal(got)
	}
	decision, fault := readDecision(got, made, dryRun)
	if fault != nil {
		return nil, fault
	}
	return decision, nil
}

func (c *Client) cleaned(err error) error {
	if fault := asError(err); fault != nil && c != nil {
		return c.clean(fault)
	}
	return err
}

// asError finds the *Error in an error that may be the context's.
func asError(err error) *Error {
	var fault *Error
	errors.As(err, &fault)
	return fault
}
