package aegisagent

import (
	"errors"
	"maps"
	"slices"
	"strings"

	"github.com/aegisagent/aegis/sdk/go/internal/jcs"
)

// call is an action with the hash it has here.
type call struct {
	jcs.Call
	hash string
	// entry is what it was made with.
	entry entry
}

// members are the arguments under their own names, without what is excluded or null. Each has a canonical form.
func members(t Tool, args any) (map[string]any, *Error) {
	skip := map[string]bool{}
	for _, name := range t.Exclude {
		skip[name] = true
	}
	all, names, err := jcs.Members(args, skip)
	if err != nil {
		var named *jcs.MemberError
		if errors.As(err, &named) {
			return nil, notCanonical(named.Name, named.Err)
		}
		return nil, failf(Configuration, "%v", err)
	}
	for _, name := range t.Exclude {
		if !slices.Contains(names, name) {
			return nil, failf(Configuration, "`%s` is excluded, and no argument has that name", name)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(all)) {
		if all[name] == nil {
			delete(all, name)
			continue
		}
		// On its own, so that the error names it. It stands in `parameters`, in the call.
		folded, err := jcs.Fold(map[string]any{name: all[name]})
		if err == nil {
			err = jcs.Check(folded, 1)
		}
		if err != nil {
			return nil, notCanonical(name, err)
		}
	}
	return all, nil
}

func notCanonical(name string, err error) *Error {
	fault := failf(NotCanonical, "argument `%s`: %v", name, err)
	var reason *jcs.Error
	if errors.As(err, &reason) {
		fault.Reason = string(reason.Reason)
	}
	fault.cause = err
	return fault
}

// bind makes the call. It changes `arguments`.
func bind(t Tool, e entry, arguments map[string]any) (call, *Error) {
	if t.Risk != "" && slices.Index(risks, e.risk) < slices.Index(risks, t.Risk) {
		return call{}, failf(Configuration, "the catalog rates %s.%s `%s`, which is less than the `%s` expected",
			t.Tool, t.Action, e.risk, t.Risk)
	}
	made := call{Call: jcs.Call{Tool: t.Tool, Action: t.Action, MutatesState: e.mutatesState}}
	// The author's own template speaks of the function's parameters, the catalog's of the entry's.
	if own, _ := parseTemplate(t.Resource); len(own) > 0 {
		resource, fault := own.fill(arguments)
		if fault != nil {
			return call{}, fault
		}
		made.Resource = &resource
	}
	parameters := make(map[string]any, len(arguments))
	from := make(map[string]string, len(arguments))
	for _, name := range slices.Sorted(maps.Keys(arguments)) {
		target := e.rename(name)
		if other, twice := from[target]; twice {
			return call{}, failf(Configuration, "arguments `%s` and `%s` are both `%s`", other, name, target)
		}
		from[target] = name
		parameters[target] = arguments[name]
	}
	if made.Resource == nil && len(e.resource) > 0 {
		resource, fault := e.resource.fill(parameters)
		if fault != nil {
			return call{}, fault
		}
		made.Resource = &resource
	}
	made.Parameters = parameters
	var err error
	if made.hash, err = made.Hash(); err != nil {
		fault := failf(NotCanonical, "the call as a whole: %v", err)
		var reason *jcs.Error
		if errors.As(err, &reason) {
			fault.Reason = string(reason.Reason)
		}
		return call{}, fault
	}
	return made, nil
}

// rename finds the catalog's name for an argument. A name that it does not know stays as it is.
func (e entry) rename(name string) string {
	if e.knows(name) {
		return name
	}
	if target, ok := e.aliases[name]; ok {
		return target
	}
	snake := snakeCase(name)
	if e.knows(snake) {
		return snake
	}
	if target, ok := e.aliases[snake]; ok {
		return target
	}
	return name
}

// snakeCase puts `_` before a capital that follows a lower-case letter or digit, and before the last capital of
// several where a lower-case letter follows it: `prNumber` is `pr_number`, `HTMLBody` is `html_body`. ASCII only.
func snakeCase(name string) string {
	var out strings.Builder
	for i := range len(name) {
		b := name[i]
		if !isUpper(b) {
			out.WriteByte(b)
			continue
		}
		if i > 0 && (isLowerOrDigit(name[i-1]) || isUpper(name[i-1]) && i+1 < len(name) && isLower(name[i+1])) {
			out.WriteByte('_')
		}
		out.WriteByte(b | 0x20)
	}
	return out.String()
}

func isUpper(b byte) bool        { return b >= 'A' && b <= 'Z' }
func isLower(b byte) bool        { return b >= 'a' && b <= 'z' }
func isLowerOrDigit(b byte) bool { return isLower(b) || b >= '0' && b <= '9' }
