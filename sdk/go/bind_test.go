package aegisagent_test

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	aegisagent "github.com/aegisagent/aegis/sdk/go"
	"github.com/aegisagent/aegis/sdk/go/canon"
)

// callOf is the call that arguments become, as the gateway gets it.
func callOf(t *testing.T, entry string, tool aegisagent.Tool, args any) (string, error) {
	t.Helper()
	g := newGateway(t, "allow")
	if entry != "" {
		g.entry = entry
	}
	d, err := g.client().DryRun(context.Background(), tool, args)
	if err != nil {
		if len(g.sent("/v1/authorize")) != 0 {
			t.Error("it was sent all the same")
		}
		return "", err
	}
	var body struct {
		ToolCall json.RawMessage `json:"tool_call"`
	}
	if err := json.Unmarshal(g.sent("/v1/authorize")[0].body, &body); err != nil {
		t.Fatal(err)
	}
	call, err := canon.ParseCall(body.ToolCall)
	if err != nil {
		t.Fatal(err)
	}
	if hash, err := call.Hash(); hash != d.ActionHash || err != nil {
		t.Error(hash, err)
	}
	resource := "null"
	if call.Resource != nil {
		resource = *call.Resource
	}
	parameters, err := canon.Bytes(call.Parameters)
	return resource + " " + string(parameters), err
}

type object = map[string]any

func TestArgumentsBecomeTheCatalogsParameters(t *testing.T) {
	var none *string
	entry := func(resource string) string {
		return strings.Replace(mergeEntry, `"{owner}/{repo}#{pull_number}"`, resource, 1)
	}
	for name, c := range map[string]struct {
		entry string
		tool  aegisagent.Tool
		args  any
		want  string
	}{
		"aliases":            {"", merge, object{"owner": "o", "repo": "r", "pr_number": 7, "head_sha": "s"}, `o/r#7 {"sha":"s"}`},
		"their own names":    {"", merge, object{"owner": "o", "repo": "r", "pull_number": 7, "sha": "s"}, `o/r#7 {"sha":"s"}`},
		"snake case":         {"", merge, object{"owner": "o", "repo": "r", "pullNumber": 7, "mergeMethod": "squash"}, `o/r#7 {"merge_method":"squash"}`},
		"snake case, alias":  {"", merge, object{"owner": "o", "repo": "r", "prNumber": 7, "HeadSHA": "s"}, `o/r#7 {"sha":"s"}`},
		"unknown stays":      {"", merge, object{"owner": "o", "repo": "r", "pr_number": 7, "dryRun": true}, `o/r#7 {"dryRun":true}`},
		"owner in repo":      {"", merge, object{"repo": "o/r", "pr_number": 7}, `o/r#7 {}`},
		"owner given":        {"", merge, object{"owner": "o", "repo": "p/r", "pr_number": 7}, `o/p/r#7 {}`},
		"number as text":     {"", merge, object{"repo": "o/r", "pr_number": "7"}, `o/r#7 {}`},
		"whole float":        {"", merge, object{"repo": "o/r", "pr_number": 7.0}, `o/r#7 {}`},
		"nulls are left out": {"", merge, object{"repo": "o/r", "pr_number": 7, "a": nil, "b": none, "c": object{"d": nil}}, `o/r#7 {"c":{"d":null}}`},
		"own template":       {"", tool(func(t *aegisagent.Tool) { t.Resource = "{repo}#{pr_number}" }), object{"repo": "o/r", "pr_number": 7, "x": 1}, `o/r#7 {"x":1}`},
		"own, with an owner": {"", tool(func(t *aegisagent.Tool) { t.Resource = "{owner}/{repo}!{n}" }), object{"repo": "o/r", "n": 7}, `o/r!7 {}`},
		"own, fixed":         {"", tool(func(t *aegisagent.Tool) { t.Resource = "all" }), object{"n": 7}, `all {"n":7}`},
		"no resource":        {entry("null"), merge, object{"repo": "o/r"}, `null {"repo":"o/r"}`},
		"excluded":           {"", tool(func(t *aegisagent.Tool) { t.Exclude = []string{"client", "none"} }), object{"repo": "o/r", "pr_number": 7, "client": make(chan int), "none": nil}, `o/r#7 {}`},
		"a struct":           {"", merge, someArgs, `octo/payments#482 {"branch":"main"}`},
		"a pointer":          {"", merge, &someArgs, `octo/payments#482 {"branch":"main"}`},
		"fields without tags": {"", merge, struct {
			Owner, Repo string
			PRNumber    int
		}{"o", "r", 7}, `o/r#7 {}`},
		"other maps": {"", merge, map[string]string{"repo": "o/r", "pr_number": "7"}, `o/r#7 {}`},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := callOf(t, c.entry, c.tool, c.args)
			if got != c.want || err != nil {
				t.Errorf("%s %v, expected %s", got, err, c.want)
			}
		})
	}
}

func tool(change func(*aegisagent.Tool)) aegisagent.Tool {
	changed := merge
	change(&changed)
	return changed
}

func TestWrappersThatDoNotFitAreRefused(t *testing.T) {
	good := object{"repo": "o/r", "pr_number": 7}
	for name, c := range map[string]struct {
		tool aegisagent.Tool
		args any
	}{
		"two for one name":    {merge, object{"repo": "o/r", "pr_number": 7, "pull_number": 7}},
		"two by snake case":   {merge, object{"repo": "o/r", "pr_number": 7, "sha": "a", "head_sha": "b"}},
		"nothing for a slot":  {merge, object{"repo": "o/r"}},
		"null for a slot":     {merge, object{"repo": "o/r", "pr_number": nil}},
		"no owner":            {merge, object{"repo": "r", "pr_number": 7}},
		"two slashes":         {merge, object{"repo": "a/b/c", "pr_number": 7}},
		"a fraction":          {merge, object{"repo": "o/r", "pr_number": 7.5}},
		"a flag in a slot":    {merge, object{"repo": "o/r", "pr_number": true}},
		"an object in a slot": {merge, object{"repo": "o/r", "pr_number": object{}}},
		"no template":         {tool(func(t *aegisagent.Tool) { t.Resource = "{repo" }), good},
		"own name missing":    {tool(func(t *aegisagent.Tool) { t.Resource = "{repository}" }), good},
		"more risk":           {tool(func(t *aegisagent.Tool) { t.Risk = aegisagent.RiskCritical }), good},
		"unknown risk":        {tool(func(t *aegisagent.Tool) { t.Risk = "severe" }), good},
		"unknown trust":       {tool(func(t *aegisagent.Tool) { t.SourceTrust = "trusted" }), good},
		"no tool":             {tool(func(t *aegisagent.Tool) { t.Tool = "" }), good},
		"a path":              {tool(func(t *aegisagent.Tool) { t.Action = "x/../y" }), good},
		"nothing to exclude":  {tool(func(t *aegisagent.Tool) { t.Exclude = []string{"rpeo"} }), good},
		"no field to exclude": {tool(func(t *aegisagent.Tool) { t.Exclude = []string{"rpeo"} }), someArgs},
		"nil":                 {merge, nil},
		"a nil pointer":       {merge, (*mergeArgs)(nil)},
		"a list":              {merge, []int{1}},
		"a number":            {merge, 1},
		"keys of numbers":     {merge, map[int]string{1: "a"}},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := callOf(t, "", c.tool, c.args)
			var p probe
			p.expectRefused(t, err, aegisagent.Configuration)
		})
	}
	var p probe
	_, err := aegisagent.Protect(nil, merge, p.merge)(context.Background(), someArgs)
	p.expectRefused(t, err, aegisagent.Configuration)
}

func TestWhatHasNoCanonicalFormIsRefusedByName(t *testing.T) {
	deep := func(n int) any {
		var v any
		for range n {
			v = []any{v}
		}
		return v
	}
	for name, c := range map[string]struct {
		value  any
		reason canon.Reason
	}{
		"NaN":          {math.NaN(), canon.NumberRange},
		"2^53":         {int64(1) << 53, canon.NumberRange},
		"not UTF-8":    {"\xff", canon.Syntax},
		"surrogate":    {json.RawMessage(`"\ud800"`), canon.Syntax},
		"twice":        {json.RawMessage(`{"a":1,"a":2}`), canon.DuplicateKey},
		"ambiguous":    {object{"\uffff": 1, "😀": 2}, canon.AmbiguousOrder},
		"reserved":     {[]any{object{"$bulk": 1}}, canon.ReservedKey},
		"stream":       {object{"$stream": 1}, canon.ReservedKey},
		"63 levels":    {deep(63), canon.TooDeep},
		"a megabyte":   {strings.Split(strings.Repeat(strings.Repeat("x", 65_536)+",", 17), ","), canon.TooLarge},
		"a channel":    {make(chan int), canon.Unsupported},
		"long garbage": {strings.Repeat("x", 70_000) + "\xff", canon.Syntax},
	} {
		t.Run(name, func(t *testing.T) {
			g := newGateway(t, "allow")
			_, err := g.client().DryRun(context.Background(), merge, object{"repo": "o/r", "pr_number": 7, "odd_one": c.value})
			var p probe
			fault := p.expectRefused(t, err, aegisagent.NotCanonical)
			if !strings.Contains(fault.Message, "`odd_one`") || fault.Reason != string(c.reason) {
				t.Errorf("%+v", *fault)
			}
			if len(g.sent("/v1/authorize")) != 0 {
				t.Error("it was sent")
			}
		})
	}
	_, err := callOf(t, "", merge, object{"repo": "o/r", "pr_number": 7, "$bulk": 1})
	var p probe
	p.expectRefused(t, err, aegisagent.NotCanonical)
	_, err = callOf(t, "", merge, object{"repo": "o/r\n", "pr_number": 7})
	p.expectRefused(t, err, aegisagent.NotCanonical)
	if got, err := callOf(t, "", merge, object{"repo": "o/r", "pr_number": 7, "ok": deep(62)}); err != nil {
		t.Error(got, err)
	}
}

// What is sent is the unfolded call; what is hashed is the folded one.
func TestLongStringsAreSentAsTheyAre(t *testing.T) {
	long := strings.Repeat("é", 40_000)
	got, err := callOf(t, "", merge, object{"repo": "o/r", "pr_number": 7, "message": long})
	if want := fmt.Sprintf(`o/r#7 {"message":%q}`, long); got != want || err != nil {
		t.Error(len(got), err)
	}
}

func TestTimesAndOtherMarshalersCount(t *testing.T) {
	at := time.Date(2026, 1, 31, 23, 59, 59, 0, time.UTC)
	got, err := callOf(t, "", merge, object{"repo": "o/r", "pr_number": 7, "at": at, "big": json.Number("1.50")})
	if want := `o/r#7 {"at":"2026-01-31T23:59:59Z","big":1.5}`; got != want || err != nil {
		t.Error(got, err)
	}
}
