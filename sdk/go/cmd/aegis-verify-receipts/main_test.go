package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestExitCodesAndOutput(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	empty := write("empty.json", `{"format":"aegis-receipt-bundle-1","node":"n<1","leaves":[]}`)
	tampered := write("bad.json", `{"format":"aegis-receipt-bundle-1","node":"n1","leaves":[{"seq":7,"receipt_hash":"`+
		strings.Repeat("a", 64)+`","leaf":"{}"}]}`)
	for _, c := range []struct {
		args []string
		code int
		out  string
	}{
		{[]string{empty}, 0, "verified: 0 leaves of node `n<1`, 0 bytes\n"},
		{[]string{tampered}, 1, "TAMPERED at leaf 7 (bundle): `seq` is missing or no number\n  0 leaves before it hold\n"},
		{[]string{dir}, 2, "unreadable: cannot read the head file: No such file or directory (os error 2)\n"},
		{[]string{"--json", empty}, 0, "{\n  \"verdict\": \"verified\",\n  \"node\": \"n<1\",\n  \"leaves\": 0,"},
		{[]string{tampered, "--json"}, 1, "{\n  \"verdict\": \"tampered\",\n  \"seq\": 7,\n  \"file\": \"bundle\",\n  \"why\": "},
		{[]string{"--json", "--", dir}, 2, "{\n  \"verdict\": \"unreadable\",\n  \"why\": "},
		{nil, 2, ""},
		{[]string{empty, tampered}, 2, ""},
		{[]string{"--xml", empty}, 2, ""},
		{[]string{"--help"}, 0, "Verifies a receipt log"},
		{[]string{"-V"}, 0, "aegis-verify-receipts 0."},
	} {
		var out bytes.Buffer
		stderr, err := os.Create(filepath.Join(dir, "stderr"))
		if err != nil {
			t.Fatal(err)
		}
		code := run(c.args, &out, stderr)
		stderr.Close()
		if code != c.code || !strings.HasPrefix(out.String(), c.out) {
			t.Errorf("%s: %d %s", c.args, code, out.String())
		}
		if strings.HasPrefix(out.String(), "{") && !json.Valid(out.Bytes()) {
			t.Errorf("%s", out.String())
		}
	}
}
