// Package document reads the YAML documents that people write, strictly: an
// unknown field, a wrong type or a repeated key is a problem with its line,
// column and path, and one reading reports all of them. It knows nothing of
// what the documents mean; packages machine and cluster are its callers.
//
// The subset of YAML is the one that has a single meaning: one document, no
// anchors, aliases, merge keys or tags.
package document

import (
	"errors"
	"fmt"
	"reflect"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/lexer"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

// Bounds of what Decode reads, so that no input costs more than it may.
const (
	MaxSize  = 1 << 20 // bytes
	MaxDepth = 32      // collections within collections
)

// Source is a document that was read: it knows where each path stands.
type Source struct {
	name      string
	positions map[string]position // by path
	problems  Problems
}

type position struct{ line, column int }

// Decode reads the document in data into the struct that target points to.
// The name stands in front of every problem. Problems of form are kept in the
// Source, to be joined with those of meaning by Err.
func Decode(data []byte, name string, target any) *Source {
	s := &Source{name: name, positions: map[string]position{"": {1, 1}}}
	body := s.parse(data)
	if body != nil {
		r := reader{source: s}
		r.read(body, "", 0, reflect.ValueOf(target).Elem())
	}
	return s
}

// Err joins the problems found while reading with the given ones, each of
// which gets its line and column. A path that is not in the document stands
// where its nearest parent does. Where reading found a problem, what
// checking says of the same path is left out.
func (s *Source) Err(meaning Problems) error {
	all := append(Problems(nil), s.problems...)
	for _, p := range meaning {
		if !s.broken(p.Path) {
			pos := s.place(p.Path)
			all = append(all, &Problem{s.name, pos.line, pos.column, p.Path, p.Text, p.Valid})
		}
	}
	return all.Err()
}

// broken reports whether reading already complained about path or a parent of
// it. A document that could not be read at all has only that complaint.
func (s *Source) broken(path string) bool {
	for _, p := range s.problems {
		if p.Path == "" || p.Path == path || strings.HasPrefix(path, p.Path+".") || strings.HasPrefix(path, p.Path+"[") {
			return true
		}
	}
	return false
}

func (s *Source) place(path string) position {
	for {
		if pos, ok := s.positions[path]; ok {
			return pos
		}
		path = path[:max(strings.LastIndexAny(path, ".["), 0)]
	}
}

func (s *Source) add(tk *token.Token, path, text, valid string) {
	pos := position{1, 1}
	if tk != nil && tk.Position != nil {
		pos = position{tk.Position.Line, tk.Position.Column}
	}
	s.problems = append(s.problems, &Problem{s.name, pos.line, pos.column, path, text, valid})
}

// parse returns the document's body; nil when there is none to read.
func (s *Source) parse(data []byte) ast.Node {
	if len(data) > MaxSize {
		s.add(nil, "", fmt.Sprintf("the document has %d bytes", len(data)), fmt.Sprintf("at most %d", MaxSize))
		return nil
	}
	tokens := lexer.Tokenize(string(data))
	if tk := tooDeep(tokens); tk != nil {
		s.add(tk, "", "collections are nested too deeply", fmt.Sprintf("at most %d levels", MaxDepth))
		return nil
	}
	file, err := parseTokens(tokens)
	if err != nil {
		s.addSyntax(err)
		return nil
	}
	return s.onlyDocument(file)
}

// parseTokens turns a parser's panic into an error: documents come from the network too.
func parseTokens(tokens token.Tokens) (file *ast.File, err error) {
	defer func() {
		if r := recover(); r != nil {
			file, err = nil, errors.New("not YAML")
		}
	}()
	return parser.Parse(tokens, 0, parser.AllowDuplicateMapKey())
}

func (s *Source) addSyntax(err error) {
	var syntax yaml.Error
	if errors.As(err, &syntax) {
		s.add(syntax.GetToken(), "", syntax.GetMessage(), "YAML")
		return
	}
	s.add(nil, "", err.Error(), "YAML")
}

func (s *Source) onlyDocument(file *ast.File) ast.Node {
	var body ast.Node
	for _, doc := range file.Docs {
		switch {
		case doc.Body == nil:
		case body != nil:
			s.add(start(doc.Body), "", "a second document", "one document per file")
			return nil
		default:
			body = doc.Body
		}
	}
	if body == nil {
		s.add(nil, "", "the document is empty", "")
	}
	return body
}

// tooDeep returns the token that nests collections deeper than MaxDepth on
// one line, before the parser recurses into them. Nesting by indentation
// costs its own square in bytes and is bounded by MaxSize.
func tooDeep(tokens token.Tokens) *token.Token {
	flow, entries, line := 0, 0, 0
	for _, tk := range tokens {
		if tk.Position.Line != line {
			line, entries = tk.Position.Line, 0
		}
		switch tk.Type {
		case token.SequenceStartType, token.MappingStartType:
			flow++
		case token.SequenceEndType, token.MappingEndType:
			flow--
		case token.SequenceEntryType, token.MappingKeyType, token.AnchorType, token.TagType, token.MappingValueType:
			entries++
		}
		if flow > MaxDepth || entries > MaxDepth && flow == 0 {
			return tk
		}
	}
	return nil
}
