package jcs

import (
	"math"
	"slices"
	"strconv"
	"unicode/utf8"
)

// Parse reads one JSON value of at most MaxBytes and refuses whatever has no canonical form.
func Parse(text []byte) (any, error) { return ParseBounded(text, MaxBytes) }

// ParseBounded is Parse with a bound of the caller's own.
func ParseBounded(text []byte, maxBytes int) (any, error) {
	return parse(text, maxBytes, func(number string) (any, error) { return Number(number) })
}

// RawNumber is a number as it was spelt.
type RawNumber string

// ParseRaw is Parse without a bound on the size and with numbers as they are spelt, whatever their range.
func ParseRaw(text []byte) (any, error) {
	return parse(text, math.MaxInt, func(number string) (any, error) { return RawNumber(number), nil })
}

// Number is the double that a JSON number stands for, if it is in range. The range is judged by value
// and not by spelling.
func Number(text string) (float64, error) {
	f, err := strconv.ParseFloat(text, 64)
	if err != nil || math.Abs(f) > MaxSafeInteger {
		return 0, errNumber
	}
	return f, nil
}

func parse(text []byte, maxBytes int, number func(string) (any, error)) (any, error) {
	if len(text) > maxBytes {
		return nil, tooLarge(maxBytes)
	}
	p := parser{text: text, number: number}
	p.blank()
	value, err := p.value(0)
	if err != nil {
		return nil, err
	}
	p.blank()
	if p.at != len(text) {
		return nil, p.unexpected()
	}
	return value, nil
}

type parser struct {
	text   []byte
	at     int
	number func(string) (any, error)
}

// peek is 0 at the end; a zero byte is no JSON either.
func (p *parser) peek() byte {
	if p.at < len(p.text) {
		return p.text[p.at]
	}
	return 0
}

func (p *parser) eat(b byte) bool {
	if p.at < len(p.text) && p.text[p.at] == b {
		p.at++
		return true
	}
	return false
}

func (p *parser) blank() {
	for p.at < len(p.text) {
		switch p.text[p.at] {
		case ' ', '\t', '\n', '\r':
			p.at++
		default:
			return
		}
	}
}

// unexpected never quotes what stands there: it may be a secret.
func (p *parser) unexpected() error {
	if p.at >= len(p.text) {
		return syntax("it ends too early")
	}
	return syntax("unexpected byte at offset %d", p.at)
}

func (p *parser) value(depth int) (any, error) {
	switch b := p.peek(); {
	case b == '{':
		return p.object(depth + 1)
	case b == '[':
		return p.array(depth + 1)
	case b == '"':
		return p.string()
	case b == 't':
		return true, p.word("true")
	case b == 'f':
		return false, p.word("false")
	case b == 'n':
		return nil, p.word("null")
	case b == '-' || isDigit(b):
		return p.numeral()
	}
	return nil, p.unexpected()
}

func (p *parser) word(word string) error {
	if rest := p.text[p.at:]; len(rest) < len(word) || string(rest[:len(word)]) != word {
		return p.unexpected()
	}
	p.at += len(word)
	return nil
}

func (p *parser) array(depth int) (any, error) {
	if depth > MaxDepth {
		return nil, errDeep
	}
	p.at++
	items := []any{}
	p.blank()
	if p.eat(']') {
		return items, nil
	}
	for {
		p.blank()
		item, err := p.value(depth)
		if err != nil {
			return nil, err
		}
		items = append(items, item)
		p.blank()
		if p.eat(']') {
			return items, nil
		}
		if !p.eat(',') {
			return nil, p.unexpected()
		}
	}
}

func (p *parser) object(depth int) (any, error) {
	if depth > MaxDepth {
		return nil, errDeep
	}
	p.at++
	members := map[string]any{}
	p.blank()
	if p.eat('}') {
		return members, nil
	}
	for {
		p.blank()
		if p.peek() != '"' {
			return nil, p.unexpected()
		}
		key, err := p.string()
		if err != nil {
			return nil, err
		}
		if _, twice := members[key]; twice {
			return nil, &Error{DuplicateKey, "duplicate key `" + key + "`"}
		}
		p.blank()
		if !p.eat(':') {
			return nil, p.unexpected()
		}
		p.blank()
		if members[key], err = p.value(depth); err != nil {
			return nil, err
		}
		p.blank()
		if p.eat('}') {
			_, err := sortedKeys(members)
			return members, err
		}
		if !p.eat(',') {
			return nil, p.unexpected()
		}
	}
}

// numeral follows the grammar of RFC 8259, section 6.
func (p *parser) numeral() (any, error) {
	start := p.at
	p.eat('-')
	if !p.eat('0') && !p.digits() {
		return nil, p.unexpected()
	}
	if isDigit(p.peek()) {
		return nil, p.unexpected()
	}
	if p.eat('.') && !p.digits() {
		return nil, p.unexpected()
	}
	if p.eat('e') || p.eat('E') {
		if !p.eat('+') {
			p.eat('-')
		}
		if !p.digits() {
			return nil, p.unexpected()
		}
	}
	return p.number(string(p.text[start:p.at]))
}

func (p *parser) digits() bool {
	start := p.at
	for isDigit(p.peek()) {
		p.at++
	}
	return p.at > start
}

func (p *parser) string() (string, error) {
	p.at++
	start := p.at
	var built []byte
	for {
		if p.at >= len(p.text) {
			return "", p.unexpected()
		}
		switch b := p.text[p.at]; {
		case b == '"':
			built = append(built, p.text[start:p.at]...)
			p.at++
			if !utf8.Valid(built) {
				return "", syntax("a string is not UTF-8")
			}
			return string(built), nil
		case b == '\\':
			built = append(built, p.text[start:p.at]...)
			r, err := p.escape()
			if err != nil {
				return "", err
			}
			built = utf8.AppendRune(built, r)
			start = p.at
		case b < 0x20:
			return "", p.unexpected()
		default:
			p.at++
		}
	}
}

func (p *parser) escape() (rune, error) {
	p.at++
	b := p.peek()
	if b == 'u' {
		p.at++
		return p.unicode()
	}
	i := slices.Index([]byte(`"\/bfnrt`), b)
	if i < 0 {
		return 0, p.unexpected()
	}
	p.at++
	return rune("\"\\/\b\f\n\r\t"[i]), nil
}

// unicode reads what follows `\u`: a surrogate counts only as half of a pair.
func (p *parser) unicode() (rune, error) {
	high, err := p.hex4()
	if err != nil {
		return 0, err
	}
	switch {
	case high < 0xd800 || high > 0xdfff:
		return high, nil
	case high > 0xdbff:
		return 0, syntax("lone surrogate before offset %d", p.at)
	}
	if !p.eat('\\') || !p.eat('u') {
		return 0, syntax("lone surrogate before offset %d", p.at)
	}
	low, err := p.hex4()
	if err != nil {
		return 0, err
	}
	if low < 0xdc00 || low > 0xdfff {
		return 0, syntax("lone surrogate before offset %d", p.at)
	}
	return 0x10000 + (high-0xd800)<<10 + (low - 0xdc00), nil
}

func (p *parser) hex4() (rune, error) {
	var r rune
	for range 4 {
		b := p.peek()
		switch {
		case isDigit(b):
			r = r<<4 | rune(b-'0')
		case b >= 'a' && b <= 'f':
			r = r<<4 | rune(b-'a'+10)
		case b >= 'A' && b <= 'F':
			r = r<<4 | rune(b-'A'+10)
		default:
			return 0, p.unexpected()
		}
		p.at++
	}
	return r, nil
}

func isDigit(b byte) bool { return b >= '0' && b <= '9' }
