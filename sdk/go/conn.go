package aegisagent

import (
	"bytes"
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"strings"
	"sync"
)

// watched is a connection that knows how far the head of an answer got. net/http takes half a line for a whole one
// where the connection ends, and calls it malformed.
type watched struct {
	net.Conn
	mu sync.Mutex
	// begin is the answer's beginning, tail the last of it, up to the end of the head.
	begin, tail  []byte
	whole, ended bool
}

// watch makes every connection of a transport a watched one.
func watch(transport *http.Transport, dialer *net.Dialer) {
	transport.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
		return watchedConn(dialer.DialContext(ctx, network, address))
	}
	secure := &tls.Dialer{NetDialer: dialer, Config: transport.TLSClientConfig}
	transport.DialTLSContext = func(ctx context.Context, network, address string) (net.Conn, error) {
		return watchedConn(secure.DialContext(ctx, network, address))
	}
}

func watchedConn(conn net.Conn, err error) (net.Conn, error) {
	if err != nil {
		return nil, err
	}
	return &watched{Conn: conn}, nil
}

func (w *watched) Write(data []byte) (int, error) {
	w.mu.Lock()
	w.begin, w.tail, w.whole = nil, nil, false
	w.mu.Unlock()
	return w.Conn.Write(data)
}

func (w *watched) Read(into []byte) (int, error) {
	n, err := w.Conn.Read(into)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ended = err != nil
	if w.whole {
		return n, err
	}
	if missing := len(httpBegin) - len(w.begin); missing > 0 {
		w.begin = append(w.begin, into[:min(n, missing)]...)
	}
	seen := append(w.tail, into[:n]...)
	w.whole = bytes.Contains(seen, []byte("\n\r\n")) || bytes.Contains(seen, []byte("\n\n"))
	w.tail = bytes.Clone(seen[max(0, len(seen)-2):])
	return n, err
}

// halfHead says that the connection ended within the head of an answer.
func (w *watched) halfHead() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.ended && !w.whole && strings.HasPrefix(httpBegin, string(w.begin))
}

const httpBegin = "HTTP/1."
