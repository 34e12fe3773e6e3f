package aegisagent_test

import (
	"context"
	"crypto/tls"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	aegisagent "github.com/aegisagent/aegis/sdk/go"
)

func TestARequestIsSentAgainByteForByte(t *testing.T) {
	for name, first := range map[string]func(w http.ResponseWriter){
		"502": func(w http.ResponseWriter) { w.WriteHeader(502) },
		"503": func(w http.ResponseWriter) { problem(w, 503, "not_recorded", "x") },
		"504": func(w http.ResponseWriter) { w.WriteHeader(504) },
		"429": func(w http.ResponseWriter) { problem(w, 429, "x", "x") },
		"409": func(w http.ResponseWriter) {
			w.Header().Set("Retry-After", "0")
			problem(w, 409, "request_in_flight", "x")
		},
		"gone": func(w http.ResponseWriter) {
			connection, _, _ := w.(http.Hijacker).Hijack()
			connection.Close()
		},
	} {
		t.Run(name, func(t *testing.T) {
			g := newGateway(t, "allow")
			tries := 0
			g.authorize = func(g *gateway, w http.ResponseWriter, _ request) {
				if tries++; tries < 3 {
					first(w)
					return
				}
				send(w, g.decision("allow", false))
			}
			var p probe
			result, err := aegisagent.Protect(g.client(), merge, p.merge)(context.Background(), someArgs)
			p.expectRan(t, result, err)
			asked := g.sent("/v1/authorize")
			if len(asked) != 3 || string(asked[0].body) != string(asked[1].body) || string(asked[0].body) != string(asked[2].body) {
				t.Errorf("%s", asked)
			}
		})
	}
}

func TestASlowFirstAnswerIsAskedForAgain(t *testing.T) {
	g := newGateway(t, "allow")
	tries := 0
	g.authorize = func(g *gateway, w http.ResponseWriter, _ request) {
		if tries++; tries == 1 {
			g.mu.Unlock()
			time.Sleep(900 * time.Millisecond)
			g.mu.Lock()
			return
		}
		send(w, g.decision("allow", false))
	}
	var p probe
	c := g.client(func(o *aegisagent.Options) { o.Timeout = time.Second })
	result, err := aegisagent.Protect(c, merge, p.merge)(context.Background(), someArgs)
	p.expectRan(t, result, err)
}

func TestRetryAfterIsKeptAndBounded(t *testing.T) {
	g := newGateway(t, "allow")
	tries := 0
	g.authorize = func(g *gateway, w http.ResponseWriter, _ request) {
		if tries++; tries == 1 {
			w.Header().Set("Retry-After", "1")
			problem(w, 429, "x", "x")
			return
		}
		send(w, g.decision("allow", false))
	}
	var p probe
	begun := time.Now()
	result, err := aegisagent.Protect(g.client(), merge, p.merge)(context.Background(), someArgs)
	p.expectRan(t, result, err)
	if took := time.Since(begun); took < time.Second {
		t.Error(took)
	}
	g.authorize = func(_ *gateway, w http.ResponseWriter, _ request) {
		w.Header().Set("Retry-After", "60")
		problem(w, 429, "x", "x")
	}
	begun = time.Now()
	p = probe{}
	_, err = aegisagent.Protect(g.client(), merge, p.merge)(context.Background(), someArgs)
	p.expectRefused(t, err, aegisagent.RateLimited)
	if took := time.Since(begun); took > time.Second {
		t.Error(took)
	}
}

func TestWhatIsOnTheWireDecidesTheCode(t *testing.T) {
	for name, c := range map[string]struct {
		bytes string
		code  aegisagent.Code
	}{
		"half a body":       {"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 500\r\n\r\n{\"decision\":", aegisagent.UnexpectedAnswer},
		"half a chunk":      {"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\nff\r\n{\"deci", aegisagent.UnexpectedAnswer},
		"half a head":       {"HTTP/1.1 200 OK\r\nContent-Ty", aegisagent.GatewayUnavailable},
		"no HTTP":           {"SSH-2.0-x\r\n\r\n", aegisagent.UnexpectedAnswer},
		"endless head":      {"HTTP/1.1 200 OK\r\nX: " + strings.Repeat("x", 100_000), aegisagent.UnexpectedAnswer},
		"nothing":           {"", aegisagent.GatewayUnavailable},
		"gzip nobody asked": {"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Encoding: gzip\r\nContent-Length: 3\r\n\r\n\x1f\x8b\x08", aegisagent.UnexpectedAnswer},
	} {
		t.Run(name, func(t *testing.T) {
			g := newGateway(t, "allow")
			g.authorize = func(_ *gateway, w http.ResponseWriter, _ request) {
				connection, _, _ := w.(http.Hijacker).Hijack()
				_, _ = io.WriteString(connection, c.bytes)
				connection.Close()
			}
			var p probe
			_, err := aegisagent.Protect(g.client(), merge, p.merge)(context.Background(), someArgs)
			p.expectRefused(t, err, c.code)
		})
	}
}

func TestAGatewayThatIsNotThereIsUnavailable(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	listener.Close()
	c := newClient(t, aegisagent.Options{GatewayURL: "http://" + listener.Addr().String(), AgentToken: testToken})
	var p probe
	_, err = aegisagent.Protect(c, merge, p.merge)(context.Background(), someArgs)
	p.expectRefused(t, err, aegisagent.GatewayUnavailable)
}

func TestCertificatesAreVerified(t *testing.T) {
	g := newGateway(t, "allow")
	s := httptest.NewUnstartedServer(g.Config.Handler)
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.StartTLS()
	t.Cleanup(s.Close)
	ca := filepath.Join(t.TempDir(), "ca.pem")
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})
	if err := os.WriteFile(ca, text, 0o600); err != nil {
		t.Fatal(err)
	}
	try := func(url, caFile string) (*probe, merged, error) {
		var p probe
		c := newClient(t, aegisagent.Options{GatewayURL: url, AgentToken: testToken, CAFile: caFile})
		result, err := aegisagent.Protect(c, merge, p.merge)(context.Background(), someArgs)
		return &p, result, err
	}
	p, result, err := try(s.URL, ca)
	p.expectRan(t, result, err)
	p, _, err = try(s.URL, "")
	p.expectRefused(t, err, aegisagent.TLSError)
	// The certificate is for 127.0.0.1 and example.com.
	p, _, err = try(strings.Replace(s.URL, "127.0.0.1", "localhost", 1), ca)
	p.expectRefused(t, err, aegisagent.TLSError)
	p, _, err = try(strings.Replace(g.URL, "http:", "https:", 1), ca)
	p.expectRefused(t, err, aegisagent.TLSError)
	s.TLS.MaxVersion = tls.VersionTLS11
	p, _, err = try(s.URL, ca)
	p.expectRefused(t, err, aegisagent.TLSError)
	if len(g.sent("/v1/authorize")) != 1 {
		t.Error("something was sent to a gateway that could not prove itself")
	}
}

func TestConnectionsAreKeptOpen(t *testing.T) {
	g := newGateway(t, "allow")
	c := g.client()
	for range 20 {
		var p probe
		result, err := aegisagent.Protect(c, merge, p.merge)(context.Background(), someArgs)
		p.expectRan(t, result, err)
	}
	from := map[string]bool{}
	for _, r := range g.sent("") {
		from[r.from] = true
	}
	if len(from) != 1 {
		t.Errorf("%d connections", len(from))
	}
}

func TestProxiesOfTheEnvironmentAreNotUsed(t *testing.T) {
	proxy := newGateway(t, "allow")
	for _, name := range []string{"HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "ALL_PROXY"} {
		t.Setenv(name, proxy.URL)
	}
	// An address of no network, RFC 5737.
	c := newClient(t, aegisagent.Options{
		GatewayURL: "http://192.0.2.1:9", AgentToken: testToken, DangerPlaintext: true, Timeout: 300 * time.Millisecond,
	})
	var p probe
	if _, err := aegisagent.Protect(c, merge, p.merge)(context.Background(), someArgs); err == nil || p.ran != 0 {
		t.Error(err)
	}
	if len(proxy.sent("")) != 0 {
		t.Error("the proxy was asked")
	}
}

func TestClientsNeedAGatewayAndAToken(t *testing.T) {
	for name, o := range map[string]aegisagent.Options{
		"no URL":         {AgentToken: testToken},
		"no token":       {GatewayURL: "https://a.example"},
		"plain":          {GatewayURL: "http://a.example", AgentToken: testToken},
		"no scheme":      {GatewayURL: "a.example", AgentToken: testToken},
		"other scheme":   {GatewayURL: "ftp://a.example", AgentToken: testToken},
		"user":           {GatewayURL: "https://u:p@a.example", AgentToken: testToken},
		"query":          {GatewayURL: "https://a.example?x=1", AgentToken: testToken},
		"line in token":  {GatewayURL: "https://a.example", AgentToken: testToken + "\r\nx: y"},
		"no CA":          {GatewayURL: "https://a.example", AgentToken: testToken, CAFile: "/nonexistent"},
		"CA without one": {GatewayURL: "https://a.example", AgentToken: testToken, CAFile: "transport_test.go"},
		"negative":       {GatewayURL: "https://a.example", AgentToken: testToken, Timeout: -1},
	} {
		_, err := aegisagent.NewClient(o)
		var p probe
		t.Run(name, func(t *testing.T) { p.expectRefused(t, err, aegisagent.Configuration) })
	}
	for _, url := range []string{"http://localhost:1", "http://[::1]:1", "http://127.9.9.9", "https://a.example/aegis/"} {
		newClient(t, aegisagent.Options{GatewayURL: url, AgentToken: testToken})
	}
	newClient(t, aegisagent.Options{GatewayURL: "http://a.example", AgentToken: testToken, DangerPlaintext: true})
	t.Setenv("AEGIS_GATEWAY_URL", "https://a.example")
	t.Setenv("AEGIS_AGENT_TOKEN", testToken)
	if c := newClient(t, aegisagent.Options{}); c.String() != "aegisagent.Client(https://a.example)" {
		t.Error(c)
	}
	t.Setenv("AEGIS_CA_FILE", "/nonexistent")
	if _, err := aegisagent.NewClient(aegisagent.Options{}); err == nil {
		t.Error("AEGIS_CA_FILE was not read")
	}
}

func TestTheTokenIsNeverPrinted(t *testing.T) {
	o := aegisagent.Options{GatewayURL: "https://a.example", AgentToken: testToken}
	c := newClient(t, o)
	var out strings.Builder
	logger := slog.New(slog.NewJSONHandler(&out, nil))
	logger.Info("x", "o", o, "c", c)
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%d", "%x", "%q"} {
		fmt.Fprintf(&out, verb+verb+verb+verb, o, &o, c, struct{ C *aegisagent.Client }{c})
	}
	if strings.Contains(out.String(), testToken) || strings.Contains(out.String(), fmt.Sprintf("%x", testToken)) {
		t.Error(out.String())
	}
}

func newClient(t *testing.T, o aegisagent.Options) *aegisagent.Client {
	t.Helper()
	c, err := aegisagent.NewClient(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}
