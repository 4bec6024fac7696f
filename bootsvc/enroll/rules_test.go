package enroll

import (
	"os"
	"strings"
	"testing"

	"slipway/configs/enroll"
)

const head = "apiVersion: slipway/v1\nkind: ApprovalRules\n"

func TestRulesMatch(t *testing.T) {
	facts := enroll.Facts{UUID: "ABCD-1", Serial: "S1", Vendor: "QEMU"}
	tests := map[string]struct {
		rules string
		want  string // the rule's name; empty for none
	}{
		"MAC prefix":          {"- mac: 52-54-00", "rule 1"},
		"MAC with colons":     {"- mac: \"52:54:00\"", "rule 1"},
		"whole MAC":           {"- mac: 52-54-00-12-34-56", "rule 1"},
		"other MAC":           {"- mac: 52-54-01", ""},
		"UUID in either case": {"- uuid: abcd-1", "rule 1"},
		"serial":              {"- serial: S1", "rule 1"},
		"vendor":              {"- vendor: QEMU", "rule 1"},
		"all of a rule":       {"- mac: 52-54-00\n  vendor: QEMU\n  serial: S1", "rule 1"},
		"most of a rule":      {"- mac: 52-54-00\n  vendor: QEMU\n  serial: S2", ""},
		"the second rule":     {"- serial: S2\n- vendor: QEMU", "rule 2"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			rules, err := ParseRules([]byte(head+"rules:\n"+test.rules), "rules.yaml")
			if err != nil {
				t.Fatal(err)
			}
			if got, ok := rules.Match("52-54-00-12-34-56", facts); got != test.want || ok != (test.want != "") {
				t.Errorf("matched by %q, %v; want %q", got, ok, test.want)
			}
		})
	}
}

func TestNoRulesApproveNothingAndAnyApprovesAll(t *testing.T) {
	if by, ok := (Rules{}).Match("52-54-00-12-34-56", enroll.Facts{}); ok {
		t.Errorf("approved by %s", by)
	}
	if _, ok := Any().Match("52-54-00-12-34-56", enroll.Facts{}); !ok {
		t.Error("any did not approve")
	}
}

func TestBadRulesAreNamed(t *testing.T) {
	for name, test := range map[string]struct{ text, want string }{
		"empty rule":         {head + "rules:\n- {}", "rules.yaml:4:"},
		"no rules":           {head + "rules: []", "--approve none"},
		"unknown field":      {head + "rules:\n- macs: 52-54-00", "unknown field"},
		"half a pair":        {head + "rules:\n- mac: 52-5", "not how a MAC address begins"},
		"no hex":             {head + "rules:\n- mac: zz", "not how a MAC address begins"},
		"seven pairs":        {head + "rules:\n- mac: 52-54-00-12-34-56-78", "not how a MAC address begins"},
		"another kind":       {"apiVersion: slipway/v1\nkind: Cluster\nrules:\n- vendor: QEMU", "ApprovalRules"},
		"no document at all": {"", "empty"},
	} {
		if _, err := ParseRules([]byte(test.text), "rules.yaml"); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v, want %q in it", name, err, test.want)
		}
	}
}

func FuzzParseRules(f *testing.F) {
	f.Add([]byte(head + "rules:\n- mac: 52-54-00\n  vendor: QEMU\n"))
	f.Add([]byte(head + "rules:\n- {}\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		rules, err := ParseRules(text, "rules.yaml")
		if err != nil {
			return
		}
		if by, ok := rules.Match("", enroll.Facts{}); ok {
			t.Errorf("%s approves a machine of which nothing is known: %q", by, text)
		}
	})
}

func TestExampleRules(t *testing.T) {
	const file = "../../configs/examples/rules.yaml"
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	rules, err := ParseRules(data, file)
	if err != nil || len(rules.Rules) != 2 {
		t.Errorf("%+v, %v", rules, err)
	}
}
