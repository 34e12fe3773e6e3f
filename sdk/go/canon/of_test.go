package canon_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/big"
	"testing"
	"time"

	"github.com/aegisagent/aegis/sdk/go/canon"
)

type inner struct {
	Deep  string `json:"deep"`
	Small uint8
}

type left struct{ Same int }

type right struct{ Same int }

type point struct{ x, y int }

func (p point) MarshalText() ([]byte, error) {
	return []byte{byte('0' + p.x), ',', byte('0' + p.y)}, nil
}

type sample struct {
	inner
	Name    string            `json:"name"`
	Empty   string            `json:"empty,omitempty"`
	ID      int64             `json:"id,string"`
	Flag    *bool             `json:"flag"`
	Bytes   []byte            `json:"bytes"`
	List    []float32         `json:"list"`
	Nothing []int             `json:"nothing"`
	Map     map[int]string    `json:"map"`
	Raw     json.RawMessage   `json:"raw"`
	At      time.Time         `json:"at"`
	Any     any               `json:"any"`
	Point   point             `json:"point"`
	Points  map[point]float64 `json:"points"`
	Number  json.Number       `json:"number"`
	Hidden  string            `json:"-"`
	private int
}

func TestGoValuesAreWhatEncodingJSONWrites(t *testing.T) {
	yes := true
	value := sample{
		inner: inner{"<d>", 3}, Name: "n\u2028", ID: math.MaxInt64, Flag: &yes, Bytes: []byte{1, 2}, List: []float32{0.1, 3},
		Map: map[int]string{2: "b", -1: "a"}, Raw: json.RawMessage(`{"b": 1, "a": [1.0]}`),
		At: time.Unix(0, 0).UTC(), Any: map[string]any{"k": []any{nil, 1.5, true}}, Point: point{1, 2},
		Points: map[point]float64{{3, 4}: 1e-9}, Number: "12", Hidden: "h", private: 1,
	}
	for _, v := range []any{value, &value, []any{value, nil}, map[string]*sample{"x": &value}, 1, "s", nil, [2]bool{true}} {
		got, err := canon.Of(v)
		if err != nil {
			t.Fatal(err)
		}
		text, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		want, err := canon.Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		if string(bytesOf(t, got)) != string(bytesOf(t, want)) {
			t.Errorf("%s\nexpected\n%s", bytesOf(t, got), bytesOf(t, want))
		}
	}
}

func TestZeroValuesCanBeLeftOut(t *testing.T) {
	got, err := canon.Of(struct {
		At time.Time `json:"at,omitzero"`
		N  int       `json:"n,omitzero"`
		M  int       `json:"m,omitzero"`
	}{M: 1})
	if text := string(bytesOf(t, got)); err != nil || text != `{"m":1}` {
		t.Error(text, err)
	}
}

func TestTagsMeanWhatTheyMeanToEncodingJSON(t *testing.T) {
	yes, text := true, "a\"b"
	type empty struct{}
	for _, v := range []any{
		struct {
			I int64    `json:"i,string"`
			U uint8    `json:"u,string"`
			F float64  `json:"f,string"`
			B *bool    `json:"b,string"`
			S *string  `json:"s,string"`
			N *int     `json:"n,string"`
			L []string `json:"l,string"`
		}{-5, 6, 1.5, &yes, &text, nil, []string{"x"}},
		struct {
			A [0]int         `json:"a,omitempty"`
			B [1]int         `json:"b,omitempty"`
			C map[string]int `json:"c,omitempty"`
			D empty          `json:"d,omitempty"`
			E *empty         `json:"e,omitempty"`
			F float64        `json:"f,omitempty"`
			G bool           `json:",omitempty"`
			H any            `json:"h,omitempty"`
		}{},
		struct {
			Dash int `json:"-,"`
		}{1},
		map[uint8]int{3: 1},
		map[string]any{"nil": (*point)(nil), "iface": fmt.Stringer(nil), "addr": &point{1, 2}},
		[]any{json.Number("1e2"), [2]byte{1, 2}, []uint16{1}, map[string][]byte{"x": nil}},
	} {
		got, err := canon.Of(v)
		if err != nil {
			t.Fatal(err)
		}
		marshaled, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		want, _ := canon.Parse(marshaled)
		if string(bytesOf(t, got)) != string(bytesOf(t, want)) {
			t.Errorf("%s\nexpected\n%s", bytesOf(t, got), bytesOf(t, want))
		}
	}
}

type stubborn struct{ fmt.Stringer }

func (stubborn) MarshalText() ([]byte, error) { return nil, errors.New("no") }

// encoding/json: the least nested field has the name, then the tagged one.
func TestNestedFieldsGiveWay(t *testing.T) {
	type tagged struct {
		Other int `json:"Same"`
	}
	for _, v := range []any{
		struct {
			left
			right
			Same string
		}{Same: "outer"},
		struct {
			left
			tagged
		}{left{1}, tagged{2}},
		struct{ *left }{},
		struct{ *left }{&left{3}},
	} {
		got, err := canon.Of(v)
		want, _ := json.Marshal(v)
		if text := string(bytesOf(t, got)); err != nil || text != string(want) {
			t.Errorf("%s %v, expected %s", text, err, want)
		}
	}
}

func TestGoValuesWithoutCanonicalFormAreRefused(t *testing.T) {
	type loop struct{ Next *loop }
	cycle := &loop{}
	cycle.Next = cycle
	for name, c := range map[string]struct {
		value  any
		reason canon.Reason
	}{
		"NaN":          {math.NaN(), canon.NumberRange},
		"infinite":     {math.Inf(1), canon.NumberRange},
		"2^53":         {int64(1) << 53, canon.NumberRange},
		"-2^53":        {-(int64(1) << 53), canon.NumberRange},
		"2^64-1":       {uint64(math.MaxUint64), canon.NumberRange},
		"big":          {new(big.Int).Lsh(big.NewInt(1), 70), canon.NumberRange},
		"huge float32": {float32(1e30), canon.NumberRange},
		"not UTF-8":    {"\xff", canon.Syntax},
		"surrogate":    {"\xed\xa0\x80", canon.Syntax},
		"a key":        {map[string]int{"\xff": 1}, canon.Syntax},
		"raw twice":    {json.RawMessage(`{"a":1,"a":1}`), canon.DuplicateKey},
		"no text":      {stubborn{}, canon.Unsupported},
		"no key":       {map[stubborn]int{{}: 1}, canon.Unsupported},
		"struct key":   {map[left]int{{}: 1}, canon.Unsupported},
		"bad raw":      {json.RawMessage(`{`), canon.Syntax},
		"an uint":      {uint64(1) << 53, canon.NumberRange},
		"a channel":    {make(chan int), canon.Unsupported},
		"a function":   {func() {}, canon.Unsupported},
		"complex":      {complex(1, 1), canon.Unsupported},
		"a cycle":      {cycle, canon.TooDeep},
		"two names": {struct {
			left
			right
		}{}, canon.DuplicateKey},
		"ambiguous": {map[string]int{"\uffff": 1, "😀": 2}, canon.AmbiguousOrder},
		"a number":  {json.Number("1x"), canon.Syntax},
	} {
		value, err := canon.Of(c.value)
		if err == nil {
			_, err = canon.Bytes(value)
		}
		t.Run(name, func(t *testing.T) { expectReason(t, err, c.reason) })
	}
}

func bytesOf(t *testing.T, v any) []byte {
	t.Helper()
	canonical, err := canon.Bytes(v)
	if err != nil {
		t.Fatal(err)
	}
	return canonical
}
