package aegisagent_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	aegisagent "github.com/aegisagent/aegis/sdk/go"
	"github.com/aegisagent/aegis/sdk/go/canon"
)

const testToken = "aegis_agt_test"

const mergeEntry = `{"name":"github.merge_pull_request","tool":"github","summary":"Merge","operation":"o","wire":"w",
	"class":"write","risk":"high","mutates_state":true,"resource":"{owner}/{repo}#{pull_number}",
	"parameters":{"merge_method":{"type":"string","required":false},"sha":{"type":"string","required":false}},
	"facts":{},"aliases":{"pr_number":"pull_number","head_sha":"sha"}}`

// gateway is a scripted one. What a test does not set answers as a good gateway would.
type gateway struct {
	*httptest.Server
	t *testing.T

	entry     string
	verdict   string
	statuses  []string // of the approval, one a poll; the last stays
	authorize func(g *gateway, w http.ResponseWriter, body request)
	poll      func(g *gateway, w http.ResponseWriter)
	consume   func(g *gateway, w http.ResponseWriter, body request)

	mu       sync.Mutex
	requests []recorded
	polls    int
	hash     string
}

type recorded struct {
	method, path, from string
	body               []byte
}

type request struct {
	ToolCall json.RawMessage `json:"tool_call"`
	Context  *struct {
		SourceTrust string `json:"source_trust"`
	}
	RequestID  string `json:"request_id"`
	DryRun     bool   `json:"dry_run"`
	ActionHash string `json:"action_hash"`
}

func newGateway(t *testing.T, verdict string) *gateway {
	g := &gateway{t: t, verdict: verdict, entry: mergeEntry, statuses: []string{"approved"}}
	g.Server = httptest.NewServer(http.HandlerFunc(g.serve))
	t.Cleanup(g.Close)
	return g
}

func (g *gateway) serve(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	g.mu.Lock()
	defer g.mu.Unlock()
	g.requests = append(g.requests, recorded{r.Method, r.URL.Path, r.RemoteAddr, body})
	if r.Header.Get("Authorization") != "Bearer "+testToken {
		problem(w, 401, "unknown_token", "unknown token")
		return
	}
	var req request
	if len(body) > 0 {
		if err := json.Unmarshal(body, &req); err != nil {
			g.t.Errorf("%s: %v", body, err)
		}
	}
	switch path := r.URL.Path; {
	case strings.HasPrefix(path, "/v1/actions/"):
		if path != "/v1/actions/github.merge_pull_request" {
			problem(w, 404, "not_found", "no such action")
			return
		}
		send(w, g.entry)
	case path == "/v1/authorize":
		call, err := canon.ParseCall(req.ToolCall)
		if err == nil {
			g.hash, err = call.Hash()
		}
		if err != nil {
			problem(w, 400, "bad_field", err.Error())
			return
		}
		if g.authorize != nil {
			g.authorize(g, w, req)
			return
		}
		send(w, g.decision(g.verdict, req.DryRun))
	case strings.HasSuffix(path, "/consume"):
		if g.consume != nil {
			g.consume(g, w, req)
			return
		}
		send(w, strings.ReplaceAll(g.decision("allow", false), "dec_1", "dec_2"))
	case strings.HasPrefix(path, "/v1/approvals/"):
		if g.poll != nil {
			g.poll(g, w)
			return
		}
		send(w, g.approval(g.statuses[min(g.polls, len(g.statuses)-1)]))
		g.polls++
	case strings.HasSuffix(path, "/outcome"):
		w.WriteHeader(204)
	default:
		problem(w, 404, "no_such_path", "there is nothing at this path")
	}
}

func (g *gateway) decision(verdict string, dryRun bool) string {
	approval := "null"
	if verdict == "require_approval" {
		approval = g.approval("pending")
	}
	return fmt.Sprintf(`{"decision_id":"dec_1","decision":%q,"reason":"because","message":"as the policy says",
		"action_hash":%q,"canon_version":"aegis-jcs-1","matched_policies":["p1"],"risk":{"level":"high","class":"write"},
		"effective_trust":"unknown","approval":%s,"dry_run":%t,
		"receipt":{"receipt_id":"rcp_n_1","receipt_hash":"aa","prev_receipt_hash":"bb"}}`, verdict, g.hash, approval, dryRun)
}

func (g *gateway) approval(status string) string {
	return fmt.Sprintf(`{"approval_id":"apr_1","status":%q,"approver_group":"leads","expires_at":%q,"action_hash":%q}`,
		status, time.Now().Add(time.Minute).UTC().Format("2006-01-02T15:04:05.000Z"), g.hash)
}

// sent lists the requests of a kind, by the end of their path.
func (g *gateway) sent(suffix string) []recorded {
	g.mu.Lock()
	defer g.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(g.requests), func(r recorded) bool { return !strings.HasSuffix(r.path, suffix) })
}

func (g *gateway) client(options ...func(*aegisagent.Options)) *aegisagent.Client {
	g.t.Helper()
	o := aegisagent.Options{
		GatewayURL: g.URL, AgentToken: testToken, Timeout: 2 * time.Second, ApprovalTimeout: 5 * time.Second,
		Logger: slog.New(slog.NewTextHandler(io.Discard, nil)),
	}
	for _, option := range options {
		option(&o)
	}
	c, err := aegisagent.NewClient(o)
	if err != nil {
		g.t.Fatal(err)
	}
	g.t.Cleanup(c.Close)
	return c
}

func send(w http.ResponseWriter, body string) {
	w.Header().Set("Content-Type", "application/json")
	_, _ = io.WriteString(w, body)
}

func problem(w http.ResponseWriter, status int, reason, detail string) {
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(status)
	fmt.Fprintf(w, `{"type":"urn:aegis:problem:%s","title":"x","status":%d,"detail":%q,"receipt":"rcp_n_9"}`, reason, status, detail)
}

type mergeArgs struct {
	Repo     string `json:"repo"`
	PRNumber int    `json:"pr_number"`
	Branch   string `json:"branch"`
}

type merged struct {
	SHA string `json:"sha"`
}

var merge = aegisagent.Tool{Tool: "github", Action: "merge_pull_request", Risk: aegisagent.RiskHigh}

var someArgs = mergeArgs{"octo/payments", 482, "main"}

// probe counts how often the function ran.
type probe struct {
	ran  int
	fail error
}

func (p *probe) merge(context.Context, mergeArgs) (merged, error) {
	p.ran++
	return merged{"6dcb09b5"}, p.fail
}

// expectRefused: the error has the code, and the function did not run.
func (p *probe) expectRefused(t *testing.T, err error, code aegisagent.Code) *aegisagent.Error {
	t.Helper()
	var fault *aegisagent.Error
	if !errors.As(err, &fault) || !errors.Is(err, code) {
		t.Fatalf("%v, expected %s", err, string(code))
	}
	if p.ran != 0 {
		t.Fatalf("it ran %d times", p.ran)
	}
	if strings.Contains(fmt.Sprintf("%v %+v %#v %s", err, err, *fault, err), testToken) {
		t.Errorf("the token is in the error: %+v", err)
	}
	return fault
}

func (p *probe) expectRan(t *testing.T, result merged, err error) {
	t.Helper()
	if err != nil || p.ran != 1 || result.SHA != "6dcb09b5" {
		t.Fatalf("ran %d times: %v %v", p.ran, result, err)
	}
}

func bodyOf(t *testing.T, r recorded) map[string]any {
	t.Helper()
	var body map[string]any
	if err := json.NewDecoder(bytes.NewReader(r.body)).Decode(&body); err != nil {
		t.Fatalf("%s: %v", r.body, err)
	}
	return body
}
