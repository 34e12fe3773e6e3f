package aegisagent

import (
	"strconv"
	"strings"
)

// template is a resource with slots, e.g. `{owner}/{repo}#{pull_number}`.
type template []slot

// slot is fixed text and the name of what follows it; the last one may have no name.
type slot struct{ text, name string }

func parseTemplate(text string) (template, bool) {
	var t template
	for text != "" {
		fixed, rest, more := strings.Cut(text, "{")
		if strings.Contains(fixed, "}") {
			return nil, false
		}
		if !more {
			return append(t, slot{text: fixed}), true
		}
		name, after, closed := strings.Cut(rest, "}")
		if !closed || name == "" || strings.Contains(name, "{") {
			return nil, false
		}
		t = append(t, slot{fixed, name})
		text = after
	}
	return t, true
}

func (t template) names() []string {
	var names []string
	for _, s := range t {
		if s.name != "" {
			names = append(names, s.name)
		}
	}
	return names
}

// ownerBeforeRepo says whether the template has `{owner}/{repo}` in it.
func (t template) ownerBeforeRepo() bool {
	for i := 1; i < len(t); i++ {
		if t[i-1].name == "owner" && t[i] == (slot{"/", "repo"}) {
			return true
		}
	}
	return false
}

// fill takes the values that the template names out of `members`.
func (t template) fill(members map[string]any) (string, *Error) {
	values := map[string]string{}
	if _, given := members["owner"]; !given && t.ownerBeforeRepo() {
		if full, _ := members["repo"].(string); strings.Count(full, "/") == 1 {
			values["owner"], values["repo"], _ = strings.Cut(full, "/")
			delete(members, "repo")
		}
	}
	for _, name := range t.names() {
		if _, done := values[name]; done {
			continue
		}
		switch v := members[name].(type) {
		case nil:
			return "", failf(Configuration, "the resource needs `%s`, and no argument has that name", name)
		case string:
			values[name] = v
		case float64:
			if v != float64(int64(v)) {
				return "", failf(Configuration, "`%s` stands in the resource and is neither a string nor an integer", name)
			}
			values[name] = strconv.FormatInt(int64(v), 10)
		default:
			return "", failf(Configuration, "`%s` stands in the resource and is neither a string nor an integer", name)
		}
		delete(members, name)
	}
	var resource strings.Builder
	for _, s := range t {
		resource.WriteString(s.text)
		resource.WriteString(values[s.name])
	}
	return resource.String(), nil
}
