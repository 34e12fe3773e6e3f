package receipts

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// leafTypes are those that this version knows.
var leafTypes = []string{"intent.v1", "outcome.v1", "outcomes.v1", "refused.v1", "event.v1", "recovered.v1"}

// leafView holds the members of a leaf that link it, as they stand in its bytes: raw text, which is canonical, so
// equal text is equal value.
type leafView struct {
	typeName, node, prev       string
	seq                        uint64
	ts                         int64
	decisionID, decision, door *string
	dryRun                     bool
	intentSeq                  *uint64
	entries                    []byte
}

// readLeaf checks that bytes are canonical JSON with the members every leaf has.
func readLeaf(text []byte) (*leafView, error) {
	v := &leafView{}
	var seq *uint64
	var ts *int64
	err := walkObject(text, func(key, raw []byte) {
		switch string(key) {
		case "type":
			v.typeName, _ = rawString(raw)
		case "node":
			v.node, _ = rawString(raw)
		case "seq":
			seq = unsigned(raw)
		case "ts":
			ts = nil
			if n, err := strconv.ParseInt(string(raw), 10, 64); err == nil {
				ts = &n
			}
		case "prev_receipt_hash":
			v.prev, _ = rawString(raw)
		case "decision_id":
			v.decisionID = optional(raw)
		case "decision":
			v.decision = optional(raw)
		case "door":
			v.door = optional(raw)
		case "dry_run":
			v.dryRun = string(raw) == "true"
		case "intent_seq":
			v.intentSeq = unsigned(raw)
		case "entries":
			v.entries = raw
		}
	})
	switch {
	case err != nil:
		return nil, err
	case seq == nil:
		return nil, errors.New("`seq` is missing or no number")
	case ts == nil:
		return nil, errors.New("`ts` is missing or no number")
	case !slices.Contains(leafTypes, v.typeName):
		return nil, fmt.Errorf("unknown type `%s`", v.typeName)
	case v.node == "" || len(v.prev) != 64:
		return nil, errors.New("`node` or `prev_receipt_hash` is missing")
	}
	v.seq, v.ts = *seq, *ts
	return v, nil
}

func unsigned(raw []byte) *uint64 {
	n, err := strconv.ParseUint(string(raw), 10, 64)
	if err != nil {
		return nil
	}
	return &n
}

func optional(raw []byte) *string {
	if text, ok := rawString(raw); ok {
		return &text
	}
	return nil
}

// entryLink is `intent_seq` and `decision_id` of one entry of an `outcomes.v1`.
func entryLink(raw []byte) (seq uint64, id string, ok bool) {
	var number *uint64
	var text *string
	walked := members(raw, func(key, raw []byte) {
		switch string(key) {
		case "intent_seq":
			number = unsigned(raw)
		case "decision_id":
			text = optional(raw)
		}
	})
	if !walked || number == nil || text == nil {
		return 0, "", false
	}
	return *number, *text, true
}

// chain is the end of the leaves read so far.
type chain struct {
	node     *string
	nextSeq  uint64
	lastHash string
	lastTS   int64
}

var genesis = strings.Repeat("0", 64)

// check says whether a leaf is the next one.
func (c *chain) check(v *leafView) error {
	switch {
	case v.seq != c.nextSeq:
		return fmt.Errorf("its `seq` is %d, expected %d", v.seq, c.nextSeq)
	case v.prev != c.lastHash:
		return errors.New("its `prev_receipt_hash` is not the hash of the leaf before it")
	case c.node != nil && *c.node != v.node:
		return fmt.Errorf("its `node` is `%s`, expected `%s`", v.node, *c.node)
	}
	return nil
}

// advance goes on behind a checked leaf.
func (c *chain) advance(text []byte, v *leafView) {
	if c.node == nil {
		c.node = &v.node
	}
	c.nextSeq++
	c.lastHash = digest(text)
	c.lastTS = v.ts
}

func digest(text []byte) string {
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:])
}

// isDigest: exactly 64 lowercase hex digits; one digest has one spelling.
func isDigest(text string) bool {
	return len(text) == 64 && strings.Trim(text, "0123456789abcdef") == ""
}
