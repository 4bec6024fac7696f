package supervise

import (
	"context"
	"testing"
)

func TestCheck(t *testing.T) {
	run := Func(func(context.Context, func()) error { return nil })
	for _, test := range []struct {
		name  string
		units []Unit
		want  string
	}{
		{"none", nil, ""},
		{"sound", []Unit{{Name: "a", After: []string{"b", "c"}, Service: run}, {Name: "b", After: []string{"c"}, Service: run}, {Name: "c", Service: run}}, ""},
		{"unknown", []Unit{{Name: "a", After: []string{"b"}, Service: run}}, `unit "a": after "b", which is not a unit`},
		{"itself", []Unit{{Name: "a", After: []string{"a"}, Service: run}}, "units wait for each other: a after a"},
		{"circle", []Unit{{Name: "x", After: []string{"a"}, Service: run}, {Name: "a", After: []string{"b"}, Service: run}, {Name: "b", After: []string{"a"}, Service: run}},
			"units wait for each other: a after b after a"},
		{"twice", []Unit{{Name: "a", Service: run}, {Name: "a", Service: run}}, `unit "a": the name is empty or there twice`},
		{"nothing to run", []Unit{{Name: "a"}}, `unit "a": no service`},
	} {
		t.Run(test.name, func(t *testing.T) {
			got := ""
			if err := Check(test.units); err != nil {
				got = err.Error()
			}
			if got != test.want {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}
