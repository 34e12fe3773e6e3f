// Command aegis-verify-receipts verifies a receipt log's directory or an exported bundle, offline: no network, no
// database, no gateway.
package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"

	aegisagent "github.com/aegisagent/aegis/sdk/go"
	"github.com/aegisagent/aegis/sdk/go/receipts"
)

const usage = `Verifies a receipt log directory or an exported bundle.

Exit status: 0 verified, 1 tampered (says which leaf and why), 2 unreadable.

Usage: aegis-verify-receipts [--json] <PATH>

Arguments:
  <PATH>  Directory of a log (with ` + "`segments` and `head`" + ` in it), or a bundle file

Options:
      --json     Print the report as JSON
  -h, --help     Print help
  -V, --version  Print version
`

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }

func run(args []string, stdout io.Writer, stderr *os.File) int {
	path, asJSON, ended, code := parse(args, stdout, stderr)
	if ended {
		return code
	}
	shown := false
	var progress func(receipts.Progress)
	if info, err := stderr.Stat(); err == nil && info.Mode()&os.ModeCharDevice != 0 {
		progress = func(p receipts.Progress) {
			if p.TotalBytes > large {
				shown = true
				fmt.Fprintf(stderr, "\r%3d%%  %d leaves", p.Bytes*100/p.TotalBytes, p.Leaves)
			}
		}
	}
	report := receipts.Verify(path, progress)
	if shown {
		fmt.Fprintln(stderr)
	}
	if asJSON {
		encoder := json.NewEncoder(stdout)
		encoder.SetEscapeHTML(false)
		encoder.SetIndent("", "  ")
		// The exit status is the answer, also where nobody reads the text.
		_ = encoder.Encode(report)
	} else {
		_, _ = io.WriteString(stdout, report.String())
	}
	return report.ExitCode()
}

// parse says with `ended` that there is nothing to verify, and with `code` how it ended.
func parse(args []string, stdout, stderr io.Writer) (path string, asJSON, ended bool, code int) {
	var paths []string
	options := true
	for _, arg := range args {
		switch {
		case options && arg == "--":
			options = false
		case options && (arg == "-h" || arg == "--help"):
			_, _ = io.WriteString(stdout, usage)
			return "", false, true, 0
		case options && (arg == "-V" || arg == "--version"):
			fmt.Fprintln(stdout, "aegis-verify-receipts", aegisagent.Version)
			return "", false, true, 0
		case options && arg == "--json" && !asJSON:
			asJSON = true
		case options && len(arg) > 1 && strings.HasPrefix(arg, "-"):
			fmt.Fprintf(stderr, "error: unexpected argument '%s'\n\n%s", arg, usage)
			return "", false, true, 2
		default:
			paths = append(paths, arg)
		}
	}
	if len(paths) != 1 {
		fmt.Fprintf(stderr, "error: exactly one path is needed\n\n%s", usage)
		return "", false, true, 2
	}
	return paths[0], asJSON, false, 0
}

// large is the size in bytes from which on waiting is worth a progress line.
const large = 32 << 20
