// Command driver lets the contract suite drive the Go SDK: one JSON object a line in, one a line out, in order.
//
//	go build -o driver . && ./driver
package main

import (
	"bufio"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/aegisagent/aegis/sdk/go/canon"
	"github.com/aegisagent/aegis/sdk/go/receipts"
)

type order struct {
	Op       string          `json:"op"`
	ID       json.RawMessage `json:"id"`
	TextB64  string          `json:"text_b64"`
	ToolCall json.RawMessage `json:"tool_call"`
	Path     string          `json:"path"`
	callOrder
}

func main() {
	in := bufio.NewReaderSize(os.Stdin, 1<<20)
	out := bufio.NewWriter(os.Stdout)
	encoder := json.NewEncoder(out)
	encoder.SetEscapeHTML(false)
	for {
		line, err := in.ReadBytes('\n')
		if len(line) > 1 {
			if err := encoder.Encode(serve(line)); err != nil {
				fmt.Fprintln(os.Stderr, "driver:", err)
				os.Exit(1)
			}
			// Answers are waited for one at a time, or many at once where more orders are there already.
			if in.Buffered() == 0 {
				out.Flush()
			}
		}
		if err != nil {
			out.Flush()
			if !errors.Is(err, io.EOF) {
				fmt.Fprintln(os.Stderr, "driver:", err)
				os.Exit(1)
			}
			return
		}
	}
}

func serve(line []byte) (answer map[string]any) {
	var o order
	if err := json.Unmarshal(line, &o); err != nil {
		return map[string]any{"id": nil, "ok": false, "reason": "bad_order", "message": err.Error()}
	}
	defer func() {
		if fault := recover(); fault != nil {
			answer = map[string]any{"ok": false, "reason": "panic", "message": fmt.Sprint(fault)}
		}
		answer["id"] = o.ID
	}()
	switch o.Op {
	case "call":
		return serveCall(o.callOrder)
	case "canon":
		text, err := base64.StdEncoding.DecodeString(o.TextB64)
		if err != nil {
			return refused(err)
		}
		value, err := canon.Parse(text)
		if err != nil {
			return refused(err)
		}
		canonical, err := canon.Bytes(value)
		if err != nil {
			return refused(err)
		}
		return map[string]any{"ok": true, "sha256": canon.Digest(canonical)}
	case "hash_call":
		call, err := canon.ParseCall(o.ToolCall)
		if err != nil {
			return refused(err)
		}
		hash, err := call.Hash()
		if err != nil {
			return refused(err)
		}
		return map[string]any{"ok": true, "sha256": hash}
	case "verify":
		report := receipts.Verify(o.Path, nil)
		return map[string]any{"exit": report.ExitCode(), "verdict": report}
	}
	return map[string]any{"ok": false, "reason": "unknown_op"}
}

func refused(err error) map[string]any {
	reason := canon.Reason("driver")
	var refusal *canon.Error
	if errors.As(err, &refusal) {
		reason = refusal.Reason
	}
	return map[string]any{"ok": false, "reason": reason}
}
