package aegisagent

import (
	"context"
	"slices"
)

// SourceTrust says how far the content that drives an agent can be trusted.
type SourceTrust string

// The labels, most trusted first.
const (
	TrustedInternalSigned   SourceTrust = "trusted_internal_signed"
	TrustedInternalUnsigned SourceTrust = "trusted_internal_unsigned"
	SemiTrustedCustomer     SourceTrust = "semi_trusted_customer"
	UntrustedExternal       SourceTrust = "untrusted_external"
	MaliciousSuspected      SourceTrust = "malicious_suspected"
	UnknownTrust            SourceTrust = "unknown"
)

var trusts = []SourceTrust{
	TrustedInternalSigned, TrustedInternalUnsigned, SemiTrustedCustomer, UntrustedExternal, MaliciousSuspected, UnknownTrust,
}

// WithSourceTrust says it for every protected call under the context. Of several that apply, the least trusted is
// sent, so an inner context can lower trust and never raise it.
func WithSourceTrust(ctx context.Context, trust SourceTrust) context.Context {
	said, _ := ctx.Value(trustKey{}).([]SourceTrust)
	return context.WithValue(ctx, trustKey{}, append(slices.Clone(said), trust))
}

type trustKey struct{}

// effectiveTrust is empty where nobody said anything.
func effectiveTrust(ctx context.Context, tool Tool) (SourceTrust, *Error) {
	said, _ := ctx.Value(trustKey{}).([]SourceTrust)
	if tool.SourceTrust != "" {
		said = append(slices.Clone(said), tool.SourceTrust)
	}
	least := -1
	for _, trust := range said {
		at := slices.Index(trusts, trust)
		if at < 0 {
			return "", failf(Configuration, "unknown source trust `%s`", trust)
		}
		least = max(least, at)
	}
	if least < 0 {
		return "", nil
	}
	return trusts[least], nil
}
