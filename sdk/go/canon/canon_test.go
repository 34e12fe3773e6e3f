package canon_test

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"math/rand/v2"
	"os"
	"strings"
	"testing"

	"github.com/aegisagent/aegis/sdk/go/canon"
)

type vector struct {
	Name  string
	Input *string
	Hex   string
	Make  *struct {
		Prefix, Repeat, Suffix string
		Count                  int
	}
	Canonical *string
	SHA256    string
	Reason    canon.Reason
}

func (v vector) text(t *testing.T) []byte {
	switch {
	case v.Input != nil:
		return []byte(*v.Input)
	case v.Make != nil:
		return []byte(v.Make.Prefix + strings.Repeat(v.Make.Repeat, v.Make.Count) + v.Make.Suffix)
	}
	text, err := hex.DecodeString(v.Hex)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func vectors(t *testing.T, name string) []vector {
	text, err := os.ReadFile("../../../tests/vectors/" + name)
	if err != nil {
		t.Skipf("outside the repository: %v", err)
	}
	var list []vector
	if err := json.Unmarshal(text, &list); err != nil {
		t.Fatal(err)
	}
	if len(list) < 60 {
		t.Fatalf("only %d vectors", len(list))
	}
	return list
}

func TestAcceptedVectorsHaveTheirBytes(t *testing.T) {
	for _, v := range vectors(t, "accepted.json") {
		value, err := canon.Parse(v.text(t))
		if err != nil {
			t.Errorf("%s: %v", v.Name, err)
			continue
		}
		canonical, err := canon.Bytes(value)
		if err != nil || canon.Digest(canonical) != v.SHA256 {
			t.Errorf("%s: %.80q %v", v.Name, canonical, err)
		}
		if v.Canonical != nil && string(canonical) != *v.Canonical {
			t.Errorf("%s: %q, expected %q", v.Name, canonical, *v.Canonical)
		}
	}
}

func TestRefusedVectorsHaveTheirReason(t *testing.T) {
	for _, v := range vectors(t, "refused.json") {
		_, err := canon.Parse(v.text(t))
		var refusal *canon.Error
		if !errors.As(err, &refusal) || refusal.Reason != v.Reason {
			t.Errorf("%s: %v, expected %s", v.Name, err, v.Reason)
		}
	}
}

func TestHalvesOfPairsAreRefused(t *testing.T) {
	for _, text := range []string{`"\ud800\u0041"`, `"\ud800\ud800"`, `"\udc00\udc00"`, `"\ud800\n"`, `"\ud800\u"`, `"\ud800`} {
		_, err := canon.Parse([]byte(text))
		expectReason(t, err, canon.Syntax)
	}
}

func TestTheKnownAnswer(t *testing.T) {
	call, err := canon.ParseCall([]byte(`{"tool":"github","action":"merge_pull_request","mutates_state":true,` +
		`"resource":"payments-service#482","parameters":{"base_branch":"main"}}`))
	if err != nil {
		t.Fatal(err)
	}
	hash, err := call.Hash()
	if hash != "6e729c788f908c95e564d246353ceeee0895630175d19ee34b06fdec32f2cc60" || err != nil {
		t.Fatal(hash, err)
	}
}

func TestLongStringsAreFoldedAndReservedKeysRefused(t *testing.T) {
	call := canon.Call{Tool: "t", Action: "a", Parameters: map[string]any{"a": []any{strings.Repeat("x", 65_537)}}}
	folded, err := call.Hash()
	if err != nil {
		t.Fatal(err)
	}
	// The digest is that of 65,537 times `x`.
	spelt := canon.Digest([]byte(`{"action":"a","mutates_state":false,"parameters":{"a":[{"$bulk":{"bytes":65537,"sha256":"` +
		canon.Digest([]byte(strings.Repeat("x", 65_537))) + `"}}]},"resource":null,"tool":"t"}`))
	if folded != spelt {
		t.Error(folded)
	}
	if _, kept := call.Parameters["a"].([]any)[0].(string); !kept {
		t.Error("folding changed the call itself")
	}
	exact := canon.Call{Tool: "t", Action: "a", Parameters: map[string]any{"a": strings.Repeat("x", 65_536)}}
	if hash, _ := exact.Hash(); hash != canon.Digest([]byte(`{"action":"a","mutates_state":false,"parameters":{"a":"`+
		strings.Repeat("x", 65_536)+`"},"resource":null,"tool":"t"}`)) {
		t.Error("65,536 bytes were folded")
	}
	for _, key := range []string{"$bulk", "$stream"} {
		call.Parameters = map[string]any{"a": []any{map[string]any{key: nil}}}
		_, err := call.Hash()
		expectReason(t, err, canon.ReservedKey)
	}
}

func TestDepthIsCountedFromTheCall(t *testing.T) {
	nest := func(n int) any {
		var v any = "x"
		for range n {
			v = []any{v}
		}
		return v
	}
	call := canon.Call{Tool: "t", Action: "a", Parameters: map[string]any{"a": nest(62)}}
	if _, err := call.Hash(); err != nil {
		t.Error(err)
	}
	call.Parameters["a"] = nest(63)
	_, err := call.Hash()
	expectReason(t, err, canon.TooDeep)
}

func TestNamesAndResourcesAreChecked(t *testing.T) {
	resource := "a\nb"
	_, err := canon.Call{Tool: "t", Action: "a", Resource: &resource}.Hash()
	expectReason(t, err, canon.BadResource)
	_, err = canon.Call{Tool: "t/", Action: "a"}.Hash()
	expectReason(t, err, canon.BadName)
	for _, text := range []string{
		`{"tool":"t","action":"a","mutates_state":true,"parameters":{}}`,
		`{"tool":"t","action":"a","mutates_state":true,"parameters":{},"resource":1}`,
		`{"tool":"t","action":"a","mutates_state":true,"parameters":{},"resource":null,"x":1}`,
		`[]`,
	} {
		if _, err := canon.ParseCall([]byte(text)); err == nil {
			t.Error(text)
		}
	}
}

// The canonical bytes of random values parse back to themselves, and whatever parses has canonical bytes.
func TestRandomTextsAgreeWithThemselves(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	pieces := []string{`{`, `}`, `[`, `]`, `:`, `,`, `"a"`, `"b"`, `"\u00e9"`, "\"\uffff\"", `"😀"`, `1`, `-0`, `1.5e3`, `1e-9`, `9007199254740992`, `null`, `true`, ` `, `"\ud800"`}
	for range 200_000 {
		var text strings.Builder
		for range random.IntN(9) {
			text.WriteString(pieces[random.IntN(len(pieces))])
		}
		value, err := canon.Parse([]byte(text.String()))
		if err != nil {
			continue
		}
		canonical, err := canon.Bytes(value)
		if err != nil {
			t.Fatalf("%q parses and has no canonical bytes: %v", text.String(), err)
		}
		again, err := canon.Parse(canonical)
		if err != nil {
			t.Fatalf("%q: %v", canonical, err)
		}
		if twice, _ := canon.Bytes(again); string(twice) != string(canonical) {
			t.Fatalf("%q became %q", canonical, twice)
		}
		var oracle any
		if err := json.Unmarshal([]byte(text.String()), &oracle); err != nil {
			t.Fatalf("%q is no JSON: %v", text.String(), err)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(`{"a":[1,-2.5e-7,"\u00e9\ud83d\ude00"]}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		value, err := canon.Parse(text)
		if err != nil {
			return
		}
		if !json.Valid(text) {
			t.Fatalf("%q is no JSON", text)
		}
		if _, err := canon.Bytes(value); err != nil && len(text) < 1<<17 {
			t.Fatalf("%q: %v", text, err)
		}
	})
}

func expectReason(t *testing.T, err error, reason canon.Reason) {
	t.Helper()
	var refusal *canon.Error
	if !errors.As(err, &refusal) || refusal.Reason != reason {
		t.Errorf("%v, expected %s", err, reason)
	}
}
