package receipts

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/aegisagent/aegis/sdk/go/internal/jcs"
)

// reference is the slow way to say whether text is one canonical object.
func reference(text []byte) bool {
	value, err := jcs.Parse(text)
	if err != nil || len(text) == 0 || text[0] != '{' {
		return false
	}
	canonical, err := jcs.Bytes(value)
	return err == nil && bytes.Equal(canonical, text)
}

func TestTheFastWalkAgreesWithTheReference(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	pieces := strings.Split(`{ } [ ] : , "a" "b" "é" "a\n" "\u0001" "\u001F" "\u000a" "\u00" "\x" "a\"b" "\/" 1 -1 0 -0 01 +1 1.5 1e3 1e-7 9007199254740991 9007199254740992 true false null tru`, " ")
	agreed := 0
	check := func(text []byte) {
		seen := 0
		err := walkObject(text, func(_, _ []byte) { seen++ })
		if (err == nil) != reference(text) {
			t.Fatalf("%q: %v", text, err)
		}
		if err == nil {
			agreed++
		}
	}
	for range 200_000 {
		var text strings.Builder
		text.WriteString(`{"a":`)
		for range random.IntN(7) {
			text.WriteString(pieces[random.IntN(len(pieces))])
		}
		text.WriteString("}")
		check([]byte(text.String()))
	}
	good := []byte(`{"a":[1,-2,"x\n\u0001\"é"],"b":{"c":"","d":true},"e":1700000}`)
	for at := range good {
		for b := range 256 {
			changed := bytes.Clone(good)
			changed[at] = byte(b)
			check(changed)
		}
	}
	if agreed < 1000 {
		t.Errorf("only %d were canonical", agreed)
	}
}

func TestMembersComeRaw(t *testing.T) {
	var seen []string
	visit := func(key, raw []byte) { seen = append(seen, string(key)+" "+string(raw)) }
	if err := walkObject([]byte(`{"a":[1,{"x":"]"}],"b":"q\"z"}`), visit); err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(seen, "; "); got != `a [1,{"x":"]"}]; b "q\"z"` {
		t.Error(got)
	}
}

func leafOf(seq uint64, typeName, id string, intent uint64) *leafView {
	allow, route := "allow", "route"
	v := &leafView{typeName: typeName, seq: seq, decisionID: &id}
	if typeName == "intent.v1" {
		v.decision, v.door = &allow, &route
	} else {
		v.intentSeq = &intent
	}
	return v
}

func TestWhatWaitsLongestIsForgottenFirst(t *testing.T) {
	l := newLinks()
	l.max = 3
	for seq := range uint64(6) {
		if odd, err := l.follow(leafOf(seq, "intent.v1", fmt.Sprint(seq), 0)); odd != "" || err != nil {
			t.Fatal(odd, err)
		}
	}
	if len(l.open) != 3 || l.withoutOutcome() != 6 {
		t.Errorf("%+v", l)
	}
	// The outcome of one that was forgotten cannot be judged, that of one that waits can.
	if odd, err := l.follow(leafOf(7, "outcome.v1", "other", 1)); odd != "" || err != nil {
		t.Error(odd, err)
	}
	if _, err := l.follow(leafOf(8, "outcome.v1", "other", 4)); err == nil {
		t.Error("another decision's outcome was taken")
	}
	if odd, err := l.follow(leafOf(9, "outcome.v1", "5", 5)); odd != "" || err != nil || l.withoutOutcome() != 4 {
		t.Error(odd, err, l.withoutOutcome())
	}
}

func TestMemoryDoesNotGrowWithTheLog(t *testing.T) {
	l := newLinks()
	_, _ = l.follow(leafOf(0, "intent.v1", "waits", 0))
	for seq := uint64(1); seq < 100_000; seq += 2 {
		_, _ = l.follow(leafOf(seq, "intent.v1", "x", 0))
		if odd, err := l.follow(leafOf(seq+1, "outcome.v1", "x", seq)); odd != "" || err != nil {
			t.Fatal(odd, err)
		}
	}
	if len(l.order) > 5000 || l.withoutOutcome() != 1 {
		t.Errorf("%d kept, %d wait", len(l.order), l.withoutOutcome())
	}
}
