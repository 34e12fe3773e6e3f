package aegisagent_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"math"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	aegisagent "github.com/aegisagent/aegis/sdk/go"
	"github.com/aegisagent/aegis/sdk/go/canon"
)

func TestWhatIsAllowedRunsAndIsReported(t *testing.T) {
	g := newGateway(t, "allow")
	var p probe
	var seen aegisagent.Decision
	protected := aegisagent.Protect(g.client(), merge, func(ctx context.Context, a mergeArgs) (merged, error) {
		seen, _ = aegisagent.DecisionFrom(ctx)
		return p.merge(ctx, a)
	})
	result, err := protected(context.Background(), someArgs)
	p.expectRan(t, result, err)
	if seen.ID != "dec_1" || seen.Receipt.ID != "rcp_n_1" || seen.ActionHash != g.hash || seen.RiskLevel != "high" {
		t.Errorf("%+v", seen)
	}
	asked := g.sent("/v1/authorize")
	call := bodyOf(t, asked[0])["tool_call"]
	want := "map[action:merge_pull_request mutates_state:true parameters:map[branch:main] resource:octo/payments#482 tool:github]"
	if len(asked) != 1 || fmt.Sprint(call) != want {
		t.Errorf("%d: %v", len(asked), call)
	}
	reported := g.sent("/dec_1/outcome")
	text := `{"sha":"6dcb09b5"}`
	wantOutcome := fmt.Sprintf("map[result_bytes:%d result_digest:%s status:completed]", len(text), canon.Digest([]byte(text)))
	if len(reported) != 1 || fmt.Sprint(bodyOf(t, reported[0])) != wantOutcome {
		t.Errorf("%s", reported)
	}
}

func TestWhatIsDeniedDoesNotRun(t *testing.T) {
	g := newGateway(t, "deny")
	var p probe
	_, err := aegisagent.Protect(g.client(), merge, p.merge)(context.Background(), someArgs)
	fault := p.expectRefused(t, err, aegisagent.Denied)
	if fault.Reason != "because" || fault.DecisionID != "dec_1" || fault.ReceiptID != "rcp_n_1" || fault.Message != "as the policy says" {
		t.Errorf("%+v", *fault)
	}
	if errors.Is(err, aegisagent.TLSError) || len(g.sent("/outcome")) != 0 {
		t.Error("more than a denial")
	}
	if text := err.Error(); text != "aegisagent: denied: as the policy says (reason because, decision dec_1, receipt rcp_n_1)" {
		t.Error(text)
	}
}

func TestTheFunctionsOwnErrorComesBackAsItIs(t *testing.T) {
	g := newGateway(t, "allow")
	p := probe{fail: errors.New("body")}
	_, err := aegisagent.Protect(g.client(), merge, p.merge)(context.Background(), someArgs)
	if err != p.fail || p.ran != 1 {
		t.Fatal(err)
	}
	if body := fmt.Sprint(bodyOf(t, g.sent("/outcome")[0])); body != "map[status:failed]" {
		t.Error(body)
	}
}

func TestAPanicIsReportedAsFailed(t *testing.T) {
	g := newGateway(t, "allow")
	protected := aegisagent.Protect(g.client(), merge, func(context.Context, mergeArgs) (int, error) { panic("body") })
	func() {
		defer func() { _ = recover() }()
		_, _ = protected(context.Background(), someArgs)
	}()
	if body := fmt.Sprint(bodyOf(t, g.sent("/outcome")[0])); body != "map[status:failed]" {
		t.Error(body)
	}
}

func TestAnOutcomeThatCannotBeReportedIsLogged(t *testing.T) {
	g := newGateway(t, "allow")
	var log strings.Builder
	c := g.client(func(o *aegisagent.Options) { o.Logger = slog.New(slog.NewTextHandler(&log, nil)) })
	protected := aegisagent.Protect(c, merge, func(context.Context, mergeArgs) (float64, error) {
		g.CloseClientConnections()
		g.Listener.Close()
		return math.NaN(), nil
	})
	if result, err := protected(context.Background(), someArgs); !math.IsNaN(result) || err != nil {
		t.Fatal(result, err)
	}
	if !strings.Contains(log.String(), "dec_1") || strings.Contains(log.String(), testToken) {
		t.Errorf("%q", log.String())
	}
}

func TestAnOutcomeIsReportedAfterTheContextEnded(t *testing.T) {
	g := newGateway(t, "allow")
	ctx, cancel := context.WithCancel(context.Background())
	_, err := aegisagent.Protect(g.client(), merge, func(context.Context, mergeArgs) (int, error) {
		cancel()
		return 1, nil
	})(ctx, someArgs)
	if err != nil || len(g.sent("/dec_1/outcome")) != 1 {
		t.Error(err)
	}
}

func TestAResultWithoutCanonicalFormHasNoDigest(t *testing.T) {
	for _, result := range []any{func() {}, math.Inf(1), "\xff", explosive{}, strings.Repeat("x", 1<<20)} {
		g := newGateway(t, "allow")
		protected := aegisagent.Protect(g.client(), merge, func(context.Context, mergeArgs) (any, error) { return result, nil })
		if _, err := protected(context.Background(), someArgs); err != nil {
			t.Fatal(err)
		}
		if body := fmt.Sprint(bodyOf(t, g.sent("/outcome")[0])); body != "map[status:completed]" {
			t.Error(body)
		}
	}
}

type explosive struct{}

func (explosive) MarshalJSON() ([]byte, error) { panic("marshal") }

func TestDryRunAsksAndRunsNothing(t *testing.T) {
	for _, verdict := range []string{"allow", "deny", "require_approval"} {
		g := newGateway(t, verdict)
		d, err := g.client().DryRun(context.Background(), merge, map[string]any{"repo": "octo/payments", "pr_number": 482})
		if err != nil || string(d.Verdict) != verdict || !d.DryRun || d.ActionHash != g.hash {
			t.Fatal(d, err)
		}
		if asked := g.sent("/v1/authorize"); len(asked) != 1 || bodyOf(t, asked[0])["dry_run"] != true {
			t.Error(asked)
		}
		if len(g.requests) != 2 {
			t.Errorf("%d requests", len(g.requests))
		}
	}
}

func TestStreamsReportTheDigestOfTheirItems(t *testing.T) {
	g := newGateway(t, "allow")
	ran := 0
	protected := aegisagent.ProtectStream(g.client(), merge, func(context.Context, mergeArgs) iter.Seq2[any, error] {
		return func(yield func(any, error) bool) {
			ran++
			_ = yield("a", nil) && yield(map[string]int{"b": 1}, nil)
		}
	})
	sequence := protected(context.Background(), someArgs)
	if len(g.requests) != 0 {
		t.Error("asked before anything was ranged over")
	}
	items := 0
	for _, err := range sequence {
		if err != nil {
			t.Fatal(err)
		}
		items++
	}
	text := "\"a\"\n{\"b\":1}\n"
	want := fmt.Sprintf("map[result_bytes:%d result_digest:%s status:completed]", len(text), canon.Digest([]byte(text)))
	if body := fmt.Sprint(bodyOf(t, g.sent("/outcome")[0])); body != want || items != 2 || ran != 1 {
		t.Error(body, items, ran)
	}
	for range sequence {
		break
	}
	if asked := g.sent("/v1/authorize"); len(asked) != 2 {
		t.Errorf("asked %d times for two rounds", len(asked))
	}
	text = "\"a\"\n"
	want = fmt.Sprintf("map[result_bytes:%d result_digest:%s status:completed]", len(text), canon.Digest([]byte(text)))
	if body := fmt.Sprint(bodyOf(t, g.sent("/outcome")[1])); body != want {
		t.Error(body)
	}
}

func TestARefusedStreamHasTheErrorAsItsOnlyItem(t *testing.T) {
	g := newGateway(t, "deny")
	var p probe
	protected := aegisagent.ProtectStream(g.client(), merge, func(context.Context, mergeArgs) iter.Seq2[int, error] {
		p.ran++
		return func(func(int, error) bool) {}
	})
	items := 0
	for _, err := range protected(context.Background(), someArgs) {
		items++
		p.expectRefused(t, err, aegisagent.Denied)
	}
	if items != 1 {
		t.Error(items)
	}
}

func TestAStreamThatFailsIsReportedAsFailed(t *testing.T) {
	g := newGateway(t, "allow")
	own := errors.New("body")
	protected := aegisagent.ProtectStream(g.client(), merge, func(context.Context, mergeArgs) iter.Seq2[int, error] {
		return func(yield func(int, error) bool) { _ = yield(1, nil) && yield(0, own) }
	})
	var last error
	for _, last = range protected(context.Background(), someArgs) {
	}
	if body := fmt.Sprint(bodyOf(t, g.sent("/outcome")[0])); body != "map[status:failed]" || last != own {
		t.Error(body, last)
	}
}

func TestTheLeastTrustedSourceIsSent(t *testing.T) {
	g := newGateway(t, "allow")
	c := g.client()
	trust := func(ctx context.Context, said aegisagent.SourceTrust) any {
		tool := merge
		tool.SourceTrust = said
		var p probe
		result, err := aegisagent.Protect(c, tool, p.merge)(ctx, someArgs)
		p.expectRan(t, result, err)
		asked := g.sent("/v1/authorize")
		return bodyOf(t, asked[len(asked)-1])["context"]
	}
	none := context.Background()
	external := aegisagent.WithSourceTrust(none, aegisagent.UntrustedExternal)
	raised := aegisagent.WithSourceTrust(external, aegisagent.TrustedInternalSigned)
	for _, c := range []struct {
		ctx  context.Context
		said aegisagent.SourceTrust
		want string
	}{
		{none, "", "<nil>"},
		{none, aegisagent.SemiTrustedCustomer, "map[source_trust:semi_trusted_customer]"},
		{external, aegisagent.SemiTrustedCustomer, "map[source_trust:untrusted_external]"},
		{raised, "", "map[source_trust:untrusted_external]"},
		{raised, aegisagent.UnknownTrust, "map[source_trust:unknown]"},
	} {
		if got := fmt.Sprint(trust(c.ctx, c.said)); got != c.want {
			t.Errorf("%s, expected %s", got, c.want)
		}
	}
	var p probe
	_, err := aegisagent.Protect(c, merge, p.merge)(aegisagent.WithSourceTrust(none, "trusted"), someArgs)
	p.expectRefused(t, err, aegisagent.Configuration)
}

func TestTheCatalogIsAskedOnce(t *testing.T) {
	g := newGateway(t, "allow")
	c := g.client()
	var all sync.WaitGroup
	var p probe
	if _, err := aegisagent.Protect(c, merge, p.merge)(context.Background(), someArgs); err != nil {
		t.Fatal(err)
	}
	for range 8 {
		all.Add(1)
		go func() {
			defer all.Done()
			var p probe
			if _, err := aegisagent.Protect(c, merge, p.merge)(context.Background(), someArgs); err != nil {
				t.Error(err)
			}
		}()
	}
	all.Wait()
	if asked := g.sent("merge_pull_request"); len(asked) != 1 {
		t.Errorf("%d times", len(asked))
	}
	ids := map[any]bool{}
	for _, r := range g.sent("/v1/authorize") {
		ids[bodyOf(t, r)["request_id"]] = true
	}
	if len(ids) != 9 {
		t.Errorf("%d request ids for 9 calls", len(ids))
	}
}

func TestACallerWhoGivesUpGetsTheContextsError(t *testing.T) {
	g := newGateway(t, "allow")
	ctx, cancel := context.WithCancel(context.Background())
	g.authorize = func(_ *gateway, w http.ResponseWriter, _ request) {
		cancel()
		time.Sleep(50 * time.Millisecond)
		_, _ = io.WriteString(w, "late")
	}
	var p probe
	_, err := aegisagent.Protect(g.client(), merge, p.merge)(ctx, someArgs)
	if !errors.Is(err, context.Canceled) || p.ran != 0 {
		t.Fatal(err)
	}
	ctx, cancel = context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	g.authorize = func(*gateway, http.ResponseWriter, request) { time.Sleep(100 * time.Millisecond) }
	_, err = aegisagent.Protect(g.client(), merge, p.merge)(ctx, someArgs)
	p.expectRefused(t, err, aegisagent.GatewayTimeout)
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
}
