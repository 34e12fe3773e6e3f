package aegisagent_test

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	aegisagent "github.com/aegisagent/aegis/sdk/go"
)

// Nothing but a whole, good answer runs the function.
func TestAnAnswerThatIsNotAsItShouldBeRunsNothing(t *testing.T) {
	good := func(g *gateway) string { return g.decision("allow", false) }
	replace := func(old, new string) func(*gateway) string {
		return func(g *gateway) string {
			text := strings.Replace(good(g), old, new, 1)
			if text == good(g) {
				g.t.Errorf("%s is not there", old)
			}
			return text
		}
	}
	for name, c := range map[string]struct {
		body func(*gateway) string
		code aegisagent.Code
	}{
		"unknown decision":   {replace(`"decision":"allow"`, `"decision":"permit"`), aegisagent.UnexpectedAnswer},
		"no decision":        {replace(`"decision":"allow"`, `"verdict":"allow"`), aegisagent.UnexpectedAnswer},
		"capitals":           {replace(`"allow"`, `"ALLOW"`), aegisagent.UnexpectedAnswer},
		"wrong hash":         {func(g *gateway) string { return strings.Replace(good(g), g.hash, strings.Repeat("a", 64), 1) }, aegisagent.ActionHashMismatch},
		"hash in capitals":   {func(g *gateway) string { return strings.Replace(good(g), g.hash, strings.ToUpper(g.hash), 1) }, aegisagent.ActionHashMismatch},
		"empty hash":         {func(g *gateway) string { return strings.Replace(good(g), g.hash, "", 1) }, aegisagent.ActionHashMismatch},
		"other definition":   {replace("aegis-jcs-1", "aegis-jcs-2"), aegisagent.UnexpectedAnswer},
		"dry run":            {replace(`"dry_run":false`, `"dry_run":true`), aegisagent.UnexpectedAnswer},
		"no dry run":         {replace(`"dry_run":false`, `"x":false`), aegisagent.UnexpectedAnswer},
		"no receipt":         {replace(`"receipt":{`, `"recept":{`), aegisagent.UnexpectedAnswer},
		"null receipt":       {replace(`"receipt":{"receipt_id":"rcp_n_1","receipt_hash":"aa","prev_receipt_hash":"bb"}`, `"receipt":null`), aegisagent.UnexpectedAnswer},
		"empty receipt":      {replace(`"receipt_id":"rcp_n_1"`, `"receipt_id":""`), aegisagent.UnexpectedAnswer},
		"id that climbs":     {replace(`"dec_1"`, `"../x"`), aegisagent.UnexpectedAnswer},
		"repeated member":    {replace(`"decision":"allow"`, `"decision":"deny","decision":"allow"`), aegisagent.UnexpectedAnswer},
		"half":               {func(g *gateway) string { return good(g)[:100] }, aegisagent.UnexpectedAnswer},
		"two values":         {func(g *gateway) string { return good(g) + "{}" }, aegisagent.UnexpectedAnswer},
		"array":              {func(g *gateway) string { return "[" + good(g) + "]" }, aegisagent.UnexpectedAnswer},
		"nothing":            {func(*gateway) string { return "" }, aegisagent.UnexpectedAnswer},
		"too large":          {func(g *gateway) string { return good(g) + strings.Repeat(" ", 1<<20) }, aegisagent.UnexpectedAnswer},
		"approval of others": {replace(`"approval":null`, `"approval":{"approval_id":"a","status":"consumed","expires_at":"2030-01-01T00:00:00Z","action_hash":"x"}`), aegisagent.ActionHashMismatch},
		"approval, no id": {func(g *gateway) string {
			return strings.Replace(g.decision("require_approval", false), "apr_1", "../x", 1)
		}, aegisagent.UnexpectedAnswer},
		"approval, no end": {func(g *gateway) string {
			return strings.Replace(g.decision("require_approval", false), `"expires_at"`, `"ends"`, 1)
		}, aegisagent.UnexpectedAnswer},
		"no approval": {replace(`"allow"`, `"require_approval"`), aegisagent.UnexpectedAnswer},
	} {
		t.Run(name, func(t *testing.T) {
			g := newGateway(t, "allow")
			g.authorize = func(g *gateway, w http.ResponseWriter, _ request) { send(w, c.body(g)) }
			var p probe
			_, err := aegisagent.Protect(g.client(), merge, p.merge)(context.Background(), someArgs)
			p.expectRefused(t, err, c.code)
			if asked := g.sent("/v1/authorize"); len(asked) != 1 || len(g.sent("/outcome")) != 0 {
				t.Errorf("asked %d times", len(asked))
			}
		})
	}
}

func TestAnAnswerOfAnotherMediaTypeDoesNotCount(t *testing.T) {
	for _, kind := range []string{"text/html", "application/problem+json", "application/jsonp", ""} {
		g := newGateway(t, "allow")
		g.authorize = func(g *gateway, w http.ResponseWriter, _ request) {
			w.Header()["Content-Type"] = []string{kind}
			fmt.Fprint(w, g.decision("allow", false))
		}
		var p probe
		_, err := aegisagent.Protect(g.client(), merge, p.merge)(context.Background(), someArgs)
		p.expectRefused(t, err, aegisagent.UnexpectedAnswer)
	}
	g := newGateway(t, "allow")
	g.authorize = func(g *gateway, w http.ResponseWriter, _ request) {
		w.Header().Set("Content-Type", "application/json; charset=utf-8")
		fmt.Fprint(w, g.decision("allow", false))
	}
	var p probe
	result, err := aegisagent.Protect(g.client(), merge, p.merge)(context.Background(), someArgs)
	p.expectRan(t, result, err)
}

func TestEveryStatusHasItsCode(t *testing.T) {
	for status, code := range map[int]aegisagent.Code{
		201: aegisagent.UnexpectedAnswer, 204: aegisagent.UnexpectedAnswer, 301: aegisagent.UnexpectedAnswer,
		307: aegisagent.UnexpectedAnswer, 400: aegisagent.RequestRefused, 401: aegisagent.Unauthenticated,
		403: aegisagent.AgentStopped, 404: aegisagent.RequestRefused, 409: aegisagent.RequestConflict,
		413: aegisagent.RequestRefused, 418: aegisagent.UnexpectedAnswer, 422: aegisagent.RequestRefused,
		429: aegisagent.RateLimited, 500: aegisagent.GatewayUnavailable, 503: aegisagent.GatewayUnavailable,
	} {
		g := newGateway(t, "allow")
		elsewhere := 0
		other := newGateway(t, "allow")
		other.authorize = func(g *gateway, w http.ResponseWriter, _ request) { elsewhere++; send(w, g.decision("allow", false)) }
		g.authorize = func(_ *gateway, w http.ResponseWriter, _ request) {
			w.Header().Set("Location", other.URL+"/v1/authorize")
			if status == 204 {
				w.WriteHeader(204)
				return
			}
			problem(w, status, "why", "mind `x`,\tand not "+testToken)
		}
		var p probe
		_, err := aegisagent.Protect(g.client(), merge, p.merge)(context.Background(), someArgs)
		fault := p.expectRefused(t, err, code)
		if fault.Status != status || elsewhere != 0 {
			t.Errorf("%d: %+v", status, *fault)
		}
		if status != 204 && (fault.Reason != "why" || fault.ReceiptID != "rcp_n_9" || fault.Message != "mind `x`, and not [token]") {
			t.Errorf("%d: %+v", status, *fault)
		}
		want := 1
		if status == 429 || status == 503 {
			want = 3
		}
		if asked := g.sent("/v1/authorize"); len(asked) != want {
			t.Errorf("%d: asked %d times", status, len(asked))
		}
	}
}

func TestTheCatalogsAnswerIsHeldToTheSame(t *testing.T) {
	for name, c := range map[string]struct {
		entry string
		code  aegisagent.Code
	}{
		"another action": {strings.Replace(mergeEntry, "github.merge", "github.purge", 1), aegisagent.UnexpectedAnswer},
		"no risk":        {strings.Replace(mergeEntry, `"risk"`, `"risque"`, 1), aegisagent.UnexpectedAnswer},
		"unknown risk":   {strings.Replace(mergeEntry, `"high"`, `"some"`, 1), aegisagent.UnexpectedAnswer},
		"no mutates":     {strings.Replace(mergeEntry, `"mutates_state":true`, `"mutates_state":1`, 1), aegisagent.UnexpectedAnswer},
		"bad template":   {strings.Replace(mergeEntry, `{owner}/`, `{owner/`, 1), aegisagent.UnexpectedAnswer},
		"bad aliases":    {strings.Replace(mergeEntry, `"pull_number"`, `7`, 1), aegisagent.UnexpectedAnswer},
		"html":           {"<html>", aegisagent.UnexpectedAnswer},
		"less risk":      {strings.Replace(mergeEntry, `"high"`, `"medium"`, 1), aegisagent.Configuration},
	} {
		t.Run(name, func(t *testing.T) {
			g := newGateway(t, "allow")
			g.entry = c.entry
			var p probe
			_, err := aegisagent.Protect(g.client(), merge, p.merge)(context.Background(), someArgs)
			p.expectRefused(t, err, c.code)
			if len(g.sent("/v1/authorize")) != 0 {
				t.Error("asked all the same")
			}
		})
	}
	g := newGateway(t, "allow")
	var p probe
	tool := merge
	tool.Action = "merge_pull_requests"
	_, err := aegisagent.Protect(g.client(), tool, p.merge)(context.Background(), someArgs)
	p.expectRefused(t, err, aegisagent.RequestRefused)
}

func TestASlowAnswerIsATimeout(t *testing.T) {
	g := newGateway(t, "allow")
	release := make(chan struct{})
	t.Cleanup(func() { close(release) })
	g.authorize = func(g *gateway, w http.ResponseWriter, _ request) {
		g.mu.Unlock()
		defer g.mu.Lock()
		<-release
	}
	var p probe
	begun := time.Now()
	c := g.client(func(o *aegisagent.Options) { o.Timeout = 400 * time.Millisecond })
	_, err := aegisagent.Protect(c, merge, p.merge)(context.Background(), someArgs)
	p.expectRefused(t, err, aegisagent.GatewayTimeout)
	if took := time.Since(begun); took > time.Second {
		t.Error(took)
	}
}
