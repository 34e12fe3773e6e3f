package aegisagent

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"hash"
	"net/http"

	"github.com/aegisagent/aegis/sdk/go/internal/jcs"
)

// outcome is how a call that was allowed ends: failed, until something says otherwise.
type outcome struct {
	c        *Client
	ctx      context.Context
	decision *Decision

	status string
	digest hash.Hash
	bytes  int
	// unsaid: some of the result has no canonical form.
	unsaid bool
}

func (c *Client) outcomeOf(ctx context.Context, d *Decision) *outcome {
	return &outcome{c: c, ctx: ctx, decision: d, status: "failed", digest: sha256.New()}
}

func (o *outcome) completed(result any) {
	o.status = "completed"
	o.take(result, "")
}

func (o *outcome) item(item any) { o.take(item, "\n") }

func (o *outcome) streamed() { o.status = "completed" }

func (o *outcome) take(result any, behind string) {
	if o.unsaid {
		return
	}
	// A Marshaler of the result's may panic. The function has run: that is not the caller's affair.
	defer func() {
		if recover() != nil {
			o.unsaid = true
		}
	}()
	if isHuge(result) {
		o.unsaid = true
		return
	}
	value, err := jcs.Of(result)
	var canonical []byte
	if err == nil {
		canonical, err = jcs.Bytes(value)
	}
	if err != nil {
		o.unsaid = true
		return
	}
	canonical = append(canonical, behind...)
	o.digest.Write(canonical)
	o.bytes += len(canonical)
}

// isHuge spares copying what has no canonical form anyway.
func isHuge(result any) bool {
	switch v := result.(type) {
	case string:
		return len(v) > jcs.MaxBytes
	case []byte:
		return len(v) > jcs.MaxBytes
	}
	return false
}

// report tells the gateway, also when the function panicked or the caller's context has ended meanwhile.
// The function has run, so nothing that happens here changes what the caller gets.
func (o *outcome) report() {
	body := map[string]any{"status": o.status}
	if o.status == "completed" && !o.unsaid {
		body["result_digest"] = hex.EncodeToString(o.digest.Sum(nil))
		body["result_bytes"] = float64(o.bytes)
	}
	text, err := jcs.Text(body)
	var got answer
	if err == nil {
		path := "/v1/decisions/" + o.decision.ID + "/outcome"
		got, err = o.c.exchange(context.WithoutCancel(o.ctx), request{method: http.MethodPost, path: path, body: text})
	}
	if err == nil && got.status != http.StatusNoContent {
		err = o.c.refusal(got)
	}
	if err != nil {
		o.c.log.Warn("the outcome of a call could not be reported", "decision_id", o.decision.ID, "error", err)
	}
}
