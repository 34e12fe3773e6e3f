package receipts

import (
	"fmt"
	"maps"
	"math"
	"slices"
)

// checkShape holds a leaf to the types of its members, which the verifier needs only where it opens commitments.
// Unknown members are passed over: a later version may add some.
func checkShape(m map[string]any, typeName string) error {
	if typeName != "intent.v1" {
		return nil
	}
	if text, _ := m["prev_receipt_hash"].(string); !isDigest(text) {
		return shapeError("prev_receipt_hash")
	}
	for _, name := range []string{"action", "agent_binding", "decision_id", "reason", "route", "tenant", "tool"} {
		if _, ok := m[name].(string); !ok {
			return shapeError(name)
		}
	}
	for _, name := range []string{"action_commitment", "parameters_commitment", "snapshot"} {
		if text, _ := m[name].(string); !isDigest(text) {
			return shapeError(name)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(words)) {
		if text, _ := m[name].(string); !slices.Contains(words[name], text) {
			return shapeError(name)
		}
	}
	if _, ok := m["mutates_state"].(bool); !ok {
		return shapeError("mutates_state")
	}
	if flag, there := m["dry_run"]; there {
		if _, ok := flag.(bool); !ok {
			return shapeError("dry_run")
		}
	}
	for _, name := range []string{
		"agent_id", "credential", "parent_run_id", "request_id", "resource", "run_id", "trace_id", "user",
	} {
		if _, ok := m[name].(string); !ok && m[name] != nil {
			return shapeError(name)
		}
	}
	for _, name := range []string{"count", "index"} {
		if n, ok := m[name].(float64); m[name] != nil && (!ok || n < 0 || n > math.MaxUint32 || n != math.Trunc(n)) {
			return shapeError(name)
		}
	}
	return checkNested(m)
}

func checkNested(m map[string]any) error {
	if policies, there := m["policies"]; there && !areTexts(policies) {
		return shapeError("policies")
	}
	if sending, there := m["sending"]; there {
		members, ok := sending.(map[string]any)
		if !ok || !areTexts(slices.Collect(maps.Values(members))) {
			return shapeError("sending")
		}
	}
	if m["approval"] != nil {
		use, _ := m["approval"].(map[string]any)
		if _, ok := use["id"].(string); !ok || !areTexts(use["approvers"]) {
			return shapeError("approval")
		}
	}
	return nil
}

func areTexts(value any) bool {
	items, ok := value.([]any)
	for _, item := range items {
		if _, isText := item.(string); !isText {
			return false
		}
	}
	return ok
}

func shapeError(name string) error {
	return fmt.Errorf("not a leaf: `%s` is missing or not what it should be", name)
}

// words are the members that have a closed set of values.
var words = map[string][]string{
	"class":    {"read", "write", "delete", "admin", "mint", "persist", "money"},
	"decision": {"allow", "deny", "require_approval"},
	"door":     {"route", "connect", "sdk", "sql", "webhook", "fact"},
	"risk":     {"low", "medium", "high", "critical"},
	"source_trust": {
		"trusted_internal_signed", "trusted_internal_unsigned", "semi_trusted_customer", "untrusted_external",
		"malicious_suspected", "unknown",
	},
}
