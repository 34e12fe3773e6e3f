package jcs

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Bytes are the canonical bytes of a value.
func Bytes(value any) ([]byte, error) {
	out, err := writer{MaxBytes, MaxDepth}.value(make([]byte, 0, 256), value, 0)
	if err == nil && len(out) > MaxBytes {
		err = tooLarge(MaxBytes)
	}
	if err != nil {
		return nil, err
	}
	return out, nil
}

// Text is the same without the bounds on depth and size, for bodies that hold a call which has not been folded.
func Text(value any) ([]byte, error) {
	return writer{math.MaxInt, 2 * MaxDepth}.value(nil, value, 0)
}

// Check says whether a value that stands below `depth` containers has canonical bytes.
func Check(value any, depth int) error {
	out, err := writer{MaxBytes, MaxDepth}.value(nil, value, depth)
	if err == nil && len(out) > MaxBytes {
		err = tooLarge(MaxBytes)
	}
	return err
}

type writer struct{ maxBytes, maxDepth int }

func (w writer) value(out []byte, value any, depth int) ([]byte, error) {
	// Checked as it grows, so that a hostile value cannot make us build far more than the bound.
	if len(out) > w.maxBytes {
		return nil, tooLarge(w.maxBytes)
	}
	switch v := value.(type) {
	case nil:
		return append(out, "null"...), nil
	case bool:
		return strconv.AppendBool(out, v), nil
	case float64:
		return appendNumber(out, v)
	case string:
		return appendString(out, v)
	case []any:
		return w.array(out, v, depth+1)
	case map[string]any:
		return w.object(out, v, depth+1)
	}
	return nil, &Error{Unsupported, fmt.Sprintf("a value of type %T has no canonical form", value)}
}

func (w writer) array(out []byte, items []any, depth int) (_ []byte, err error) {
	if depth > w.maxDepth {
		return nil, errDeep
	}
	out = append(out, '[')
	for i, item := range items {
		if i > 0 {
			out = append(out, ',')
		}
		if out, err = w.value(out, item, depth); err != nil {
			return nil, err
		}
	}
	return append(out, ']'), nil
}

func (w writer) object(out []byte, members map[string]any, depth int) ([]byte, error) {
	if depth > w.maxDepth {
		return nil, errDeep
	}
	keys, err := sortedKeys(members)
	if err != nil {
		return nil, err
	}
	out = append(out, '{')
	for i, key := range keys {
		if i > 0 {
			out = append(out, ',')
		}
		if out, err = appendString(out, key); err != nil {
			return nil, err
		}
		if out, err = w.value(append(out, ':'), members[key], depth); err != nil {
			return nil, err
		}
	}
	return append(out, '}'), nil
}

// sortedKeys are in order of code points; an object for which UTF-16 order differs is refused.
func sortedKeys(members map[string]any) ([]string, error) {
	keys := make([]string, 0, len(members))
	for key := range members {
		keys = append(keys, key)
	}
	// Bytes of UTF-8 sort as code points do.
	slices.Sort(keys)
	for i := 1; i < len(keys); i++ {
		if compareUTF16(keys[i-1], keys[i]) > 0 {
			return nil, errAmbiguous
		}
	}
	return keys, nil
}

// compareUTF16 orders strings as RFC 8785 does, by UTF-16 code unit.
func compareUTF16(a, b string) int {
	for a != "" && b != "" {
		ra, na := utf8.DecodeRuneInString(a)
		rb, nb := utf8.DecodeRuneInString(b)
		if ra != rb {
			return int(firstUnit(ra, rb)) - int(firstUnit(rb, ra))
		}
		a, b = a[na:], b[nb:]
	}
	return len(a) - len(b)
}

// firstUnit is what decides between two different code points: the high surrogate of a
// supplementary one, unless the other is one too; then the code points sort as their units do.
func firstUnit(r, other rune) rune {
	if r >= 0x10000 && other < 0x10000 {
		return 0xd800 + (r-0x10000)>>10
	}
	return r
}

// appendString is RFC 8785, section 3.2.2.2: two-character escapes where JSON has them,
// `\u00xx` for the other controls, everything else as it is.
func appendString(out []byte, s string) ([]byte, error) {
	if !utf8.ValidString(s) {
		return nil, syntax("a string is not UTF-8")
	}
	out = append(out, '"')
	plain := 0
	for i := range len(s) {
		b := s[i]
		if b >= 0x20 && b != '"' && b != '\\' {
			continue
		}
		out = append(out, s[plain:i]...)
		if at := strings.IndexByte("\"\\\b\t\n\f\r", b); at >= 0 {
			out = append(out, '\\', `"\btnfr`[at])
		} else {
			out = append(out, '\\', 'u', '0', '0', hexDigits[b>>4], hexDigits[b&15])
		}
		plain = i + 1
	}
	return append(append(out, s[plain:]...), '"'), nil
}

// appendNumber is RFC 8785, section 3.2.2.3: the number as ECMAScript prints it.
func appendNumber(out []byte, f float64) ([]byte, error) {
	abs := math.Abs(f)
	switch {
	case math.IsNaN(f) || abs > MaxSafeInteger:
		return nil, errNumber
	case f == 0:
		// Minus zero too.
		return append(out, '0'), nil
	case abs >= 1e-6:
		return strconv.AppendFloat(out, f, 'f', -1, 64), nil
	}
	text := strconv.FormatFloat(f, 'e', -1, 64)
	// Go writes at least two digits of an exponent.
	return append(out, strings.Replace(text, "e-0", "e-", 1)...), nil
}

const hexDigits = "0123456789abcdef"
