package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/spf13/cobra"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
)

// checkOutput refuses formats that do not exist before anything is done.
func checkOutput(format string) error {
	switch format {
	case "table", "json", "yaml":
		return nil
	}
	return fmt.Errorf("%w: -o %s is not known; valid: table, json, yaml", errUsage, format)
}

// oneOf has a shell know the words that a flag may have.
func oneOf(cmd *cobra.Command, flag string, words ...string) {
	if err := cmd.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(words, cobra.ShellCompDirectiveNoFileComp)); err != nil {
		panic(err) // there is no such flag: a mistake in this program
	}
}

// show prints a message in the format a person asked for.
func show(w io.Writer, format string, m proto.Message, table func(io.Writer)) error {
	if format == "table" {
		columns := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
		table(columns)
		return columns.Flush()
	}
	text, err := protojson.MarshalOptions{UseProtoNames: true, EmitDefaultValues: true}.Marshal(m)
	if err != nil {
		return fmt.Errorf("encode answer: %w", err)
	}
	if format == "yaml" {
		if text, err = yaml.JSONToYAML(text); err != nil {
			return fmt.Errorf("encode answer: %w", err)
		}
		_, err = w.Write(text)
		return err
	}
	var out bytes.Buffer
	if err := json.Indent(&out, text, "", "  "); err != nil { // protojson's own spaces differ from build to build
		return fmt.Errorf("encode answer: %w", err)
	}
	_, err = fmt.Fprintln(w, out.String())
	return err
}

// row prints one line of a table.
func row(w io.Writer, columns ...any) {
	text := make([]string, len(columns))
	for i, column := range columns {
		if text[i] = fmt.Sprint(column); text[i] == "" {
			text[i] = "-"
		}
	}
	fmt.Fprintln(w, strings.Join(text, "\t"))
}

// size is a number of bytes for people.
func size(bytes uint64) string {
	switch {
	case bytes >= 1<<30:
		return fmt.Sprintf("%.1f GiB", float64(bytes)/(1<<30))
	case bytes > 0:
		return fmt.Sprintf("%d MiB", bytes>>20)
	}
	return ""
}

// ago is how long ago a time was, for people.
func ago(at, now time.Time) string {
	if at.IsZero() || at.Unix() == 0 {
		return "never"
	}
	return now.Sub(at).Round(time.Second).String() + " ago"
}
