package document

import (
	"encoding"
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/token"
)

// reader walks a document and the type it is to become side by side.
type reader struct{ source *Source }

// yamlUnmarshaler is a type that reads itself from text.
type yamlUnmarshaler interface {
	UnmarshalYAML(func(any) error) error
}

// Choice is a type that is written as one of a few words, or as a mapping.
type Choice interface {
	Words() []string
	Choose(word string)
	// Mapping makes room for the mapping and returns a pointer to its struct.
	Mapping() any
}

// read sets target from node, or records why it cannot.
func (r *reader) read(node ast.Node, path string, depth int, target reflect.Value) {
	if depth > MaxDepth {
		r.source.add(node.GetToken(), path, "collections are nested too deeply", fmt.Sprintf("at most %d levels", MaxDepth))
		return
	}
	if r.mark(node, path) || node.Type() == ast.NullType {
		return
	}
	switch t := target.Addr().Interface().(type) {
	case *time.Duration:
		r.readDuration(node, path, t)
		return
	case Choice:
		r.readChoice(node, path, depth, t)
		return
	case encoding.TextUnmarshaler:
		r.readText(node, path, t, target.Type())
		return
	case yamlUnmarshaler:
		if text, ok := r.text(node, path); ok {
			_ = t.UnmarshalYAML(func(v any) error { reflect.ValueOf(v).Elem().SetString(text); return nil })
		}
		return
	}
	r.readKind(node, path, depth, target)
}

func (r *reader) readChoice(node ast.Node, path string, depth int, target Choice) {
	if _, ok := node.(ast.MapNode); ok {
		r.readKind(node, path, depth, reflect.ValueOf(target.Mapping()).Elem())
		return
	}
	valid := strings.Join(target.Words(), ", ") + ", or a mapping"
	word, ok := node.(*ast.StringNode)
	switch {
	case !ok:
		r.wrongType(node, path, valid)
	case !slices.Contains(target.Words(), word.Value):
		r.source.add(node.GetToken(), path, fmt.Sprintf("%q is not known", word.Value), valid)
	default:
		target.Choose(word.Value)
	}
}

func (r *reader) readKind(node ast.Node, path string, depth int, target reflect.Value) {
	switch target.Kind() {
	case reflect.Pointer:
		value := reflect.New(target.Type().Elem())
		r.read(node, path, depth, value.Elem())
		target.Set(value)
	case reflect.Struct:
		r.readStruct(node, path, depth, target)
	case reflect.Map:
		r.readMap(node, path, depth, target)
	case reflect.Slice:
		r.readSlice(node, path, depth, target)
	case reflect.Bool:
		if b, ok := node.(*ast.BoolNode); ok {
			target.SetBool(b.Value)
		} else {
			r.wrongType(node, path, "true or false")
		}
	case reflect.Int:
		r.readInt(node, path, target)
	case reflect.String:
		if text, ok := r.text(node, path); ok {
			target.SetString(text)
		}
	default:
		panic("document: cannot read a " + target.Type().String() + " at " + path)
	}
}

// readInt takes whole numbers.
func (r *reader) readInt(node ast.Node, path string, target reflect.Value) {
	if n, ok := node.(*ast.IntegerNode); ok {
		if value, err := strconv.ParseInt(n.Token.Value, 10, target.Type().Bits()); err == nil {
			target.SetInt(value)
			return
		}
	}
	r.wrongType(node, path, "a whole number")
}

// readDuration takes what time.ParseDuration does.
func (r *reader) readDuration(node ast.Node, path string, target *time.Duration) {
	text, ok := r.text(node, path)
	if !ok {
		return
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		r.source.add(node.GetToken(), path, fmt.Sprintf("%q is not a duration", text), "a number and a unit, such as 90s, 15m or 6h")
		return
	}
	*target = d
}

// mark remembers where path stands, and reports what has no place in a document.
func (r *reader) mark(node ast.Node, path string) (refused bool) {
	if tk := start(node); tk != nil && path != "" {
		if _, known := r.source.positions[path]; !known || isScalar(node) {
			r.source.positions[path] = position{tk.Position.Line, tk.Position.Column}
		}
	}
	switch node.(type) {
	case *ast.AnchorNode, *ast.AliasNode, *ast.TagNode, *ast.MergeKeyNode:
		r.source.add(node.GetToken(), path, "anchors, aliases, merges and tags are not taken", "the value itself")
		return true
	}
	return false
}

// start is where a node begins: a mapping at its first key, as its own token
// is the colon after that.
func start(node ast.Node) *token.Token {
	if mapping, ok := node.(ast.MapNode); ok {
		if it := mapping.MapRange(); it.Next() {
			return it.Key().GetToken()
		}
	}
	return node.GetToken()
}

func isScalar(node ast.Node) bool {
	_, ok := node.(ast.ScalarNode)
	return ok
}

func (r *reader) readStruct(node ast.Node, path string, depth int, target reflect.Value) {
	fields, names := fieldsOf(target.Type())
	for _, e := range r.entries(node, path) {
		if i, ok := fields[e.key]; ok {
			r.read(e.value, join(path, e.key), depth+1, target.Field(i))
			continue
		}
		r.source.add(e.token, join(path, e.key), "unknown field", strings.Join(names, ", "))
	}
}

// fieldsOf returns a struct's fields by their YAML name, and the names in order.
func fieldsOf(t reflect.Type) (fields map[string]int, names []string) {
	fields = map[string]int{}
	for i := range t.NumField() {
		name, _, _ := strings.Cut(t.Field(i).Tag.Get("yaml"), ",")
		fields[name] = i
		names = append(names, name)
	}
	return fields, names
}

func (r *reader) readMap(node ast.Node, path string, depth int, target reflect.Value) {
	target.Set(reflect.MakeMap(target.Type()))
	for _, e := range r.entries(node, path) {
		value := reflect.New(target.Type().Elem()).Elem()
		r.read(e.value, Key(path, e.key), depth+1, value)
		target.SetMapIndex(reflect.ValueOf(e.key), value)
	}
}

func (r *reader) readSlice(node ast.Node, path string, depth int, target reflect.Value) {
	list, ok := node.(*ast.SequenceNode)
	if !ok {
		r.wrongType(node, path, "a list")
		return
	}
	target.Set(reflect.MakeSlice(target.Type(), len(list.Values), len(list.Values)))
	for i, value := range list.Values {
		r.read(value, Index(path, i), depth+1, target.Index(i))
	}
}

// entry is one line of a mapping.
type entry struct {
	key   string
	token *token.Token
	value ast.Node
}

// entries lists a mapping's lines; a key that was there before is a problem.
func (r *reader) entries(node ast.Node, path string) []entry {
	mapping, ok := node.(ast.MapNode)
	if !ok {
		r.wrongType(node, path, "a mapping (key: value)")
		return nil
	}
	var list []entry
	seen := map[string]int{}
	for it := mapping.MapRange(); it.Next(); {
		tk := it.Key().GetToken()
		if _, merge := it.Key().(*ast.MergeKeyNode); merge {
			r.mark(it.Key(), path)
			continue
		}
		key, ok := it.Key().(*ast.StringNode)
		if !ok {
			r.source.add(tk, path, "a key that is not plain text", "text; in quotes if it looks like a number")
			continue
		}
		if line, twice := seen[key.Value]; twice {
			r.source.add(tk, join(path, key.Value), fmt.Sprintf("a second time; the first is on line %d", line), "each key once")
			continue
		}
		seen[key.Value] = tk.Position.Line
		r.source.positions[join(path, key.Value)] = position{tk.Position.Line, tk.Position.Column}
		list = append(list, entry{key.Value, tk, it.Value()})
	}
	return list
}

func (r *reader) text(node ast.Node, path string) (string, bool) {
	switch n := node.(type) {
	case *ast.StringNode:
		return n.Value, true
	case *ast.LiteralNode:
		return n.Value.Value, true
	}
	r.wrongType(node, path, "text; in quotes if it looks like something else")
	return "", false
}

func (r *reader) readText(node ast.Node, path string, target encoding.TextUnmarshaler, t reflect.Type) {
	text, ok := r.text(node, path)
	if !ok {
		return
	}
	if err := target.UnmarshalText([]byte(text)); err != nil {
		r.source.add(node.GetToken(), path, fmt.Sprintf("%q is not %s", text, described(t)), exampleOf(t))
	}
}

func described(t reflect.Type) string {
	switch t {
	case reflect.TypeFor[netip.Addr]():
		return "an IP address"
	case reflect.TypeFor[netip.Prefix]():
		return "a subnet"
	}
	if name, ok := reflect.New(t).Interface().(interface{ Described() (what, example string) }); ok {
		what, _ := name.Described()
		return what
	}
	return "a " + t.Name()
}

func exampleOf(t reflect.Type) string {
	switch t {
	case reflect.TypeFor[netip.Addr]():
		return "an address such as 10.0.0.11"
	case reflect.TypeFor[netip.Prefix]():
		return "an address and a prefix length, such as 10.244.0.0/16"
	}
	if name, ok := reflect.New(t).Interface().(interface{ Described() (what, example string) }); ok {
		_, example := name.Described()
		return example
	}
	return ""
}

func (r *reader) wrongType(node ast.Node, path, want string) {
	r.source.add(start(node), path, "this is "+kindOf(node), want)
}

func kindOf(node ast.Node) string {
	switch node.(type) {
	case ast.MapNode:
		return "a mapping"
	case *ast.SequenceNode:
		return "a list"
	case *ast.BoolNode:
		return "true or false"
	case *ast.IntegerNode, *ast.FloatNode, *ast.InfinityNode, *ast.NanNode:
		return "a number"
	case *ast.StringNode, *ast.LiteralNode:
		return "text"
	}
	return "a " + strings.ToLower(node.Type().String())
}

func join(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}

// Key is the path of a key in the mapping at path, for keys that people choose.
func Key(path, key string) string { return path + "[" + strconv.Quote(key) + "]" }

// Index is the path of an element of the list at path, counted from 0.
func Index(path string, i int) string { return path + "[" + strconv.Itoa(i) + "]" }
