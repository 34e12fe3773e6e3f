// Package receipts verifies receipts: a log's directory or an exported bundle, offline, from their bytes alone.
//
// Checked are framing, canonical form, known types, numbering without gaps across segments, the hash chain, one node,
// the head file, and that outcomes name earlier intents of the same decision. A bundle's openings are checked against
// the commitments. The log is hash-chained, not signed: whoever can rewrite all of it can make another consistent
// one; and without the head file a cut at a record's border shows nothing.
package receipts

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// The verdicts.
const (
	Verified   = "verified"
	Tampered   = "tampered"
	Unreadable = "unreadable"
)

// Report is what verification found. Its JSON is that of the Rust program.
type Report struct {
	// Verdict is Verified, Tampered or Unreadable.
	Verdict string
	// Seq is the first leaf that does not hold, and File where it is. Only of Tampered.
	Seq  uint64
	File string
	// Why is empty where the verdict is Verified.
	Why string
	// Node of the log; nil where there is no leaf.
	Node *string
	// Leaves that hold, segment files and bytes read.
	Leaves, Segments, Bytes uint64
	// FirstTS and LastTS are milliseconds since the epoch; nil where there is no leaf.
	FirstTS, LastTS *int64
	// LastHash is that of the last leaf that holds. Keep it, and a later verification can be held against it.
	LastHash *string
	// Types counts leaves by type.
	Types map[string]uint64
	// WithoutOutcome counts allowed intents of the gateway's own doors whose outcome is unknown.
	WithoutOutcome uint64
	// BeyondHead counts leaves behind the head file's: written, not known to be synced.
	BeyondHead uint64
	// Openings counts those of a bundle that open their commitments.
	Openings uint64
	// Findings are odd and no tampering, at most 100 of them; MoreFindings counts the others.
	Findings     []string
	MoreFindings uint64
}

func newReport() *Report {
	return &Report{Verdict: Verified, Types: map[string]uint64{}, Findings: []string{}}
}

func unreadable(format string, args ...any) *Report {
	r := newReport()
	r.Verdict, r.Why = Unreadable, fmt.Sprintf(format, args...)
	return r
}

// ExitCode is 0 verified, 1 tampered, 2 unreadable.
func (r *Report) ExitCode() int {
	return slices.Index([]string{Verified, Tampered, Unreadable}, r.Verdict)
}

func (r *Report) find(format string, args ...any) {
	if len(r.Findings) < maxFindings {
		r.Findings = append(r.Findings, fmt.Sprintf(format, args...))
	} else {
		r.MoreFindings++
	}
}

const maxFindings = 100

// MarshalJSON writes the members of the verdict among the others.
func (r *Report) MarshalJSON() ([]byte, error) {
	var seq *uint64
	var file, why *string
	if r.Verdict == Tampered {
		seq, file = &r.Seq, &r.File
	}
	if r.Verdict != Verified {
		why = &r.Why
	}
	var out bytes.Buffer
	encoder := json.NewEncoder(&out)
	encoder.SetEscapeHTML(false)
	err := encoder.Encode(struct {
		Verdict        string            `json:"verdict"`
		Seq            *uint64           `json:"seq,omitempty"`
		File           *string           `json:"file,omitempty"`
		Why            *string           `json:"why,omitempty"`
		Node           *string           `json:"node"`
		Leaves         uint64            `json:"leaves"`
		Segments       uint64            `json:"segments"`
		Bytes          uint64            `json:"bytes"`
		FirstTS        *int64            `json:"first_ts"`
		LastTS         *int64            `json:"last_ts"`
		LastHash       *string           `json:"last_hash"`
		Types          map[string]uint64 `json:"types"`
		WithoutOutcome uint64            `json:"without_outcome"`
		BeyondHead     uint64            `json:"beyond_head"`
		Openings       uint64            `json:"openings"`
		Findings       []string          `json:"findings"`
		MoreFindings   uint64            `json:"more_findings"`
	}{
		r.Verdict, seq, file, why, r.Node, r.Leaves, r.Segments, r.Bytes, r.FirstTS, r.LastTS, r.LastHash, r.Types,
		r.WithoutOutcome, r.BeyondHead, r.Openings, r.Findings, r.MoreFindings,
	})
	return out.Bytes(), err
}

// String is the report for people.
func (r *Report) String() string {
	var out strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&out, format+"\n", args...) }
	switch r.Verdict {
	case Unreadable:
		line("unreadable: %s", r.Why)
		return out.String()
	case Tampered:
		line("TAMPERED at leaf %d (%s): %s", r.Seq, r.File, r.Why)
		line("  %d leaves before it hold", r.Leaves)
	default:
		node := "-"
		if r.Node != nil {
			node = *r.Node
		}
		line("verified: %d leaves of node `%s`, %d bytes", r.Leaves, node, r.Bytes)
	}
	if r.Leaves > 0 {
		line("  from %s to %s", instant(r.FirstTS), instant(r.LastTS))
		var types []string
		for _, name := range slices.Sorted(maps.Keys(r.Types)) {
			types = append(types, fmt.Sprintf("%s %d", name, r.Types[name]))
		}
		line("  %s", strings.Join(types, ", "))
	}
	if r.LastHash != nil {
		line("  last receipt hash %s", *r.LastHash)
	}
	for _, count := range []struct {
		n    uint64
		what string
	}{
		{r.WithoutOutcome, "allowed intents without an outcome (outcome unknown)"},
		{r.BeyondHead, "leaves behind the last sync, which the head file does not cover"},
		{r.Openings, "commitments opened"},
	} {
		if count.n > 0 {
			line("  %d %s", count.n, count.what)
		}
	}
	for _, finding := range r.Findings {
		line("  note: %s", finding)
	}
	if r.MoreFindings > 0 {
		line("  note: and %d more", r.MoreFindings)
	}
	return out.String()
}

func instant(ms *int64) string {
	if ms == nil || *ms < -377_705_023_201_000 || *ms > 253_402_207_200_999 {
		return "-"
	}
	return time.UnixMilli(*ms).UTC().Format(time.RFC3339Nano)
}
