package receipts

import (
	"bytes"
	"errors"
	"strconv"
	"unicode/utf8"

	"github.com/aegisagent/aegis/sdk/go/internal/jcs"
)

// walkObject checks that bytes are one canonical JSON object and visits the raw text of each top-level key
// (without quotes, escapes as they are) and value.
//
// The fast walk accepts a subset that is canonical beyond doubt: ASCII keys in order, integers, minimal escapes.
// Whatever else it meets is left to the full parser, so a doubt costs time and never a wrong answer.
func walkObject(text []byte, visit func(key, raw []byte)) error {
	if !utf8.Valid(text) {
		return errors.New("not UTF-8")
	}
	if len(text) == 0 || text[0] != '{' {
		return errors.New("not a JSON object")
	}
	if w := (walk{text: text, strict: true}); !w.value(0) || w.at != len(text) {
		value, err := jcs.Parse(text)
		if err != nil {
			return err
		}
		canonical, err := jcs.Bytes(value)
		if err != nil {
			return err
		}
		if !bytes.Equal(canonical, text) {
			return errors.New("not in canonical form")
		}
	}
	if !members(text, visit) {
		return errors.New("not a JSON object")
	}
	return nil
}

// members visits the members of canonical object text.
func members(text []byte, visit func(key, raw []byte)) bool {
	w := walk{text: text}
	if !w.eat('{') {
		return false
	}
	if w.eat('}') {
		return true
	}
	for {
		key, ok := w.string()
		if !ok || !w.eat(':') {
			return false
		}
		start := w.at
		if !w.value(1) {
			return false
		}
		visit(key, text[start:w.at])
		if !w.eat(',') {
			return w.eat('}')
		}
	}
}

// items visits the items of canonical array text.
func items(text []byte, visit func(raw []byte)) bool {
	w := walk{text: text}
	if !w.eat('[') {
		return false
	}
	if w.eat(']') {
		return true
	}
	for {
		start := w.at
		if !w.value(1) {
			return false
		}
		visit(text[start:w.at])
		if !w.eat(',') {
			return w.eat(']')
		}
	}
}

// rawString is the text of a raw string without its quotes; escapes stay. False for other values.
func rawString(raw []byte) (string, bool) {
	if len(raw) < 2 || raw[0] != '"' || raw[len(raw)-1] != '"' {
		return "", false
	}
	return string(raw[1 : len(raw)-1]), true
}

// walk methods are false where something is "not surely" so.
type walk struct {
	text []byte
	at   int
	// strict is off for text that is known to be canonical: then only the structure is followed.
	strict bool
}

func (w *walk) peek() byte {
	if w.at < len(w.text) {
		return w.text[w.at]
	}
	return 0
}

func (w *walk) eat(b byte) bool {
	if w.peek() != b || w.at >= len(w.text) {
		return false
	}
	w.at++
	return true
}

func (w *walk) value(depth int) bool {
	switch w.peek() {
	case '{':
		return w.object(depth + 1)
	case '[':
		return w.array(depth + 1)
	case '"':
		_, ok := w.string()
		return ok
	case 't':
		return w.word("true")
	case 'f':
		return w.word("false")
	case 'n':
		return w.word("null")
	}
	return w.number()
}

func (w *walk) object(depth int) bool {
	if depth > jcs.MaxDepth || !w.eat('{') {
		return false
	}
	if w.eat('}') {
		return true
	}
	var last []byte
	for first := true; ; first = false {
		key, ok := w.string()
		if !ok {
			return false
		}
		if w.strict {
			// Raw order is the order of the keys only where nothing is escaped.
			if !isPlain(key) || !first && bytes.Compare(last, key) >= 0 {
				return false
			}
			last = key
		}
		if !w.eat(':') || !w.value(depth) {
			return false
		}
		if !w.eat(',') {
			return w.eat('}')
		}
	}
}

func (w *walk) array(depth int) bool {
	if depth > jcs.MaxDepth || !w.eat('[') {
		return false
	}
	if w.eat(']') {
		return true
	}
	for {
		if !w.value(depth) {
			return false
		}
		if !w.eat(',') {
			return w.eat(']')
		}
	}
}

func isPlain(key []byte) bool {
	for _, b := range key {
		if b >= 0x80 || b == '\\' {
			return false
		}
	}
	return true
}

// string is the raw text between the quotes.
func (w *walk) string() ([]byte, bool) {
	if !w.eat('"') {
		return nil, false
	}
	start := w.at
	for w.at < len(w.text) {
		switch b := w.text[w.at]; {
		case b == '"':
			w.at++
			return w.text[start : w.at-1], true
		case b == '\\':
			n := escape(w.text[w.at+1:])
			if n == 0 {
				return nil, false
			}
			w.at += n
		case b < 0x20:
			return nil, false
		default:
			w.at++
		}
	}
	return nil, false
}

// escape is the length of an escape, backslash included, or 0. RFC 8785 has exactly one for each character that
// needs one.
func escape(after []byte) int {
	if len(after) == 0 {
		return 0
	}
	switch after[0] {
	case '"', '\\', 'b', 't', 'n', 'f', 'r':
		return 2
	case 'u':
	default:
		return 0
	}
	if len(after) < 5 || after[1] != '0' || after[2] != '0' || after[3] != '0' && after[3] != '1' {
		return 0
	}
	low := after[4]
	short := after[3] == '0' && bytes.IndexByte([]byte("89acd"), low) >= 0
	if short || !(low >= '0' && low <= '9' || low >= 'a' && low <= 'f') {
		return 0
	}
	return 6
}

func (w *walk) word(word string) bool {
	if !bytes.HasPrefix(w.text[w.at:], []byte(word)) {
		return false
	}
	w.at += len(word)
	return true
}

func (w *walk) number() bool {
	start := w.at
	for w.at < len(w.text) && bytes.IndexByte([]byte("0123456789-+.eE"), w.text[w.at]) >= 0 {
		w.at++
	}
	digits := w.text[start:w.at]
	if w.strict {
		n, err := strconv.ParseInt(string(digits), 10, 64)
		if err != nil || n > jcs.MaxSafeInteger || n < -jcs.MaxSafeInteger {
			return false
		}
		// The one spelling of the integer.
		return strconv.FormatInt(n, 10) == string(digits)
	}
	return len(digits) > 0
}
