package aegisagent

import (
	"context"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/aegisagent/aegis/sdk/go/internal/jcs"
)

// Risk of an action, as the catalog rates it.
type Risk string

// The risks, least first.
const (
	RiskLow      Risk = "low"
	RiskMedium   Risk = "medium"
	RiskHigh     Risk = "high"
	RiskCritical Risk = "critical"
)

var risks = []Risk{RiskLow, RiskMedium, RiskHigh, RiskCritical}

// entry is what the catalog says of an action, as far as it matters here.
type entry struct {
	mutatesState bool
	risk         Risk
	// resource is nil where it has to be null.
	resource   template
	parameters map[string]bool
	aliases    map[string]string
}

// knows says whether a name needs no translation.
func (e entry) knows(name string) bool {
	return e.parameters[name] || slices.Contains(e.resource.names(), name)
}

// catalog keeps entries for five minutes.
type catalog struct {
	mu      sync.Mutex
	entries map[string]keptEntry
}

type keptEntry struct {
	entry entry
	until time.Time
}

const keepEntry = 5 * time.Minute

func (c *Client) entry(ctx context.Context, tool, action string) (entry, error) {
	name := tool + "." + action
	now := time.Now()
	c.catalog.mu.Lock()
	kept, ok := c.catalog.entries[name]
	c.catalog.mu.Unlock()
	if ok && now.Before(kept.until) {
		return kept.entry, nil
	}
	got, err := c.exchange(ctx, request{method: http.MethodGet, path: "/v1/actions/" + name})
	if err != nil {
		return entry{}, err
	}
	if got.status != http.StatusOK {
		return entry{}, c.refusal(got)
	}
	members, fault := got.object()
	if fault != nil {
		return entry{}, fault
	}
	found, fault := readEntry(members, name)
	if fault != nil {
		fault.Status = got.status
		return entry{}, fault
	}
	c.catalog.mu.Lock()
	defer c.catalog.mu.Unlock()
	if c.catalog.entries == nil {
		c.catalog.entries = map[string]keptEntry{}
	}
	c.catalog.entries[name] = keptEntry{found, now.Add(keepEntry)}
	return found, nil
}

func readEntry(members map[string]any, name string) (entry, *Error) {
	e := entry{parameters: map[string]bool{}, aliases: map[string]string{}}
	if members["name"] != name {
		return e, unexpected("the catalog entry is that of another action")
	}
	risk, _ := members["risk"].(string)
	e.risk = Risk(risk)
	mutates, ok := members["mutates_state"].(bool)
	e.mutatesState = mutates
	parameters, ok2 := members["parameters"].(map[string]any)
	if !ok || !ok2 || !slices.Contains(risks, e.risk) {
		return e, unexpected("the catalog entry lacks `mutates_state`, `risk` or `parameters`")
	}
	for parameter := range parameters {
		e.parameters[parameter] = true
	}
	switch text := members["resource"].(type) {
	case nil:
	case string:
		if e.resource, ok = parseTemplate(text); !ok {
			return e, unexpected("the catalog entry's resource is no template")
		}
	default:
		return e, unexpected("the catalog entry's resource is no template")
	}
	if members["aliases"] == nil {
		return e, nil
	}
	aliases, ok := members["aliases"].(map[string]any)
	for alias, target := range aliases {
		if e.aliases[alias], ok = target.(string); !ok {
			break
		}
	}
	if !ok {
		return e, unexpected("the catalog entry's aliases are no names")
	}
	return e, nil
}

// checkTool is what can be said about a wrapper before anything is called.
func checkTool(t Tool) *Error {
	if !jcs.IsName(t.Tool) || !jcs.IsName(t.Action) {
		return failf(Configuration, "Tool and Action must be 1 to 128 ASCII letters, digits, `_`, `-` or `.`")
	}
	if t.Risk != "" && !slices.Contains(risks, t.Risk) {
		return failf(Configuration, "unknown risk `%s`", t.Risk)
	}
	if _, ok := parseTemplate(t.Resource); !ok {
		return failf(Configuration, "the resource `%s` is no template", t.Resource)
	}
	return nil
}
