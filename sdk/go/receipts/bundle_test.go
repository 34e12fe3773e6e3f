package receipts_test

import (
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/aegisagent/aegis/sdk/go/canon"
	"github.com/aegisagent/aegis/sdk/go/receipts"
)

const actionText = `{"action":"merge","mutates_state":true,"parameters":{"x":1.5},"resource":"o/r#1","tool":"github"}`

// commitment is spelt out as docs/receipts.md has it.
func commitment(salt []byte, digest string) string {
	raw, _ := hex.DecodeString(digest)
	return canon.Digest([]byte("aegis-commitment-1\x00" + string(salt) + string(raw)))
}

// goodBundle has an intent with its opening, its neighbour, and a leaf further on.
func goodBundle(t *testing.T) map[string]any {
	salt := []byte(strings.Repeat("s", 32))
	intent := leaf{
		"type": "intent.v1", "node": "n1", "seq": 4, "ts": 1, "prev_receipt_hash": strings.Repeat("0", 64),
		"tool": "github", "action": "merge", "resource": "o/r#1", "mutates_state": true, "agent_binding": "bearer",
		"action_commitment":     commitment(salt, canon.Digest([]byte(actionText))),
		"parameters_commitment": commitment(salt, canon.Digest([]byte(`{"x":1.5}`))),
		"class":                 "write", "risk": "high", "decision": "allow", "decision_id": "dec_1", "door": "sdk",
		"reason": "allowed", "route": "sdk", "snapshot": strings.Repeat("a", 64), "source_trust": "unknown", "tenant": "t",
	}
	first := canonical(t, intent)
	second := canonical(t, leaf{"type": "event.v1", "node": "n1", "seq": 5, "ts": 2, "prev_receipt_hash": canon.Digest(first)})
	third := canonical(t, leaf{"type": "event.v1", "node": "n1", "seq": 9, "ts": 3, "prev_receipt_hash": strings.Repeat("b", 64)})
	entry := func(seq int, text []byte) map[string]any {
		return map[string]any{"seq": seq, "receipt_hash": canon.Digest(text), "leaf": string(text)}
	}
	opened := entry(4, first)
	opened["opening"] = map[string]any{
		"action": actionText, "action_hash": canon.Digest([]byte(actionText)), "salt": hex.EncodeToString(salt),
	}
	return map[string]any{
		"format": "aegis-receipt-bundle-1", "node": "n1", "leaves": []any{opened, entry(5, second), entry(9, third)},
	}
}

func verifyBundle(t *testing.T, bundle any) *receipts.Report {
	t.Helper()
	text, err := json.Marshal(bundle)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "bundle.json")
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return receipts.Verify(path, nil)
}

func TestAGoodBundleIsVerified(t *testing.T) {
	report := verifyBundle(t, goodBundle(t))
	if report.ExitCode() != 0 || report.Leaves != 3 || report.Openings != 1 || len(report.Findings) != 1 ||
		report.Findings[0] != "leaves 5 and 9 are not neighbours: nothing here links them" {
		t.Errorf("%+v", report)
	}
}

func TestABundleThatWasTouchedIsTampered(t *testing.T) {
	resealed := func(l map[string]any, old, new string) {
		text := strings.Replace(l["leaf"].(string), old, new, 1)
		l["leaf"], l["receipt_hash"] = text, canon.Digest([]byte(text))
	}
	reopened := func(o map[string]any, text string) { o["action"], o["action_hash"] = text, canon.Digest([]byte(text)) }
	for name, c := range map[string]struct {
		change func(first, second, opening map[string]any)
		why    string
	}{
		"bytes":       {func(f, _, _ map[string]any) { f["leaf"] = strings.Replace(f["leaf"].(string), "high", "low", 1) }, "its bytes do not have its `receipt_hash`"},
		"blank":       {func(f, _, _ map[string]any) { f["leaf"] = f["leaf"].(string) + " " }, "not in canonical form"},
		"seq":         {func(f, _, _ map[string]any) { f["seq"] = 3 }, "its `seq` is 4"},
		"node":        {func(f, _, _ map[string]any) { resealed(f, `"n1"`, `"n2"`) }, "its `node` is `n2`"},
		"order":       {func(f, s, _ map[string]any) { s["seq"] = 4; resealed(s, `"seq":5`, `"seq":4`) }, "it is not behind the leaf before it"},
		"chain":       {func(f, _, _ map[string]any) { resealed(f, "high", "low") }, "its `prev_receipt_hash` is not the hash of the leaf before it"},
		"action hash": {func(_, _, o map[string]any) { o["action_hash"] = strings.Repeat("a", 64) }, "the opened action does not have its `action_hash`"},
		"not action":  {func(_, _, o map[string]any) { reopened(o, "{ }") }, "the opened action is not canonical"},
		"other":       {func(_, _, o map[string]any) { reopened(o, strings.Replace(actionText, "1.5", "2.5", 1)) }, "`action_commitment` is not a commitment to the opened action"},
		"salt":        {func(_, _, o map[string]any) { o["salt"] = strings.Repeat("00", 32) }, "`action_commitment` is not a commitment to the opened action"},
		"parameters": {func(f, _, _ map[string]any) {
			_, after, _ := strings.Cut(f["leaf"].(string), `"parameters_commitment":"`)
			resealed(f, after[:64], strings.Repeat("0", 64))
		}, "`parameters_commitment` is not a commitment to the opened parameters"},
		"names other": {func(f, _, _ map[string]any) { resealed(f, `"resource":"o/r#1"`, `"resource":"o/r#2"`) }, "the leaf names another action than the opened one"},
		"names none":  {func(f, _, _ map[string]any) { resealed(f, `"resource":"o/r#1",`, ``) }, "the leaf names another action than the opened one"},
		"no leaf":     {func(f, _, _ map[string]any) { resealed(f, `"class":"write"`, `"class":"wrote"`) }, "not a leaf: `class` is missing or not what it should be"},
		"no intent":   {func(f, s, o map[string]any) { s["opening"] = o }, "it has an opening and no commitments"},
	} {
		t.Run(name, func(t *testing.T) {
			bundle := goodBundle(t)
			leaves := bundle["leaves"].([]any)
			first := leaves[0].(map[string]any)
			c.change(first, leaves[1].(map[string]any), first["opening"].(map[string]any))
			report := verifyBundle(t, bundle)
			if report.ExitCode() != 1 || report.File != "bundle" || report.Why != c.why {
				t.Errorf("%+v", report)
			}
		})
	}
}

func TestWhatIsNoBundleIsUnreadable(t *testing.T) {
	for name, change := range map[string]func(b, leaf, opening map[string]any){
		"format":         func(b, _, _ map[string]any) { b["format"] = "aegis-receipt-bundle-2" },
		"unknown member": func(b, _, _ map[string]any) { b["x"] = 1 },
		"no node":        func(b, _, _ map[string]any) { delete(b, "node") },
		"no leaves":      func(b, _, _ map[string]any) { b["leaves"] = 1 },
		"seq":            func(_, l, _ map[string]any) { l["seq"] = 1.5 },
		"hash":           func(_, l, _ map[string]any) { l["receipt_hash"] = strings.ToUpper(l["receipt_hash"].(string)) },
		"leaf":           func(_, l, _ map[string]any) { l["leaf"] = nil },
		"leaf member":    func(_, l, _ map[string]any) { l["x"] = nil },
		"salt":           func(_, _, o map[string]any) { o["salt"] = "00" },
		"opening":        func(_, l, _ map[string]any) { l["opening"] = 1 },
		"opening member": func(_, _, o map[string]any) { o["x"] = nil },
	} {
		t.Run(name, func(t *testing.T) {
			bundle := goodBundle(t)
			first := bundle["leaves"].([]any)[0].(map[string]any)
			change(bundle, first, first["opening"].(map[string]any))
			if report := verifyBundle(t, bundle); report.ExitCode() != 2 {
				t.Errorf("%+v", report)
			}
		})
	}
	for _, text := range []string{"", "{", "1", `{"format":"aegis-receipt-bundle-1","format":"x","node":"n","leaves":[]}`} {
		if report := receipts.VerifyBundle([]byte(text)); report.ExitCode() != 2 {
			t.Errorf("%q: %+v", text, report)
		}
	}
}
