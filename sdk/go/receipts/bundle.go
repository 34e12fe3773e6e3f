package receipts

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"

	"github.com/aegisagent/aegis/sdk/go/internal/jcs"
)

// bundleFormat is the only one.
const bundleFormat = "aegis-receipt-bundle-1"

type bundle struct {
	format, node string
	leaves       []bundleLeaf
}

type bundleLeaf struct {
	seq       uint64
	hash, raw string
	opening   *opening
}

// opening is what stands behind an intent's commitments.
type opening struct {
	action, hash string
	salt         []byte
}

// VerifyBundle verifies the bytes of a bundle's file. It shows that the leaves are what the log said, as far as their
// hashes are known from elsewhere, and what their commitments stand for.
func VerifyBundle(text []byte) *Report {
	b, err := readBundle(text)
	if err != nil {
		return unreadable("not a bundle: %v", err)
	}
	if b.format != bundleFormat {
		return unreadable("unknown bundle format `%s`", b.format)
	}
	r := newReport()
	r.Node = &b.node
	for at := range b.leaves {
		entry := &b.leaves[at]
		var before *bundleLeaf
		if at > 0 {
			before = &b.leaves[at-1]
		}
		if err := entry.check(before, b.node, r); err != nil {
			r.Verdict, r.Seq, r.File, r.Why = Tampered, entry.seq, "bundle", err.Error()
			return r
		}
	}
	return r
}

func (l *bundleLeaf) check(before *bundleLeaf, node string, r *Report) error {
	text := []byte(l.raw)
	view, err := readLeaf(text)
	switch {
	case err != nil:
		return err
	case digest(text) != l.hash:
		return errors.New("its bytes do not have its `receipt_hash`")
	case view.seq != l.seq:
		return fmt.Errorf("its `seq` is %d", view.seq)
	case view.node != node:
		return fmt.Errorf("its `node` is `%s`", view.node)
	}
	if before != nil {
		switch {
		case before.seq >= l.seq:
			return errors.New("it is not behind the leaf before it")
		case before.seq+1 < l.seq:
			r.find("leaves %d and %d are not neighbours: nothing here links them", before.seq, l.seq)
		case view.prev != before.hash:
			return errors.New("its `prev_receipt_hash` is not the hash of the leaf before it")
		}
	}
	if l.opening != nil {
		if err := l.opening.open(text, view.typeName); err != nil {
			return err
		}
		r.Openings++
	}
	r.Types[view.typeName]++
	r.Bytes += uint64(len(text))
	r.count(view)
	r.LastHash = &l.hash
	return nil
}

// open says whether an action is the one the leaf committed to, and the one it names.
func (o *opening) open(leaf []byte, typeName string) error {
	// It parses, as it has been read as a leaf.
	value, err := jcs.Parse(leaf)
	if err != nil {
		return err
	}
	m := value.(map[string]any)
	if err := checkShape(m, typeName); err != nil {
		return err
	}
	if typeName != "intent.v1" {
		return errors.New("it has an opening and no commitments")
	}
	action := []byte(o.action)
	if digest(action) != o.hash {
		return errors.New("the opened action does not have its `action_hash`")
	}
	opened, parameters, ok := canonicalAction(action)
	if !ok {
		return errors.New("the opened action is not canonical")
	}
	if commit(o.salt, o.hash) != m["action_commitment"] {
		return errors.New("`action_commitment` is not a commitment to the opened action")
	}
	if commit(o.salt, digest(parameters)) != m["parameters_commitment"] {
		return errors.New("`parameters_commitment` is not a commitment to the opened parameters")
	}
	resource, isText := opened["resource"].(string)
	named, namesOne := m["resource"].(string)
	if opened["tool"] != m["tool"] || opened["action"] != m["action"] || opened["mutates_state"] != m["mutates_state"] ||
		isText != namesOne || resource != named {
		return errors.New("the leaf names another action than the opened one")
	}
	return nil
}

// canonicalAction returns the action's members and its canonical parameters.
func canonicalAction(text []byte) (map[string]any, []byte, bool) {
	value, err := jcs.Parse(text)
	if err != nil {
		return nil, nil, false
	}
	canonical, err := jcs.Bytes(value)
	if err != nil || !bytes.Equal(canonical, text) {
		return nil, nil, false
	}
	m, _ := value.(map[string]any)
	parameters, there := m["parameters"]
	if !there {
		return nil, nil, false
	}
	canonical, err = jcs.Bytes(parameters)
	return m, canonical, err == nil
}

// commit is SHA-256("aegis-commitment-1\0" || salt || digest).
func commit(salt []byte, hexDigest string) string {
	raw, err := hex.DecodeString(hexDigest)
	if err != nil {
		return ""
	}
	return digest(append(append([]byte("aegis-commitment-1\x00"), salt...), raw...))
}

func readBundle(text []byte) (bundle, error) {
	value, err := jcs.ParseRaw(text)
	if err != nil {
		return bundle{}, err
	}
	var b bundle
	m, err := fieldsOf(value, "format", "node", "leaves")
	if err != nil {
		return b, err
	}
	if b.format, err = textOf(m, "format"); err != nil {
		return b, err
	}
	if b.node, err = textOf(m, "node"); err != nil {
		return b, err
	}
	leaves, ok := m["leaves"].([]any)
	if !ok {
		return b, errors.New("`leaves` is no array")
	}
	for _, leaf := range leaves {
		read, err := readBundleLeaf(leaf)
		if err != nil {
			return b, err
		}
		b.leaves = append(b.leaves, read)
	}
	return b, nil
}

func readBundleLeaf(value any) (bundleLeaf, error) {
	var l bundleLeaf
	m, err := fieldsOf(value, "seq", "receipt_hash", "leaf", "opening")
	if err != nil {
		return l, err
	}
	number, _ := m["seq"].(jcs.RawNumber)
	if l.seq, err = strconv.ParseUint(string(number), 10, 64); err != nil {
		return l, errors.New("`seq` is missing or no number")
	}
	if l.hash, err = digestOf(m, "receipt_hash"); err != nil {
		return l, err
	}
	if l.raw, err = textOf(m, "leaf"); err != nil || m["opening"] == nil {
		return l, err
	}
	m, err = fieldsOf(m["opening"], "action", "action_hash", "salt")
	if err != nil {
		return l, err
	}
	l.opening = &opening{}
	if l.opening.action, err = textOf(m, "action"); err != nil {
		return l, err
	}
	if l.opening.hash, err = digestOf(m, "action_hash"); err != nil {
		return l, err
	}
	salt, err := textOf(m, "salt")
	if err != nil {
		return l, err
	}
	if l.opening.salt, err = hex.DecodeString(salt); err != nil || len(l.opening.salt) != 32 {
		return l, errors.New("`salt` is not 64 hex digits")
	}
	return l, nil
}

// fieldsOf takes an object that has no other members than these, or an array of their values in order.
func fieldsOf(value any, names ...string) (map[string]any, error) {
	known := map[string]any{}
	switch v := value.(type) {
	case map[string]any:
		for _, name := range names {
			if member, there := v[name]; there {
				known[name] = member
			}
		}
		if len(known) < len(v) {
			return nil, errors.New("unknown member")
		}
	case []any:
		if len(v) > len(names) {
			return nil, errors.New("too many items")
		}
		for i, item := range v {
			known[names[i]] = item
		}
	default:
		return nil, errors.New("no object where one is expected")
	}
	return known, nil
}

func textOf(m map[string]any, name string) (string, error) {
	text, ok := m[name].(string)
	if !ok {
		return "", fmt.Errorf("`%s` is missing or no text", name)
	}
	return text, nil
}

func digestOf(m map[string]any, name string) (string, error) {
	text, _ := m[name].(string)
	if !isDigest(text) {
		return "", fmt.Errorf("`%s` is missing or not 64 lowercase hex digits", name)
	}
	return text, nil
}
