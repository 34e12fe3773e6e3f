package aegisagent_test

import (
	"go/parser"
	"go/token"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// The program in the README is built outside this module and run against a gateway, as a newcomer would.
func TestTheReadmesProgramRuns(t *testing.T) {
	blocks := goBlocks(t)
	dir := t.TempDir()
	here, err := filepath.Abs(".")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "main.go"), []byte(blocks[0]), 0o600); err != nil {
		t.Fatal(err)
	}
	goCommand := func(args ...string) {
		t.Helper()
		command := exec.Command("go", args...)
		command.Dir = dir
		command.Env = append(os.Environ(), "GOPROXY=off", "GOFLAGS=-mod=mod", "GOWORK=off")
		if out, err := command.CombinedOutput(); err != nil {
			t.Fatalf("go %s: %v\n%s", args, err, out)
		}
	}
	goCommand("mod", "init", "example.com/agent")
	goCommand("mod", "edit", "-replace", "github.com/aegisagent/aegis/sdk/go="+here)
	goCommand("mod", "tidy")
	goCommand("vet", ".")
	goCommand("build", "-o", "agent", ".")
	run := func(verdict string) (string, error) {
		g := newGateway(t, verdict)
		command := exec.Command(filepath.Join(dir, "agent"))
		command.Env = append(os.Environ(), "AEGIS_GATEWAY_URL="+g.URL, "AEGIS_AGENT_TOKEN="+testToken)
		out, err := command.CombinedOutput()
		return string(out), err
	}
	if out, err := run("allow"); out != "merged octo/payments#482\n" || err != nil {
		t.Error(out, err)
	}
	if out, err := run("deny"); !strings.Contains(out, "not allowed: aegisagent: denied") || err == nil {
		t.Error(out, err)
	}
}

func TestTheReadmesOtherLinesAreGo(t *testing.T) {
	for _, block := range goBlocks(t)[1:] {
		text := "package p\n\nfunc f() {\n" + block + "\n}\n"
		if _, err := parser.ParseFile(token.NewFileSet(), "README.md", text, parser.AllErrors); err != nil {
			t.Error(err)
		}
	}
}

func goBlocks(t *testing.T) []string {
	t.Helper()
	text, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	var blocks []string
	for _, part := range strings.Split(string(text), "```go\n")[1:] {
		block, _, _ := strings.Cut(part, "```")
		blocks = append(blocks, block)
	}
	if len(blocks) != 3 {
		t.Fatalf("%d blocks of Go", len(blocks))
	}
	return blocks
}
