package command

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// maxExample is how many lines of an example's answer the documentation shows.
const maxExample = 14

// TestDocs compares docs/commands.md with the table of commands and with what
// the examples in it answer now. LAB_UPDATE=1 writes the file.
func TestDocs(t *testing.T) {
	env := fixtureEnv(t)
	var b strings.Builder
	b.WriteString("# crashkit's commands\n\n" +
		"<!-- Made from the table of commands by LAB_UPDATE=1 go test ./crashkit/command -run TestDocs. DO NOT EDIT. -->\n\n" +
		"ADDRESS is a symbol, `module:symbol`, or a hexadecimal number with or without 0x, and may have an offset: `schedule+0x20`.\n" +
		"COUNT is decimal, or hexadecimal with 0x. Letters of flags may be joined (`-rx`), and flags may stand behind operands.\n" +
		"With `--json`, crashkit writes each answer as one object: `command`, `args`, `result`, `partial`, `error`.\n" +
		"The examples are of a kernel that a module crashed with a NULL pointer.\n\n")
	for _, c := range Table() {
		fmt.Fprintf(&b, "- [%s](#%s): %s\n", c.Name, c.Name, c.Summary)
	}
	for _, c := range Table() {
		fmt.Fprintf(&b, "\n## %s\n\n`%s`\n", c.Name, c.Usage())
		if len(c.Aliases) > 0 {
			fmt.Fprintf(&b, "(also `%s`)\n", strings.Join(c.Aliases, "`, `"))
		}
		fmt.Fprintf(&b, "\n%s\n", c.Help)
		for i, f := range c.Flags {
			if i == 0 {
				b.WriteString("\n| flag | meaning |\n|---|---|\n")
			}
			fmt.Fprintf(&b, "| `%s` | %s |\n", f, f.Help)
		}
		for _, e := range c.Examples {
			fmt.Fprintf(&b, "\n```\ncrashkit> %s\n", e)
			out := strings.SplitAfter(answer(t, env, e), "\n")
			if len(out) > maxExample {
				out = append(out[:maxExample], "…\n")
			}
			for _, l := range out {
				if len(l) > 132 {
					l = l[:131] + "…\n"
				}
				b.WriteString(l)
			}
			b.WriteString("```\n")
		}
	}
	path := filepath.Join("..", "docs", "commands.md")
	if os.Getenv("LAB_UPDATE") == "1" {
		if err := os.WriteFile(path, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(b.String(), string(got)); diff != "" {
		t.Errorf("docs/commands.md is not current, run LAB_UPDATE=1 go test ./crashkit/command -run TestDocs (-want +file):\n%s", diff)
	}
}
