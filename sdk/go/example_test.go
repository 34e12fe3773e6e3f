package aegisagent_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log"

	aegisagent "github.com/aegisagent/aegis/sdk/go"
)

func ExampleProtect() {
	aegis, err := aegisagent.NewClient(aegisagent.Options{GatewayURL: "https://aegis.internal", AgentToken: "aegis_agt_…"})
	if err != nil {
		log.Print(err)
		return
	}
	type args struct {
		Repo     string `json:"repo"`
		PRNumber int    `json:"pr_number"`
	}
	tool := aegisagent.Tool{Tool: "github", Action: "merge_pull_request", Risk: aegisagent.RiskHigh}
	merge := aegisagent.Protect(aegis, tool, func(_ context.Context, a args) (string, error) {
		return fmt.Sprintf("merged %s#%d", a.Repo, a.PRNumber), nil
	})
	result, err := merge(context.Background(), args{"octo/payments", 482})
	if errors.Is(err, aegisagent.Denied) {
		log.Print("not allowed: ", err)
	}
	fmt.Println(result)
}

func ExampleProtectStream() {
	aegis, err := aegisagent.NewClient(aegisagent.Options{})
	if err != nil {
		log.Print(err)
		return
	}
	tool := aegisagent.Tool{Tool: "github", Action: "list_branches", SourceTrust: aegisagent.UntrustedExternal}
	branches := aegisagent.ProtectStream(aegis, tool, func(context.Context, map[string]any) iter.Seq2[string, error] {
		return func(yield func(string, error) bool) {
			_ = yield("main", nil) && yield("topic", nil)
		}
	})
	for branch, err := range branches(context.Background(), map[string]any{"repo": "octo/payments"}) {
		fmt.Println(branch, err)
	}
}
