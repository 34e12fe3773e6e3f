package aegisagent_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	aegisagent "github.com/aegisagent/aegis/sdk/go"
)

func TestWhatIsApprovedIsUsedUpAndRuns(t *testing.T) {
	g := newGateway(t, "require_approval")
	g.statuses = []string{"pending", "pending", "approved"}
	tool := merge
	var pending []aegisagent.Approval
	tool.OnPending = func(_ context.Context, a aegisagent.Approval) { pending = append(pending, a) }
	var p probe
	begun := time.Now()
	result, err := aegisagent.Protect(g.client(), tool, p.merge)(context.Background(), someArgs)
	p.expectRan(t, result, err)
	// 250 + 375 + 562.5 ms.
	if took := time.Since(begun); took < 1187*time.Millisecond || took > 1700*time.Millisecond {
		t.Error(took)
	}
	if len(pending) != 1 || pending[0].ID != "apr_1" || pending[0].ApproverGroup != "leads" || pending[0].Status != "pending" {
		t.Errorf("%+v", pending)
	}
	used := g.sent("/apr_1/consume")
	body := bodyOf(t, used[0])
	if len(used) != 1 || body["action_hash"] != g.hash || fmt.Sprint(body["tool_call"]) != fmt.Sprint(bodyOf(t, g.sent("/v1/authorize")[0])["tool_call"]) {
		t.Errorf("%s", used)
	}
	// The outcome is that of the decision that consuming made.
	if len(g.sent("/dec_2/outcome")) != 1 || len(g.sent("/dec_1/outcome")) != 0 || len(g.sent("/apr_1")) != 3 {
		t.Errorf("%s", g.sent(""))
	}
}

func TestAnApprovalThatEndsOtherwiseRunsNothing(t *testing.T) {
	for status, code := range map[string]aegisagent.Code{
		"rejected": aegisagent.ApprovalRejected, "expired": aegisagent.ApprovalExpired,
		"cancelled": aegisagent.ApprovalCancelled, "consumed": aegisagent.ApprovalReplayed, "waiting": aegisagent.UnexpectedAnswer,
	} {
		g := newGateway(t, "require_approval")
		g.statuses = []string{status}
		var p probe
		_, err := aegisagent.Protect(g.client(), merge, p.merge)(context.Background(), someArgs)
		fault := p.expectRefused(t, err, code)
		if fault.ApprovalID != "apr_1" || fault.DecisionID != "dec_1" || fault.ReceiptID != "rcp_n_1" || len(g.sent("/consume")) != 0 {
			t.Errorf("%+v", *fault)
		}
	}
}

func TestTheWaitEnds(t *testing.T) {
	g := newGateway(t, "require_approval")
	g.statuses = []string{"pending"}
	var p probe
	c := g.client(func(o *aegisagent.Options) { o.ApprovalTimeout = 400 * time.Millisecond })
	begun := time.Now()
	_, err := aegisagent.Protect(c, merge, p.merge)(context.Background(), someArgs)
	p.expectRefused(t, err, aegisagent.ApprovalTimeout)
	if took := time.Since(begun); took < 400*time.Millisecond || took > 2*time.Second {
		t.Error(took)
	}
	soon := time.Now().Add(300 * time.Millisecond).UTC().Format(time.RFC3339Nano)
	g.authorize = func(g *gateway, w http.ResponseWriter, _ request) {
		send(w, strings.Replace(g.decision("require_approval", false), ends(g), soon, 1))
	}
	g.poll = func(g *gateway, w http.ResponseWriter) {
		send(w, strings.Replace(g.approval("pending"), ends(g), soon, 1))
	}
	_, err = aegisagent.Protect(g.client(), merge, p.merge)(context.Background(), someArgs)
	p.expectRefused(t, err, aegisagent.ApprovalExpired)
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	g.authorize, g.poll = nil, nil
	_, err = aegisagent.Protect(g.client(), merge, p.merge)(ctx, someArgs)
	p.expectRefused(t, err, aegisagent.ApprovalTimeout)
	ctx, cancel = context.WithCancel(context.Background())
	time.AfterFunc(100*time.Millisecond, cancel)
	_, err = aegisagent.Protect(g.client(), merge, p.merge)(ctx, someArgs)
	if !errors.Is(err, context.Canceled) || p.ran != 0 || len(g.sent("/consume")) != 0 {
		t.Error(err)
	}
}

// ends cuts the approval's end out of what the gateway says.
func ends(g *gateway) string {
	_, after, _ := strings.Cut(g.approval("pending"), `"expires_at":"`)
	end, _, _ := strings.Cut(after, `"`)
	return end
}

func TestAPollAboutSomethingElseRunsNothing(t *testing.T) {
	for name, c := range map[string]struct {
		change func(g *gateway, good string) string
		code   aegisagent.Code
	}{
		"hash":      {func(g *gateway, good string) string { return strings.Replace(good, g.hash, strings.Repeat("b", 64), 1) }, aegisagent.ActionHashMismatch},
		"other id":  {func(_ *gateway, good string) string { return strings.Replace(good, "apr_1", "apr_2", 1) }, aegisagent.UnexpectedAnswer},
		"two words": {func(_ *gateway, good string) string { return strings.Replace(good, "{", `{"status":"pending",`, 1) }, aegisagent.UnexpectedAnswer},
		"html":      {func(*gateway, string) string { return "<html>" }, aegisagent.UnexpectedAnswer},
	} {
		t.Run(name, func(t *testing.T) {
			g := newGateway(t, "require_approval")
			g.poll = func(g *gateway, w http.ResponseWriter) { send(w, c.change(g, g.approval("approved"))) }
			var p probe
			_, err := aegisagent.Protect(g.client(), merge, p.merge)(context.Background(), someArgs)
			p.expectRefused(t, err, c.code)
			if len(g.sent("/consume")) != 0 {
				t.Error("used up")
			}
		})
	}
}

func TestAPollThatFailsIsMadeGoodByTheNext(t *testing.T) {
	g := newGateway(t, "require_approval")
	polls := 0
	g.poll = func(g *gateway, w http.ResponseWriter) {
		if polls++; polls < 3 {
			w.WriteHeader(503)
			return
		}
		send(w, g.approval("approved"))
	}
	var p probe
	result, err := aegisagent.Protect(g.client(), merge, p.merge)(context.Background(), someArgs)
	p.expectRan(t, result, err)
	polls = -10
	p = probe{}
	_, err = aegisagent.Protect(g.client(), merge, p.merge)(context.Background(), someArgs)
	p.expectRefused(t, err, aegisagent.GatewayUnavailable)
	if polls != -7 {
		t.Errorf("%d polls", polls+10)
	}
	polls = 0
	g.poll = func(_ *gateway, w http.ResponseWriter) { polls++; problem(w, 500, "internal", "x") }
	_, err = aegisagent.Protect(g.client(), merge, p.merge)(context.Background(), someArgs)
	if p.expectRefused(t, err, aegisagent.GatewayUnavailable); polls != 1 {
		t.Errorf("%d polls", polls)
	}
}

func TestArgumentsThatChangeMeanwhileAreRefused(t *testing.T) {
	arguments := func() map[string]any {
		return map[string]any{"repo": "octo/payments", "pr_number": 482, "labels": []any{"a", map[string]any{"b": 1}}}
	}
	for name, change := range map[string]func(map[string]any){
		"replaced":  func(a map[string]any) { a["pr_number"] = 483 },
		"deep":      func(a map[string]any) { a["labels"].([]any)[1].(map[string]any)["b"] = 2 },
		"added":     func(a map[string]any) { a["force"] = true },
		"removed":   func(a map[string]any) { delete(a, "labels") },
		"unhashed":  func(a map[string]any) { a["labels"] = make(chan int) },
		"no number": func(a map[string]any) { a["pr_number"] = 1.5 },
	} {
		t.Run(name, func(t *testing.T) {
			g := newGateway(t, "require_approval")
			var p probe
			run := func(context.Context, map[string]any) (int, error) { p.ran++; return 0, nil }
			args := arguments()
			tool := merge
			tool.OnPending = func(context.Context, aegisagent.Approval) { change(args) }
			_, err := aegisagent.Protect(g.client(), tool, run)(context.Background(), args)
			p.expectRefused(t, err, aegisagent.ActionHashMismatch)
			if len(g.sent("/consume")) != 0 {
				t.Error("used up")
			}
			// While the approval is used up, and while an allow is on its way.
			args = arguments()
			tool.OnPending = nil
			g.consume = func(g *gateway, w http.ResponseWriter, _ request) { change(args); send(w, g.decision("allow", false)) }
			_, err = aegisagent.Protect(g.client(), tool, run)(context.Background(), args)
			p.expectRefused(t, err, aegisagent.ActionHashMismatch)
			args = arguments()
			g.authorize = func(g *gateway, w http.ResponseWriter, _ request) { change(args); send(w, g.decision("allow", false)) }
			_, err = aegisagent.Protect(g.client(), tool, run)(context.Background(), args)
			p.expectRefused(t, err, aegisagent.ActionHashMismatch)
		})
	}
}

func TestConsumeIsSentOnceAndItsAnswerDecides(t *testing.T) {
	hijacked := func(text string) func(*gateway, http.ResponseWriter) {
		return func(_ *gateway, w http.ResponseWriter) {
			connection, _, _ := w.(http.Hijacker).Hijack()
			_, _ = io.WriteString(connection, text)
			connection.Close()
		}
	}
	refuse := func(status int, reason, detail string) func(*gateway, http.ResponseWriter) {
		return func(_ *gateway, w http.ResponseWriter) { problem(w, status, reason, detail) }
	}
	changed := func(old, new string) func(*gateway, http.ResponseWriter) {
		return func(g *gateway, w http.ResponseWriter) {
			send(w, strings.Replace(g.decision("allow", false), old, new, 1))
		}
	}
	for name, c := range map[string]struct {
		answer func(*gateway, http.ResponseWriter)
		code   aegisagent.Code
	}{
		"nothing":       {hijacked(""), aegisagent.ConsumeUnknown},
		"half":          {hijacked("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 500\r\n\r\n{\"decision\":"), aegisagent.ConsumeUnknown},
		"half a head":   {hijacked("HTTP/1.1 200 OK\r\nCont"), aegisagent.ConsumeUnknown},
		"slow":          {func(*gateway, http.ResponseWriter) { time.Sleep(2200 * time.Millisecond) }, aegisagent.ConsumeUnknown},
		"used before":   {refuse(409, "approval_settled", "the approval is consumed"), aegisagent.ApprovalReplayed},
		"rejected":      {refuse(409, "approval_settled", "the approval is rejected"), aegisagent.ApprovalRejected},
		"expired":       {refuse(409, "approval_settled", "the approval is expired"), aegisagent.ApprovalExpired},
		"cancelled":     {refuse(409, "approval_settled", "the approval is cancelled"), aegisagent.ApprovalCancelled},
		"no word":       {refuse(409, "approval_settled", " "), aegisagent.ApprovalReplayed},
		"hash":          {refuse(409, "approval_hash_mismatch", "x"), aegisagent.ActionHashMismatch},
		"stale":         {refuse(409, "not_allowed_any_more", "x"), aegisagent.ApprovalStale},
		"conflict":      {refuse(409, "conflict", "x"), aegisagent.RequestConflict},
		"500":           {refuse(500, "internal", "x"), aegisagent.GatewayUnavailable},
		"503":           {refuse(503, "not_recorded", "x"), aegisagent.GatewayUnavailable},
		"429":           {refuse(429, "x", "x"), aegisagent.RateLimited},
		"frozen":        {refuse(403, "agent_frozen", "x"), aegisagent.AgentStopped},
		"unknown":       {refuse(404, "not_found", "x"), aegisagent.RequestRefused},
		"redirect":      {func(_ *gateway, w http.ResponseWriter) { w.Header().Set("Location", "/"); w.WriteHeader(307) }, aegisagent.UnexpectedAnswer},
		"deny":          {changed(`"allow"`, `"deny"`), aegisagent.Denied},
		"asks again":    {func(g *gateway, w http.ResponseWriter) { send(w, g.decision("require_approval", false)) }, aegisagent.ApprovalStale},
		"dry run":       {changed(`"dry_run":false`, `"dry_run":true`), aegisagent.UnexpectedAnswer},
		"other hash":    {func(g *gateway, w http.ResponseWriter) { changed(g.hash, strings.Repeat("c", 64))(g, w) }, aegisagent.ActionHashMismatch},
		"no receipt":    {changed(`"receipt":`, `"x":`), aegisagent.UnexpectedAnswer},
		"HTML, 200":     {func(_ *gateway, w http.ResponseWriter) { fmt.Fprint(w, "<html>") }, aegisagent.UnexpectedAnswer},
		"unknown words": {changed(`"allow"`, `"maybe"`), aegisagent.UnexpectedAnswer},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := newGateway(t, "require_approval")
			g.consume = func(g *gateway, w http.ResponseWriter, _ request) { c.answer(g, w) }
			var p probe
			_, err := aegisagent.Protect(g.client(), merge, p.merge)(context.Background(), someArgs)
			fault := p.expectRefused(t, err, c.code)
			if fault.ApprovalID != "apr_1" || fault.ReceiptID == "" {
				t.Errorf("%+v", *fault)
			}
			if used := g.sent("/consume"); len(used) != 1 || len(g.sent("/outcome")) != 0 {
				t.Errorf("sent %d times", len(used))
			}
		})
	}
}

// What surely did not arrive is not unknown.
func TestAConsumeThatNeverArrivedIsUnavailable(t *testing.T) {
	g := newGateway(t, "require_approval")
	g.poll = func(g *gateway, w http.ResponseWriter) {
		w.Header().Set("Connection", "close")
		g.Listener.Close()
		send(w, g.approval("approved"))
	}
	var p probe
	_, err := aegisagent.Protect(g.client(), merge, p.merge)(context.Background(), someArgs)
	p.expectRefused(t, err, aegisagent.GatewayUnavailable)
}

func TestGivingUpWhileConsumingIsUnknown(t *testing.T) {
	g := newGateway(t, "require_approval")
	ctx, cancel := context.WithCancel(context.Background())
	g.consume = func(g *gateway, w http.ResponseWriter, _ request) {
		cancel()
		time.Sleep(50 * time.Millisecond)
		send(w, g.decision("allow", false))
	}
	var p probe
	_, err := aegisagent.Protect(g.client(), merge, p.merge)(ctx, someArgs)
	p.expectRefused(t, err, aegisagent.ConsumeUnknown)
	if !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}
