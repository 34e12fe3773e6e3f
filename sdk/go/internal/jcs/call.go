package jcs

import (
	"crypto/sha256"
	"encoding/hex"
	"maps"
	"slices"
	"unicode"
	"unicode/utf8"
)

const (
	// BulkThreshold is the size beyond which a string is replaced by its digest.
	BulkThreshold = 64 << 10
	bulkKey       = "$bulk"
	streamKey     = "$stream"
)

// Call is an action: exactly five keys.
type Call struct {
	Tool         string
	Action       string
	Resource     *string
	MutatesState bool
	Parameters   map[string]any
}

// Value is the call as JSON, not folded.
func (c Call) Value() map[string]any { return c.with(c.Parameters) }

// Hash folds a copy of the parameters and hashes the canonical bytes: lowercase hex.
func (c Call) Hash() (string, error) {
	folded, err := foldMembers(c.Parameters, 0)
	if err != nil {
		return "", err
	}
	if !IsName(c.Tool) || !IsName(c.Action) {
		return "", &Error{BadName, "`tool` and `action` must be 1 to 128 ASCII letters, digits, `_`, `-` or `.`"}
	}
	if c.Resource != nil && !isResource(*c.Resource) {
		return "", &Error{BadResource, "`resource` must be 1 to 2048 characters without controls"}
	}
	canonical, err := Bytes(c.with(folded))
	if err != nil {
		return "", err
	}
	return Digest(canonical), nil
}

func (c Call) with(parameters map[string]any) map[string]any {
	call := map[string]any{
		"tool": c.Tool, "action": c.Action, "resource": nil,
		"mutates_state": c.MutatesState, "parameters": parameters,
	}
	if c.Resource != nil {
		call["resource"] = *c.Resource
	}
	return call
}

// Fold replaces long strings by their digest, in a copy, and refuses the keys that are reserved for that.
func Fold(value any) (any, error) { return fold(value, 1) }

func fold(value any, depth int) (any, error) {
	if depth > MaxDepth {
		return nil, errDeep
	}
	switch v := value.(type) {
	case string:
		if len(v) > BulkThreshold {
			if !utf8.ValidString(v) {
				return nil, syntax("a string is not UTF-8")
			}
			return map[string]any{bulkKey: map[string]any{"sha256": Digest([]byte(v)), "bytes": float64(len(v))}}, nil
		}
	case []any:
		items := make([]any, len(v))
		for i, item := range v {
			folded, err := fold(item, depth+1)
			if err != nil {
				return nil, err
			}
			items[i] = folded
		}
		return items, nil
	case map[string]any:
		return foldMembers(v, depth)
	}
	return value, nil
}

func foldMembers(members map[string]any, depth int) (map[string]any, error) {
	folded := make(map[string]any, len(members))
	for _, key := range slices.Sorted(maps.Keys(members)) {
		if key == bulkKey || key == streamKey {
			return nil, &Error{ReservedKey, "reserved key `" + key + "`"}
		}
		value, err := fold(members[key], depth+1)
		if err != nil {
			return nil, err
		}
		folded[key] = value
	}
	return folded, nil
}

// Digest is the SHA-256 in lowercase hex.
func Digest(bytes []byte) string {
	sum := sha256.Sum256(bytes)
	return hex.EncodeToString(sum[:])
}

// IsName says whether a text can be the `tool` or the `action` of a call.
func IsName(name string) bool {
	for i := range len(name) {
		b := name[i]
		if !isDigit(b) && (b|0x20 < 'a' || b|0x20 > 'z') && b != '_' && b != '-' && b != '.' {
			return false
		}
	}
	return len(name) >= 1 && len(name) <= 128
}

func isResource(resource string) bool {
	for _, r := range resource {
		if unicode.IsControl(r) {
			return false
		}
	}
	return resource != "" && utf8.RuneCountInString(resource) <= 2048
}
