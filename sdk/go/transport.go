package aegisagent

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"mime"
	"net"
	"net/http"
	"net/http/httptrace"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/aegisagent/aegis/sdk/go/internal/jcs"
)

// maxAnswer is the largest answer that is read, bytes.
const maxAnswer = 1 << 20

type request struct {
	method, path string
	body         []byte
	// once: never sent again after it may have arrived, and on a fresh connection: one that was kept may be gone, and
	// then nobody knows whether it arrived.
	once bool
}

type answer struct {
	status int
	header http.Header
	body   []byte
	// token is what no part of the answer may pass on, however it is spelled in there.
	token string
}

// exchange sends a request and, where that is safe, sends it again: at most twice, within the client's time-out.
// An error is an *Error, or the context's where the caller gave up.
func (c *Client) exchange(ctx context.Context, r request) (answer, error) {
	deadline := time.Now().Add(c.timeout)
	for try := 0; ; try++ {
		last := try == tries-1
		// An attempt that another one can follow gets half of the time that is left.
		left := time.Until(deadline)
		if !last && !r.once {
			left /= 2
		}
		got, arrived, fault := c.attempt(ctx, r, left)
		if err := ctx.Err(); err != nil && fault != nil {
			return answer{}, gaveUp(ctx, r, arrived)
		}
		wait, again := pause(try), false
		switch {
		case r.once && arrived:
			// No whole answer came back. One that came and is wrong is not lost.
			if lost(fault) {
				fault.Code = ConsumeUnknown
			}
		case fault != nil:
			again = lost(fault)
		default:
			var after time.Duration
			if after, again = repeatable(got); after > 0 {
				wait = after
			}
		}
		if last || !again || wait >= time.Until(deadline) {
			if fault != nil {
				return answer{}, fault
			}
			return got, nil
		}
		if !sleep(ctx, wait) {
			return answer{}, gaveUp(ctx, r, arrived)
		}
	}
}

// attempt sends a request once. `arrived` says that the gateway may have seen some of it.
func (c *Client) attempt(ctx context.Context, r request, limit time.Duration) (got answer, arrived bool, _ *Error) {
	within, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	var conn atomic.Pointer[watched]
	var answered atomic.Bool
	traced := httptrace.WithClientTrace(within, &httptrace.ClientTrace{
		GotConn:              func(got httptrace.GotConnInfo) { conn.Store(got.Conn.(*watched)) },
		GotFirstResponseByte: func() { answered.Store(true) },
	})
	var body io.Reader
	if r.body != nil {
		body = bytes.NewReader(r.body)
	}
	req, err := http.NewRequestWithContext(traced, r.method, c.base+r.path, body)
	if err != nil {
		return got, false, c.clean(failf(Configuration, "the request cannot be made: %v", err))
	}
	req.Header.Set("Authorization", "Bearer "+c.token())
	req.Header.Set("Accept", "application/json")
	req.Header.Set("User-Agent", "aegisagent-go/"+Version)
	if r.body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	client := c.http
	if r.once {
		client = c.fresh
	}
	resp, err := client.Do(req)
	on := conn.Load()
	arrived = on != nil
	if err != nil {
		// Half a head is no answer yet.
		half := arrived && on.halfHead()
		fault := classify(err, answered.Load() && !cutOff(err) && !half)
		if half && fault.Code == GatewayUnavailable {
			fault.Message = "the connection was lost"
		}
		return got, arrived, c.clean(fault)
	}
	defer resp.Body.Close()
	got = answer{status: resp.StatusCode, header: resp.Header}
	got.body, err = io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	switch {
	case err != nil:
		return got, arrived, c.clean(classify(err, true))
	case len(got.body) > maxAnswer:
		return got, arrived, &Error{Code: UnexpectedAnswer, Message: "the answer is larger than 1 MiB", Status: got.status}
	}
	// Wherever an answer quotes the token, an id included, it does not get further than this.
	got.body, got.token = bytes.ReplaceAll(got.body, []byte(c.token()), []byte("[token]")), c.token()
	return got, arrived, nil
}

// classify finds the nearest cause. `answered` says that some of an answer had come.
func classify(err error, answered bool) *Error {
	fault := &Error{Code: GatewayUnavailable, Message: "the gateway cannot be reached: " + err.Error(), cause: err}
	var timeout net.Error
	var record tls.RecordHeaderError
	var verify *tls.CertificateVerificationError
	switch {
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		fault.Code, fault.Message = GatewayTimeout, "the gateway did not answer in time"
	case errors.As(err, &verify), errors.As(err, &record), isX509(err), isAlert(err),
		strings.Contains(err.Error(), "server gave HTTP response to HTTPS client"):
		fault.Code, fault.Message = TLSError, "the TLS connection does not hold: "+err.Error()
	case errors.Is(err, errNotLoopback):
		fault.Code, fault.Message = Configuration, err.Error()
	case answered:
		fault.Code, fault.Message = UnexpectedAnswer, "the answer ended half way, or is not HTTP as it should be"
	}
	return fault
}

// lost says that no whole answer came: the connection ended, or the time.
func lost(fault *Error) bool {
	return fault != nil && (fault.Code == GatewayUnavailable || fault.Code == GatewayTimeout || cutOff(fault.cause))
}

// cutOff says whether a connection was lost in the middle of an answer.
func cutOff(err error) bool {
	return errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET)
}

// isAlert: one of the two ended the handshake with a TLS alert.
func isAlert(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && (op.Op == "remote error" || op.Op == "local error")
}

func isX509(err error) bool {
	var authority x509.UnknownAuthorityError
	var hostname x509.HostnameError
	var invalid x509.CertificateInvalidError
	var system x509.SystemRootsError
	return errors.As(err, &authority) || errors.As(err, &hostname) || errors.As(err, &invalid) || errors.As(err, &system)
}

// gaveUp is what the caller's own context comes to.
func gaveUp(ctx context.Context, r request, arrived bool) error {
	if r.once && arrived {
		return &Error{Code: ConsumeUnknown, Message: "given up while the approval was being used", cause: ctx.Err()}
	}
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return &Error{Code: GatewayTimeout, Message: "the context's deadline passed", cause: ctx.Err()}
	}
	return ctx.Err()
}

// repeatable says whether the same request may be sent again, and after what time where the gateway says so.
func repeatable(got answer) (time.Duration, bool) {
	after, told := retryAfter(got.header)
	switch got.status {
	case http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout, http.StatusTooManyRequests:
		return after, true
	case http.StatusConflict:
		return after, told
	}
	return 0, false
}

// retryAfter reads `Retry-After` in either of its forms.
func retryAfter(header http.Header) (time.Duration, bool) {
	text := header.Get("Retry-After")
	if seconds, err := strconv.ParseUint(text, 10, 31); err == nil {
		return time.Duration(seconds) * time.Second, true
	}
	until, err := time.Parse(http.TimeFormat, text)
	if err != nil {
		return 0, false
	}
	now := time.Now()
	// By the answerer's clock, which has whole seconds here; clocks that agree that far are taken to agree.
	if theirs, err := time.Parse(http.TimeFormat, header.Get("Date")); err == nil && now.Sub(theirs).Abs() > clockSlack {
		now = theirs
	}
	return max(until.Sub(now), 0), true
}

func pause(try int) time.Duration { return 100 * time.Millisecond << try }

// object reads a good answer: 200, JSON, one object without repeated members.
func (a answer) object() (map[string]any, *Error) {
	if a.status != http.StatusOK {
		return nil, &Error{Code: UnexpectedAnswer, Message: "status " + strconv.Itoa(a.status), Status: a.status}
	}
	kind, _, err := mime.ParseMediaType(a.header.Get("Content-Type"))
	if err != nil || kind != "application/json" {
		return nil, &Error{Code: UnexpectedAnswer, Message: "the answer is not application/json", Status: a.status}
	}
	value, err := a.value()
	members, ok := value.(map[string]any)
	if err != nil || !ok {
		return nil, &Error{Code: UnexpectedAnswer, Message: "the answer is not one strict JSON object", Status: a.status, cause: err}
	}
	return members, nil
}

// refusal is what an answer other than 200 means.
func (c *Client) refusal(a answer) *Error {
	fault := &Error{Code: UnexpectedAnswer, Status: a.status, Message: "status " + strconv.Itoa(a.status)}
	switch s := a.status; {
	case s == 401:
		fault.Code = Unauthenticated
	case s == 403:
		fault.Code = AgentStopped
	case s == 400, s == 404, s == 413, s == 422:
		fault.Code = RequestRefused
	case s == 409:
		fault.Code = RequestConflict
	case s == 429:
		fault.Code = RateLimited
	case s >= 500 && s <= 599:
		fault.Code = GatewayUnavailable
	}
	kind, _, _ := mime.ParseMediaType(a.header.Get("Content-Type"))
	value, err := a.value()
	problem, ok := value.(map[string]any)
	if kind == "application/problem+json" && err == nil && ok {
		if detail, _ := problem["detail"].(string); detail != "" {
			fault.Message = detail
		}
		kind, _ := problem["type"].(string)
		fault.Reason = strings.TrimPrefix(kind, "urn:aegis:problem:")
		fault.ReceiptID, _ = problem["receipt"].(string)
		if decision, ok := problem["decision"].(map[string]any); ok {
			fault.DecisionID, _ = decision["decision_id"].(string)
		}
	}
	return c.clean(fault)
}

// clean keeps the token and control characters out of what people read, whoever put them there, and bounds it.
func (c *Client) clean(fault *Error) *Error {
	for _, text := range []*string{&fault.Message, &fault.Reason, &fault.DecisionID, &fault.ReceiptID, &fault.ApprovalID} {
		*text = strings.ReplaceAll(*text, c.token(), "[token]")
		*text = strings.Map(func(r rune) rune {
			if unicode.IsControl(r) {
				return ' '
			}
			return r
		}, *text)
		if len(*text) > maxText {
			cut := maxText
			for !utf8.RuneStart((*text)[cut]) {
				cut--
			}
			*text = (*text)[:cut] + "…"
		}
	}
	return fault
}

const (
	tries      = 3
	maxText    = 1000
	clockSlack = 2 * time.Second
)

func (a answer) value() (any, error) {
	value, err := jcs.Parse(a.body)
	if err != nil || a.token == "" {
		return value, err
	}
	return without(value, a.token), nil
}

// without is the value without the token: JSON escapes hide it from whoever looks at the bytes.
func without(value any, token string) any {
	switch v := value.(type) {
	case string:
		return strings.ReplaceAll(v, token, "[token]")
	case []any:
		for i := range v {
			v[i] = without(v[i], token)
		}
	case map[string]any:
		clean := make(map[string]any, len(v))
		for key, item := range v {
			clean[strings.ReplaceAll(key, token, "[token]")] = without(item, token)
		}
		return clean
	}
	return value
}
