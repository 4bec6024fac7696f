package main

import (
	"bytes"
	"flag"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
)

var update = flag.Bool("update", false, "write docs/reference/slipway.md anew")

// TestReference: the commands' page in docs/ says what the commands themselves say.
func TestReference(t *testing.T) {
	const path = "../../docs/reference/slipway.md"
	got := reference(t)
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("docs/reference/slipway.md is not current; run: go test ./cmd/slipway -run TestReference -update (-want +got):\n%s", diff)
	}
}

// reference is all commands on one page, in the order in which help lists them.
func reference(t *testing.T) []byte {
	for _, name := range []string{"SLIPWAY_CONTEXT", "SLIPWAY_CACHE", "SLIPWAY_LAB"} {
		t.Setenv(name, "") // a default of one's own is not everybody's
	}
	root := rootCommand()
	root.DisableAutoGenTag = true
	var page bytes.Buffer
	page.WriteString("# The slipway command\n\nMade from the commands' own help (`go test ./cmd/slipway -run TestReference -update`).\n\n")
	var write func(*cobra.Command)
	write = func(cmd *cobra.Command) {
		if err := doc.GenMarkdownCustom(cmd, &page, anchor); err != nil {
			t.Fatal(err)
		}
		for _, sub := range cmd.Commands() {
			if sub.IsAvailableCommand() {
				write(sub)
			}
		}
	}
	write(root)
	return page.Bytes()
}

// anchor is where a command's heading is on the page, instead of a file of its own.
func anchor(file string) string {
	return "#" + strings.ReplaceAll(strings.TrimSuffix(file, ".md"), "_", "-")
}
