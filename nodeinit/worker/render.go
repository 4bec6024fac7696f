package worker

import (
	"embed"
	"fmt"
	"strings"
	"text/template"

	"slipway/nodeinit/proc"
)

// files are the programs' configuration files, all templates.
//
//go:embed files
var files embed.FS

// render fills in one of the embedded files.
func render(name, path string, values any) (proc.File, error) {
	parsed, err := template.New(name).Option("missingkey=error").ParseFS(files, "files/"+name)
	if err != nil {
		return proc.File{}, fmt.Errorf("parse %s: %w", name, err)
	}
	var text strings.Builder
	if err := parsed.Execute(&text, values); err != nil {
		return proc.File{}, fmt.Errorf("render %s: %w", path, err)
	}
	return proc.File{Path: path, Mode: 0o644, Data: []byte(text.String())}, nil
}
