// Package jcs is aegis-jcs-1: RFC 8785, refusing what RFC 8785 implementations disagree on.
//
// Values are nil, bool, float64, string, []any and map[string]any. Every number that is
// accepted is a double, so float64 loses nothing.
package jcs

import "fmt"

const (
	// Version names the definition.
	Version = "aegis-jcs-1"
	// MaxDepth bounds the nesting of arrays and objects; the outermost is depth 1.
	MaxDepth = 64
	// MaxBytes bounds the canonical bytes, and the text that a strict parse accepts.
	MaxBytes = 1 << 20
	// MaxSafeInteger is 2^53 - 1: beyond it a double no longer tells neighbours apart.
	MaxSafeInteger = 1<<53 - 1
)

// Reason says why something has no canonical form, under the name that all implementations use.
type Reason string

// The reasons.
const (
	Syntax         Reason = "syntax"
	DuplicateKey   Reason = "duplicate_key"
	NumberRange    Reason = "number_range"
	AmbiguousOrder Reason = "ambiguous_order"
	TooDeep        Reason = "too_deep"
	TooLarge       Reason = "too_large"
	ReservedKey    Reason = "reserved_key"
	BadName        Reason = "bad_name"
	BadResource    Reason = "bad_resource"
	// Unsupported is a Go value that JSON has no form for, such as a channel.
	Unsupported Reason = "unsupported"
)

// Error is a refusal. There is never a best effort.
type Error struct {
	Reason Reason
	// Detail is one sentence for people.
	Detail string
}

func (e *Error) Error() string { return e.Detail }

func syntax(format string, args ...any) *Error {
	return &Error{Syntax, "not valid JSON: " + fmt.Sprintf(format, args...)}
}

var (
	errNumber    = &Error{NumberRange, "number beyond ±(2^53-1)"}
	errAmbiguous = &Error{AmbiguousOrder, "keys of one object sort differently by UTF-16 unit and by code point"}
	errDeep      = &Error{TooDeep, fmt.Sprintf("nested deeper than %d levels", MaxDepth)}
)

func tooLarge(limit int) *Error {
	return &Error{TooLarge, fmt.Sprintf("larger than %d bytes", limit)}
}
