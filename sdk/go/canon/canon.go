// Package canon is aegis-jcs-1, the canonical JSON that actions are hashed in: RFC 8785, refusing what RFC 8785
// implementations disagree on. That is a key that is there twice, a lone surrogate, a number beyond ±(2^53-1),
// keys that sort differently by UTF-16 unit and by code point, more than 64 levels and more than 1 MiB.
//
// Values are nil, bool, float64, string, []any and map[string]any.
package canon

import (
	"math"

	"github.com/aegisagent/aegis/sdk/go/internal/jcs"
)

// Version names the definition, as in an answer's `canon_version`.
const Version = jcs.Version

// Reason is the name that all implementations give a refusal.
type Reason = jcs.Reason

// Error is a refusal.
type Error = jcs.Error

// The reasons.
const (
	Syntax         = jcs.Syntax
	DuplicateKey   = jcs.DuplicateKey
	NumberRange    = jcs.NumberRange
	AmbiguousOrder = jcs.AmbiguousOrder
	TooDeep        = jcs.TooDeep
	TooLarge       = jcs.TooLarge
	ReservedKey    = jcs.ReservedKey
	BadName        = jcs.BadName
	BadResource    = jcs.BadResource
	Unsupported    = jcs.Unsupported
)

// Parse reads one JSON value strictly: what it accepts has canonical bytes. Errors are *Error.
func Parse(text []byte) (any, error) { return jcs.Parse(text) }

// Bytes are the canonical bytes of a value. Errors are *Error.
func Bytes(value any) ([]byte, error) { return jcs.Bytes(value) }

// Of is the JSON value that encoding/json would write for a Go value, as a copy. Errors are *Error.
func Of(value any) (any, error) { return jcs.Of(value) }

// Digest is the SHA-256 of some bytes in lowercase hex.
func Digest(bytes []byte) string { return jcs.Digest(bytes) }

// Call is an action: exactly five keys.
type Call = jcs.Call

// ParseCall reads a call from its JSON: all five keys and no other. Errors are *Error.
func ParseCall(text []byte) (Call, error) {
	// Long strings are folded before the bound on the size applies.
	value, err := jcs.ParseBounded(text, math.MaxInt)
	if err != nil {
		return Call{}, err
	}
	members, _ := value.(map[string]any)
	var call Call
	tool, ok1 := members["tool"].(string)
	action, ok2 := members["action"].(string)
	mutates, ok3 := members["mutates_state"].(bool)
	parameters, ok4 := members["parameters"].(map[string]any)
	resource, ok5 := members["resource"]
	call = Call{Tool: tool, Action: action, MutatesState: mutates, Parameters: parameters}
	if text, isText := resource.(string); isText {
		call.Resource = &text
	} else if resource != nil {
		ok5 = false
	}
	if len(members) != 5 || !ok1 || !ok2 || !ok3 || !ok4 || !ok5 {
		return Call{}, &Error{Reason: Syntax, Detail: "not a call: tool, action, resource, mutates_state, parameters"}
	}
	return call, nil
}
