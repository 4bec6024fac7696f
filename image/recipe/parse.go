package recipe

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
)

// Read parses and validates a recipe file.
func Read(file string) (*Recipe, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("read recipe: %w", err)
	}
	return Parse(file, data)
}

// Parse decodes a recipe strictly and validates it. Every error names the file,
// the line and the column; all problems are reported at once.
func Parse(file string, data []byte) (*Recipe, error) {
	doc, err := parser.ParseBytes(data, 0)
	if err != nil {
		return nil, located(file, err)
	}
	if len(doc.Docs) != 1 || doc.Docs[0].Body == nil {
		return nil, fmt.Errorf("%s: want one YAML document, found %d", file, len(doc.Docs))
	}
	var r Recipe
	if err := yaml.NodeToValue(doc.Docs[0].Body, &r, yaml.Strict()); err != nil {
		return nil, located(file, err)
	}
	var errs []error
	for _, p := range r.problems() {
		line, column := position(doc, p.path)
		errs = append(errs, fmt.Errorf("%s:%d:%d: %s: %s", file, line, column, p.path, p.text))
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	return &r, nil
}

// located puts file, line and column before a decoder's message.
func located(file string, err error) error {
	var y yaml.Error
	if errors.As(err, &y) && y.GetToken() != nil {
		at := y.GetToken().Position
		return fmt.Errorf("%s:%d:%d: %s", file, at.Line, at.Column, y.GetMessage())
	}
	return fmt.Errorf("%s: %w", file, err)
}

// position returns where the value at a path stands, or its nearest parent
// when it is absent.
func position(doc *ast.File, path string) (line, column int) {
	for ; path != ""; path = parent(path) {
		p, err := yaml.PathString("$." + path)
		if err != nil {
			continue
		}
		if node, err := p.FilterFile(doc); err == nil && node != nil {
			at := node.GetToken().Position
			return at.Line, at.Column
		}
	}
	return 1, 1
}

// parent cuts the last ".field" or "[index]".
func parent(path string) string {
	for i := len(path) - 1; i > 0; i-- {
		if path[i] == '.' || path[i] == '[' {
			return path[:i]
		}
	}
	return ""
}

// Perm returns the permission bits written as octal text, or def when there is
// no text. Validated recipes never give an error.
func Perm(text string, def fs.FileMode) (fs.FileMode, error) {
	if text == "" {
		return def, nil
	}
	n, err := strconv.ParseUint(text, 8, 32)
	if err != nil || n > 0o1777 {
		return 0, fmt.Errorf("%q is not a mode; want octal digits such as \"0644\"", text)
	}
	mode := fs.FileMode(n & 0o777)
	if n&0o1000 != 0 {
		mode |= fs.ModeSticky
	}
	return mode, nil
}
