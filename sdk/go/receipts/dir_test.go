package receipts_test

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/aegisagent/aegis/sdk/go/canon"
	"github.com/aegisagent/aegis/sdk/go/receipts"
)

type leaf = map[string]any

// testLog is a log that can be written wrongly.
type testLog struct {
	leaves   []leaf
	segments []int // first leaves of the segments
	raw      func(at int, bytes []byte) []byte
	tail     []byte
	headSeq  int // -1 for the number of leaves
	headHash string
}

func goodLog() *testLog {
	intent := func(id, door string) leaf {
		return leaf{"type": "intent.v1", "decision": "allow", "decision_id": id, "door": door}
	}
	outcome := func(seq int, id string) leaf { return leaf{"intent_seq": seq, "decision_id": id} }
	return &testLog{
		leaves: []leaf{
			{"type": "event.v1", "kind": "started", "body": leaf{"é": 1.5}},
			intent("dec_1", "route"),
			intent("dec_2", "sdk"),
			intent("dec_3", "connect"),
			{"type": "outcome.v1", "intent_seq": 1, "decision_id": "dec_1"},
			{"type": "outcomes.v1", "entries": []any{outcome(2, "dec_2")}},
			{"type": "refused.v1", "status": 401},
			{"type": "recovered.v1", "bytes": 3},
		},
		segments: []int{0, 5}, headSeq: -1,
	}
}

// write chains the leaves and writes the directory.
func (l *testLog) write(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "segments"), 0o700); err != nil {
		t.Fatal(err)
	}
	previous, lastHash := strings.Repeat("0", 64), strings.Repeat("0", 64)
	var segment []byte
	first := 0
	flush := func() {
		name := fmt.Sprintf("segments/%020d.log", first)
		if err := os.WriteFile(filepath.Join(dir, name), segment, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for at, members := range l.leaves {
		if at > 0 && slices.Contains(l.segments, at) {
			flush()
			segment, first = nil, at
		}
		whole := leaf{"node": "n1", "seq": at, "ts": 1_700_000_000_000 + at, "prev_receipt_hash": previous}
		for name, value := range members {
			whole[name] = value
		}
		text := canonical(t, whole)
		if l.raw != nil {
			text = l.raw(at, text)
		}
		segment = binary.BigEndian.AppendUint16(segment, uint16(len(text)))
		segment = append(segment, text...)
		previous = canon.Digest(text)
		if l.headSeq < 0 || at < l.headSeq {
			lastHash = previous
		}
	}
	segment = append(segment, l.tail...)
	flush()
	seq := l.headSeq
	if seq < 0 {
		seq = len(l.leaves)
	}
	if l.headHash != "" {
		lastHash = l.headHash
	}
	line := fmt.Sprintf("aegis-receipts-head-1 %020d %s", seq, lastHash)
	line += " " + canon.Digest([]byte(line))[:16] + "\n"
	if err := os.WriteFile(filepath.Join(dir, "head"), []byte(line), 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}

func canonical(t *testing.T, v any) []byte {
	t.Helper()
	value, err := canon.Of(v)
	if err != nil {
		t.Fatal(err)
	}
	text, err := canon.Bytes(value)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func TestAGoodLogIsVerified(t *testing.T) {
	report := receipts.Verify(goodLog().write(t), nil)
	if report.Verdict != receipts.Verified || report.ExitCode() != 0 || report.Leaves != 8 || report.Segments != 2 ||
		*report.Node != "n1" || report.WithoutOutcome != 1 || report.Types["intent.v1"] != 3 || report.BeyondHead != 0 ||
		*report.FirstTS != 1_700_000_000_000 || *report.LastTS != 1_700_000_000_007 || len(report.Findings) != 0 {
		t.Errorf("%+v", report)
	}
	text := report.String()
	for _, part := range []string{"verified: 8 leaves of node `n1`", "from 2023-11-14T22:13:20Z to 2023-11-14T22:13:20.007Z", "intent.v1 3, ", "1 allowed intents without"} {
		if !strings.Contains(text, part) {
			t.Errorf("%q is not in %s", part, text)
		}
	}
}

func TestALogThatWasTouchedIsTampered(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*testLog)
		seq    uint64
		why    string
	}{
		"a leaf taken out":    {func(l *testLog) { l.leaves[3]["seq"] = 4 }, 3, "its `seq` is 4, expected 3"},
		"another node":        {func(l *testLog) { l.leaves[3]["node"] = "n2" }, 3, "its `node` is `n2`, expected `n1`"},
		"another chain":       {func(l *testLog) { l.leaves[3]["prev_receipt_hash"] = strings.Repeat("a", 64) }, 3, "its `prev_receipt_hash` is not the hash of the leaf before it"},
		"hash in capitals":    {func(l *testLog) { l.raw = upperPrevious(3) }, 3, "its `prev_receipt_hash` is not the hash of the leaf before it"},
		"unknown type":        {func(l *testLog) { l.leaves[3]["type"] = "intent.v2" }, 3, "unknown type `intent.v2`"},
		"no time":             {func(l *testLog) { l.leaves[3]["ts"] = "x" }, 3, "`ts` is missing or no number"},
		"a blank":             {func(l *testLog) { l.raw = at(3, ":", ": ") }, 3, "not in canonical form"},
		"a key twice":         {func(l *testLog) { l.raw = at(3, `{`, `{"decision":"deny",`) }, 3, "duplicate key `decision`"},
		"not UTF-8":           {func(l *testLog) { l.raw = at(3, "connect", "connec\xff") }, 3, "not UTF-8"},
		"an array":            {func(l *testLog) { l.raw = at(3, "{", "[") }, 3, "not a JSON object"},
		"time goes back":      {func(l *testLog) { l.leaves[3]["ts"] = 1_700_000_000_000 - 4000 }, 3, "its time is 4002 ms before that of the leaf before it, which the log does not write"},
		"no decision":         {func(l *testLog) { delete(l.leaves[1], "decision") }, 1, "`decision` or `decision_id` is missing"},
		"outcome of a later":  {func(l *testLog) { l.leaves[4]["intent_seq"] = 4 }, 4, "it is the outcome of leaf 4, which is not before it"},
		"outcome of another":  {func(l *testLog) { l.leaves[4]["decision_id"] = "dec_9" }, 4, "its `decision_id` is not that of leaf 1"},
		"outcome of nothing":  {func(l *testLog) { delete(l.leaves[4], "intent_seq") }, 4, "its reference to an intent is missing"},
		"entries of nothing":  {func(l *testLog) { l.leaves[5]["entries"] = []any{leaf{}} }, 5, "an entry's reference to an intent is missing"},
		"entries are none":    {func(l *testLog) { l.leaves[5]["entries"] = leaf{} }, 5, "`entries` is no array"},
		"no entries":          {func(l *testLog) { delete(l.leaves[5], "entries") }, 5, "`entries` is missing"},
		"cut behind the head": {func(l *testLog) { l.headSeq = 9 }, 8, "the head file says that 9 leaves are durable, and they are gone"},
		"another head hash":   {func(l *testLog) { l.headHash = strings.Repeat("a", 64) }, 7, "it does not have the hash in the head file"},
		"zeros before head":   {func(l *testLog) { l.headSeq = 9; l.tail = []byte{0, 0, 0} }, 8, "no whole record"},
	} {
		t.Run(name, func(t *testing.T) {
			l := goodLog()
			c.change(l)
			report := receipts.Verify(l.write(t), nil)
			if report.Verdict != receipts.Tampered || report.ExitCode() != 1 || report.Seq != c.seq || report.Why != c.why || report.Leaves != c.seq {
				t.Errorf("%+v", report)
			}
		})
	}
}

func at(leaf int, old, new string) func(int, []byte) []byte {
	return func(at int, text []byte) []byte {
		if at == leaf {
			return []byte(strings.Replace(string(text), old, new, 1))
		}
		return text
	}
}

func upperPrevious(leaf int) func(int, []byte) []byte {
	return func(at int, text []byte) []byte {
		if at != leaf {
			return text
		}
		before, after, _ := strings.Cut(string(text), `"prev_receipt_hash":"`)
		return []byte(before + `"prev_receipt_hash":"` + strings.ToUpper(after[:64]) + after[64:])
	}
}

func TestSegmentsThatDoNotFollowAreTampered(t *testing.T) {
	for name, c := range map[string]struct {
		change func(dir string) error
		why    string
	}{
		"taken out": {func(dir string) error { return os.Remove(dir + firstSegment) }, "it starts at leaf 5 with 524 bytes, expected leaf 0"},
		"emptied":   {func(dir string) error { return os.Truncate(dir+firstSegment, 0) }, "it starts at leaf 0 with 0 bytes, expected leaf 0"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := goodLog().write(t)
			if err := c.change(dir); err != nil {
				t.Fatal(err)
			}
			if report := receipts.Verify(dir, nil); report.ExitCode() != 1 || report.Why != c.why {
				t.Errorf("%+v", report)
			}
		})
	}
	// Only the last segment can be torn.
	l := goodLog()
	l.headSeq = 2
	dir := l.write(t)
	file, err := os.OpenFile(dir+firstSegment, os.O_APPEND|os.O_WRONLY, 0)
	if err == nil {
		_, err = file.Write([]byte{0, 9, 'x'})
		file.Close()
	}
	if report := receipts.Verify(dir, nil); err != nil || report.ExitCode() != 1 || report.Why != "no whole record" || report.Seq != 5 {
		t.Errorf("%+v %v", report, err)
	}
	dir = goodLog().write(t)
	for _, name := range []string{"/segments/00000000000000000008.log", "/segments/notes"} {
		if err := os.WriteFile(dir+name, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	report := receipts.Verify(dir, nil)
	if report.ExitCode() != 0 || len(report.Findings) != 1 || report.Findings[0] != "`segments/notes` is no segment" {
		t.Errorf("%+v", report)
	}
}

const firstSegment = "/segments/00000000000000000000.log"

// Every byte of a stored log counts: one that flips is noticed, wherever it is.
func TestEveryChangedByteShows(t *testing.T) {
	dir := goodLog().write(t)
	for _, name := range []string{"segments/00000000000000000000.log", "segments/00000000000000000005.log", "head"} {
		path := filepath.Join(dir, name)
		good, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for i := range good {
			bad := slices.Clone(good)
			bad[i] ^= 1
			if err := os.WriteFile(path, bad, 0o600); err != nil {
				t.Fatal(err)
			}
			if report := receipts.Verify(dir, nil); report.ExitCode() == 0 {
				t.Errorf("%s, byte %d: %+v", name, i, report)
			}
		}
		if err := os.WriteFile(path, good, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func TestWhatIsOddIsNoted(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*testLog)
		find   string
	}{
		"torn behind the head": {func(l *testLog) { l.tail = []byte{0, 9, 'x'} }, "3 bytes behind the last leaf are torn (leaf 8 was never acknowledged): a crash, or a write under way"},
		"zeros behind it":      {func(l *testLog) { l.tail = make([]byte, 30) }, "30 bytes behind the last leaf are torn (leaf 8 was never acknowledged): a crash, or a write under way"},
		"a hole":               {func(l *testLog) { l.tail = []byte{0, 2, 0, 0} }, "4 bytes behind the last leaf are torn (leaf 8 was never acknowledged): a crash, or a write under way"},
		"clock set back":       {func(l *testLog) { l.leaves[7]["ts"] = 1_600_000_000_000 }, "the clock was set back by 100000000006 ms at leaf 7"},
		"no one waits":         {func(l *testLog) { l.leaves[4]["intent_seq"] = 0 }, "leaf 4 has an outcome for leaf 0, which does not wait for one"},
	} {
		t.Run(name, func(t *testing.T) {
			l := goodLog()
			c.change(l)
			report := receipts.Verify(l.write(t), nil)
			if report.Verdict != receipts.Verified || len(report.Findings) != 1 || report.Findings[0] != c.find {
				t.Errorf("%+v", report)
			}
		})
	}
	l := goodLog()
	l.headSeq = 6
	if report := receipts.Verify(l.write(t), nil); report.BeyondHead != 2 || report.ExitCode() != 0 {
		t.Errorf("%+v", report)
	}
}

func TestWhatCannotBeReadIsNotTampered(t *testing.T) {
	for name, c := range map[string]struct {
		change func(dir string) error
		why    string
	}{
		"no head":      {func(dir string) error { return os.Remove(dir + "/head") }, "cannot read the head file: No such file or directory (os error 2)"},
		"damaged head": {func(dir string) error { return os.Truncate(dir+"/head", 40) }, "the head file is damaged"},
		"no segments":  {func(dir string) error { return os.RemoveAll(dir + "/segments") }, "cannot read the segments: No such file or directory (os error 2)"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := goodLog().write(t)
			if err := c.change(dir); err != nil {
				t.Fatal(err)
			}
			report := receipts.Verify(dir, nil)
			if report.ExitCode() != 2 || report.Why != c.why || report.String() != "unreadable: "+c.why+"\n" {
				t.Errorf("%+v", report)
			}
		})
	}
	if report := receipts.Verify("/nonexistent", nil); report.Why != "cannot read `/nonexistent`: No such file or directory (os error 2)" {
		t.Error(report)
	}
}

func TestTheReportsMembersAreThoseOfTheRustProgram(t *testing.T) {
	l := goodLog()
	l.leaves[3]["node"] = "<n>"
	text, err := json.Marshal(receipts.Verify(l.write(t), nil))
	var members map[string]any
	if err == nil {
		err = json.Unmarshal(text, &members)
	}
	if err != nil {
		t.Fatal(err)
	}
	names := "beyond_head bytes file findings first_ts last_hash last_ts leaves more_findings node openings segments seq types verdict why without_outcome"
	var got []string
	for name := range members {
		got = append(got, name)
	}
	slices.Sort(got)
	if strings.Join(got, " ") != names || members["file"] != "segments/00000000000000000000.log" {
		t.Error(string(text))
	}
}

func TestProgressIsTold(t *testing.T) {
	l := &testLog{headSeq: -1}
	for range 17_000 {
		l.leaves = append(l.leaves, leaf{"type": "event.v1"})
	}
	var told []receipts.Progress
	report := receipts.Verify(l.write(t), func(p receipts.Progress) { told = append(told, p) })
	if len(told) != 1 || told[0].Leaves != 16_384 || told[0].TotalBytes != report.Bytes || report.Leaves != 17_000 {
		t.Error(told, report)
	}
}
