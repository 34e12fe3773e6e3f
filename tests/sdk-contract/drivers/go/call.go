package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"sync"
	"time"

	aegisagent "github.com/aegisagent/aegis/sdk/go"
	"github.com/aegisagent/aegis/sdk/go/canon"
)

type callOrder struct {
	clientOrder
	Mode         string                     `json:"mode"`
	Tool         string                     `json:"tool"`
	Action       string                     `json:"action"`
	Risk         aegisagent.Risk            `json:"risk"`
	Resource     string                     `json:"resource"`
	Exclude      []string                   `json:"exclude"`
	SourceTrust  aegisagent.SourceTrust     `json:"source_trust"`
	ContextTrust aegisagent.SourceTrust     `json:"context_trust"`
	DryRun       bool                       `json:"dry_run"`
	Args         map[string]json.RawMessage `json:"args"`
	OnPending    *struct {
		Set []json.RawMessage `json:"set"`
	} `json:"on_pending"`
	Returns json.RawMessage `json:"returns"`
	Fails   bool            `json:"fails"`
}

// clientOrder is what makes clients different, so that one is kept for each.
type clientOrder struct {
	GatewayURL       string  `json:"gateway_url"`
	AgentToken       string  `json:"agent_token"`
	CAFile           string  `json:"ca_file"`
	DangerPlaintext  bool    `json:"danger_plaintext"`
	TimeoutS         float64 `json:"timeout_s"`
	ApprovalTimeoutS float64 `json:"approval_timeout_s"`
}

var clients sync.Map // clientOrder to *aegisagent.Client

func (o clientOrder) client() (*aegisagent.Client, error) {
	if kept, ok := clients.Load(o); ok {
		return kept.(*aegisagent.Client), nil
	}
	client, err := aegisagent.NewClient(aegisagent.Options{
		GatewayURL: o.GatewayURL, AgentToken: o.AgentToken, CAFile: o.CAFile, DangerPlaintext: o.DangerPlaintext,
		Timeout: seconds(o.TimeoutS), ApprovalTimeout: seconds(o.ApprovalTimeoutS),
	})
	if err == nil {
		clients.Store(o, client)
	}
	return client, err
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }

// errBody is what the wrapped function fails with.
var errBody = errors.New("the body failed")

// ended is what became of a call.
type ended struct {
	ran            int
	result         any
	hash, decision any
}

func serveCall(o callOrder) map[string]any {
	begun := time.Now()
	var e ended
	err := e.call(o)
	answer := map[string]any{
		"ran": e.ran, "result": nil, "error": errorOf(err), "action_hash": e.hash, "decision": e.decision,
		"elapsed_ms": float64(time.Since(begun).Microseconds()) / 1000,
	}
	if err == nil {
		answer["result"] = e.result
	}
	return answer
}

func (e *ended) call(o callOrder) error {
	client, err := o.client()
	if err != nil {
		return err
	}
	args := make(map[string]any, len(o.Args))
	for name, raw := range o.Args {
		args[name] = valueOf(raw)
	}
	tool := aegisagent.Tool{
		Tool: o.Tool, Action: o.Action, Risk: o.Risk, Resource: o.Resource, Exclude: o.Exclude, SourceTrust: o.SourceTrust,
	}
	if o.OnPending != nil {
		tool.OnPending = func(context.Context, aegisagent.Approval) { set(args, o.OnPending.Set) }
	}
	ctx := context.Background()
	if o.ContextTrust != "" {
		ctx = aegisagent.WithSourceTrust(ctx, o.ContextTrust)
	}
	switch {
	case o.DryRun:
		decision, err := client.DryRun(ctx, tool, args)
		if err == nil {
			e.hash, e.decision = decision.ActionHash, decision.Verdict
		}
		return err
	case o.Mode == "stream" || o.Mode == "async_stream":
		return e.stream(ctx, client, tool, o, args)
	}
	e.result, err = aegisagent.Protect(client, tool, func(ctx context.Context, _ map[string]any) (any, error) {
		e.started(ctx)
		if o.Fails {
			return nil, errBody
		}
		return valueOf(o.Returns), nil
	})(ctx, args)
	return err
}

func (e *ended) stream(
	ctx context.Context, client *aegisagent.Client, tool aegisagent.Tool, o callOrder, args map[string]any,
) error {
	items, _ := valueOf(o.Returns).([]any)
	protected := aegisagent.ProtectStream(client, tool, func(ctx context.Context, _ map[string]any) iter.Seq2[any, error] {
		return func(yield func(any, error) bool) {
			e.started(ctx)
			if o.Fails {
				yield(nil, errBody)
				return
			}
			for _, item := range items {
				if !yield(item, nil) {
					return
				}
			}
		}
	})
	got := []any{}
	for item, err := range protected(ctx, args) {
		if err != nil {
			return err
		}
		got = append(got, item)
	}
	e.result = got
	return nil
}

func (e *ended) started(ctx context.Context) {
	e.ran++
	if decision, ok := aegisagent.DecisionFrom(ctx); ok {
		e.hash = decision.ActionHash
	}
}

// valueOf makes ordinary Go values. What has no canonical form stays the text it is, since encoding/json would pass
// over a lone surrogate in silence.
func valueOf(raw json.RawMessage) any {
	if len(raw) == 0 {
		return nil
	}
	if _, err := canon.Parse(raw); err != nil {
		var refusal *canon.Error
		if errors.As(err, &refusal) && refusal.Reason != canon.NumberRange && refusal.Reason != canon.TooLarge {
			return raw
		}
	}
	decoder := json.NewDecoder(bytes.NewReader(raw))
	decoder.UseNumber()
	var value any
	if err := decoder.Decode(&value); err != nil {
		return raw
	}
	return value
}

// set changes an argument in place: the path to a member, then its new value.
func set(args map[string]any, path []json.RawMessage) {
	if len(path) < 2 {
		return
	}
	at := any(args)
	for i, raw := range path[:len(path)-1] {
		last := i == len(path)-2
		switch container := at.(type) {
		case map[string]any:
			var key string
			_ = json.Unmarshal(raw, &key)
			if last {
				container[key] = valueOf(path[len(path)-1])
			}
			at = container[key]
		case []any:
			var index int
			if json.Unmarshal(raw, &index) != nil || index < 0 || index >= len(container) {
				return
			}
			if last {
				container[index] = valueOf(path[len(path)-1])
			}
			at = container[index]
		default:
			return
		}
	}
}

func errorOf(err error) any {
	var fault *aegisagent.Error
	switch {
	case err == nil:
		return nil
	case errors.Is(err, errBody):
		return map[string]any{"code": "body"}
	case !errors.As(err, &fault):
		return map[string]any{"code": "other", "message": err.Error(), "type": fmt.Sprintf("%T", err)}
	}
	answer := map[string]any{
		"code": string(fault.Code), "reason": orNull(fault.Reason), "message": fault.Message, "status": nil,
		"decision_id": orNull(fault.DecisionID), "receipt_id": orNull(fault.ReceiptID),
		"approval_id": orNull(fault.ApprovalID), "type": "Error",
	}
	if fault.Status != 0 {
		answer["status"] = fault.Status
	}
	return answer
}

func orNull(text string) any {
	if text == "" {
		return nil
	}
	return text
}
