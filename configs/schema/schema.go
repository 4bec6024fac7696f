// Package schema writes the JSON schemas of the documents that people write,
// for editors and for checks elsewhere. It says what has the right form; only
// Parse in packages cluster and machine says what fits together. It is apart
// from them so that a node does not carry it.
package schema

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"reflect"
	"time"

	"github.com/invopop/jsonschema"

	"slipway/configs/cluster"
	"slipway/configs/machine"
	"slipway/configs/secret"
)

// Documents lists the names that Of knows.
func Documents() []string { return []string{"cluster", "machine"} }

// Of returns the JSON schema (draft 2020-12) of a document.
func Of(document string) ([]byte, error) {
	var value any
	switch document {
	case "cluster":
		value = &cluster.Cluster{}
	case "machine":
		value = &machine.Config{}
	default:
		return nil, fmt.Errorf("write schema: there is no document %q; valid: cluster, machine", document)
	}
	r := jsonschema.Reflector{FieldNameTag: "yaml", Mapper: mapped, Anonymous: true, RequiredFromJSONSchemaTags: true}
	s := r.Reflect(value)
	s.Title = "Slipway " + document
	data, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("write schema of %s: %w", document, err)
	}
	return append(data, '\n'), nil
}

// mapped gives the schema of types that are one text in YAML.
func mapped(t reflect.Type) *jsonschema.Schema {
	switch t {
	case reflect.TypeFor[netip.Addr]():
		return &jsonschema.Schema{Type: "string", Format: "ipv4"}
	case reflect.TypeFor[netip.Prefix]():
		return &jsonschema.Schema{Type: "string", Pattern: `^[0-9.]+/[0-9]+$`}
	case reflect.TypeFor[secret.String]():
		return &jsonschema.Schema{Type: "string", Description: "secret"}
	case reflect.TypeFor[time.Duration]():
		return &jsonschema.Schema{Type: "string", Pattern: `^-?([0-9.]+(ns|us|ms|s|m|h))+$`}
	case reflect.TypeFor[machine.Size]():
		return &jsonschema.Schema{Type: "string", Pattern: `^[0-9]+ ?([kKMGT]i?B)?$`}
	case reflect.TypeFor[machine.Disk]():
		return disk()
	case reflect.TypeFor[machine.DiskType]():
		return &jsonschema.Schema{Type: "string", Enum: []any{string(machine.NVMe), string(machine.SSD), string(machine.HDD), string(machine.VirtualDisk)}}
	case reflect.TypeFor[machine.Role]():
		return &jsonschema.Schema{Type: "string", Enum: []any{string(machine.ControlPlane), string(machine.Worker), string(machine.EtcdOnly)}}
	}
	return nil
}

// disk is a word or a rule.
func disk() *jsonschema.Schema {
	r := jsonschema.Reflector{FieldNameTag: "yaml", Mapper: mapped, Anonymous: true, RequiredFromJSONSchemaTags: true, DoNotReference: true}
	rule := r.Reflect(&machine.DiskRule{})
	rule.Version = ""
	return &jsonschema.Schema{OneOf: []*jsonschema.Schema{
		{Type: "string", Enum: []any{machine.NoDisk, machine.AnyDisk}}, rule,
	}}
}
