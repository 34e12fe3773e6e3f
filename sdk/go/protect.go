package aegisagent

import (
	"context"
	"iter"
)

// Protect wraps a function so that it runs only when the gateway allows it. Args is a struct (its `json` tags are the
// names of the arguments) or a map with string keys, or a pointer to one. Result is reported as a digest, never as
// itself. What `fn` returns comes back as it is; every other error is an *Error, or the context's own where the caller
// gave up, and then `fn` has not run.
//
// The arguments must not be changed by others while the call lasts: what has changed when `fn` would run is refused.
func Protect[Args, Result any](
	c *Client, tool Tool, fn func(context.Context, Args) (Result, error),
) func(context.Context, Args) (Result, error) {
	return func(ctx context.Context, args Args) (Result, error) {
		decision, err := c.permit(ctx, tool, args)
		if err != nil {
			var none Result
			return none, err
		}
		ended := c.outcomeOf(ctx, decision)
		defer ended.report()
		result, err := fn(withDecision(ctx, decision), args)
		if err == nil {
			ended.completed(result)
		}
		return result, err
	}
}

// ProtectStream is Protect for a function that returns a sequence. The gateway is asked when the sequence is ranged
// over, each time anew; a refusal is the only element then. The digest that is reported is that over each item's
// canonical bytes and a line feed.
func ProtectStream[Args, Item any](
	c *Client, tool Tool, fn func(context.Context, Args) iter.Seq2[Item, error],
) func(context.Context, Args) iter.Seq2[Item, error] {
	return func(ctx context.Context, args Args) iter.Seq2[Item, error] {
		return func(yield func(Item, error) bool) {
			decision, err := c.permit(ctx, tool, args)
			if err != nil {
				var none Item
				yield(none, err)
				return
			}
			ended := c.outcomeOf(ctx, decision)
			defer ended.report()
			failed := false
			for item, err := range fn(withDecision(ctx, decision), args) {
				if err == nil {
					ended.item(item)
				}
				failed = failed || err != nil
				if !yield(item, err) {
					break
				}
			}
			if !failed {
				ended.streamed()
			}
		}
	}
}

type decisionKey struct{}

func withDecision(ctx context.Context, d *Decision) context.Context {
	return context.WithValue(ctx, decisionKey{}, *d)
}

// DecisionFrom is the decision under which a protected function runs, for its own log lines.
func DecisionFrom(ctx context.Context) (Decision, bool) {
	d, ok := ctx.Value(decisionKey{}).(Decision)
	return d, ok
}
