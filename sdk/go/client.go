package aegisagent

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"strings"
	"syscall"
	"time"
)

// Options of a Client. What is empty comes from AEGIS_GATEWAY_URL, AEGIS_AGENT_TOKEN and AEGIS_CA_FILE.
type Options struct {
	// GatewayURL is the agents' listener, e.g. `https://aegis.internal:8443`. `http` is for loopback.
	GatewayURL string
	// AgentToken is `aegis_agt_…`.
	AgentToken string
	// CAFile names PEM certificates to trust beside the system's.
	CAFile string
	// DangerPlaintext lets `http` leave this machine: whoever is on the way reads the token and answers in the
	// gateway's place.
	DangerPlaintext bool
	// Timeout is for one request, its repetitions included; 10 s where it is zero.
	Timeout time.Duration
	// ApprovalTimeout bounds the wait for people; 15 min where it is zero.
	ApprovalTimeout time.Duration
	// Logger takes what nobody can be told otherwise; slog.Default() where it is nil.
	Logger *slog.Logger
}

// Format never prints the token.
func (o Options) Format(f fmt.State, _ rune) { fmt.Fprintf(f, "aegisagent.Options(%s)", o.GatewayURL) }

// LogValue never prints the token.
func (o Options) LogValue() slog.Value { return slog.StringValue(fmt.Sprint(o)) }

// Client asks one gateway in the name of one agent. It holds no policy, keeps connections open, and may be used by
// many goroutines at once.
type Client struct {
	base            string
	token           func() string // a closure, so that no way of printing shows it
	timeout         time.Duration
	approvalTimeout time.Duration
	log             *slog.Logger
	http            *http.Client
	fresh           *http.Client // a connection for each request
	catalog         catalog
}

// NewClient makes a client. It sends nothing. Errors have the code Configuration.
func NewClient(o Options) (*Client, error) {
	gateway := orEnv(o.GatewayURL, "AEGIS_GATEWAY_URL")
	token := orEnv(o.AgentToken, "AEGIS_AGENT_TOKEN")
	caFile := orEnv(o.CAFile, "AEGIS_CA_FILE")
	base, plain, fault := parseGateway(gateway, o.DangerPlaintext)
	if fault != nil {
		return nil, fault
	}
	if token == "" {
		return nil, failf(Configuration, "no agent token: set AgentToken or AEGIS_AGENT_TOKEN")
	}
	if strings.ContainsFunc(token, func(r rune) bool { return r <= ' ' || r >= 0x7f }) {
		return nil, failf(Configuration, "the agent token has characters that no token has")
	}
	if o.Timeout < 0 || o.ApprovalTimeout < 0 {
		return nil, failf(Configuration, "a time-out is negative")
	}
	roots, fault := rootsOf(caFile)
	if fault != nil {
		return nil, fault
	}
	loopbackOnly := plain && !o.DangerPlaintext
	once := newTransport(roots, loopbackOnly)
	once.DisableKeepAlives = true
	c := &Client{
		base:            base,
		token:           func() string { return token },
		timeout:         orDuration(o.Timeout, 10*time.Second),
		approvalTimeout: orDuration(o.ApprovalTimeout, 15*time.Minute),
		log:             o.Logger,
		http:            &http.Client{Transport: newTransport(roots, loopbackOnly), CheckRedirect: noRedirect},
		fresh:           &http.Client{Transport: once, CheckRedirect: noRedirect},
	}
	if c.log == nil {
		c.log = slog.Default()
	}
	return c, nil
}

// Close closes idle connections. The client can still be used.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// String names the gateway and nothing else.
func (c *Client) String() string { return "aegisagent.Client(" + c.base + ")" }

// GoString is String.
func (c *Client) GoString() string { return c.String() }

func newTransport(roots *x509.CertPool, loopbackOnly bool) *http.Transport {
	dialer := &net.Dialer{KeepAlive: 30 * time.Second}
	if loopbackOnly {
		// `localhost` is what the resolver says it is.
		dialer.Control = func(_, address string, _ syscall.RawConn) error {
			if at, err := netip.ParseAddrPort(address); err != nil || !at.Addr().IsLoopback() {
				return errNotLoopback
			}
			return nil
		}
	}
	transport := &http.Transport{
		// No Proxy: the variables of the environment are for the agent's own traffic.
		TLSClientConfig:        &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12},
		MaxIdleConnsPerHost:    64,
		IdleConnTimeout:        90 * time.Second,
		DisableCompression:     true,
		MaxResponseHeaderBytes: 64 << 10,
	}
	watch(transport, dialer)
	return transport
}

var errNotLoopback = errors.New("plain http is for loopback")

func noRedirect(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }

// parseGateway also says whether the URL is plain http.
func parseGateway(text string, dangerPlaintext bool) (string, bool, *Error) {
	if text == "" {
		return "", false, failf(Configuration, "no gateway: set GatewayURL or AEGIS_GATEWAY_URL")
	}
	u, err := url.Parse(text)
	// Not quoted back: somebody may have put a secret into it.
	if err != nil || u.Hostname() == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" || u.Opaque != "" {
		return "", false, failf(Configuration, "the gateway's URL is not `https://host[:port][/path]`")
	}
	switch {
	case u.Scheme == "https":
	case u.Scheme == "http" && (dangerPlaintext || isLoopback(u.Hostname())):
	case u.Scheme == "http":
		return "", false, failf(Configuration, "plain http is for loopback; elsewhere it takes DangerPlaintext")
	default:
		return "", false, failf(Configuration, "the gateway's URL must begin with https://")
	}
	return strings.TrimRight(u.String(), "/"), u.Scheme == "http", nil
}

func isLoopback(host string) bool {
	if strings.EqualFold(host, "localhost") {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.IsLoopback()
}

func rootsOf(caFile string) (*x509.CertPool, *Error) {
	if caFile == "" {
		return nil, nil
	}
	pem, err := os.ReadFile(caFile)
	if err != nil {
		return nil, &Error{Code: Configuration, Message: "the CA file cannot be read: " + err.Error(), cause: err}
	}
	roots, err := x509.SystemCertPool()
	if err != nil {
		roots = x509.NewCertPool()
	}
	if !roots.AppendCertsFromPEM(pem) {
		return nil, failf(Configuration, "the CA file `%s` holds no certificate", caFile)
	}
	return roots, nil
}

func orEnv(value, name string) string {
	if value != "" {
		return value
	}
	return os.Getenv(name)
}

func orDuration(value, otherwise time.Duration) time.Duration {
	if value == 0 {
		return otherwise
	}
	return value
}

// sleep is false where the context ended first.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
