package enroll

import (
	"fmt"
	"strings"

	"slipway/configs/document"
	"slipway/configs/enroll"
	"slipway/configs/machine"
	"slipway/configs/rule"
)

// RulesKind heads a file of approval rules, beside machine.APIVersion.
const RulesKind = "ApprovalRules"

// Rules say which machines need no person's approval: those that match at least
// one rule. Facts are what a machine says of itself, so rules trust the network
// that the machines stand on.
type Rules struct {
	APIVersion string `yaml:"apiVersion"`
	Kind       string `yaml:"kind"`
	Rules      []Rule `yaml:"rules"`
}

// Rule matches a machine when every field that is set does.
type Rule struct {
	// MAC is how the machine's ID begins: 52-54-00 (colons are taken too).
	MAC    string `yaml:"mac,omitempty"`
	UUID   string `yaml:"uuid,omitempty"`
	Serial string `yaml:"serial,omitempty"`
	Vendor string `yaml:"vendor,omitempty"`
}

// Any approves every machine: for a rack whose network only its owner reaches.
func Any() Rules { return Rules{Rules: []Rule{{}}} }

// ParseRules reads a file of approval rules. Its errors, joined, are all that
// is wrong with it.
func ParseRules(data []byte, name string) (Rules, error) {
	var rules Rules
	source := document.Decode(data, name, &rules)
	var ps document.Problems
	rule.Head(&ps, "apiVersion", rules.APIVersion, machine.APIVersion)
	rule.Head(&ps, "kind", rules.Kind, RulesKind)
	for i := range rules.Rules {
		r := &rules.Rules[i]
		at := document.Index("rules", i)
		if *r == (Rule{}) {
			ps.Add(at, "an empty rule would approve every machine", "mac, uuid, serial or vendor; for every machine use --approve any")
		}
		r.MAC = strings.ReplaceAll(strings.ToLower(r.MAC), ":", "-")
		if !isMACPrefix(r.MAC) {
			ps.Add(at+".mac", fmt.Sprintf("%q is not how a MAC address begins", r.MAC), "one to six pairs of hex digits, such as 52-54-00")
		}
	}
	if len(rules.Rules) == 0 {
		ps.Add("rules", "there is none", "a list with at least one rule; for no machine use --approve none")
	}
	if err := source.Err(ps); err != nil {
		return Rules{}, err
	}
	return rules, nil
}

// isMACPrefix takes whole pairs only; no prefix at all is none of its business.
func isMACPrefix(text string) bool {
	if text == "" {
		return true
	}
	pairs := strings.Split(text, "-")
	for _, pair := range pairs {
		if len(pair) != 2 || strings.Trim(pair, "0123456789abcdef") != "" {
			return false
		}
	}
	return len(pairs) <= 6
}

// Match returns what approves the machine, for the record, and whether any
// rule does.
func (r Rules) Match(id string, facts enroll.Facts) (string, bool) {
	for i, one := range r.Rules {
		if one.matches(id, facts) {
			return fmt.Sprintf("rule %d", i+1), true
		}
	}
	return "", false
}

func (r Rule) matches(id string, facts enroll.Facts) bool {
	return (r.MAC == "" || id == r.MAC || strings.HasPrefix(id, r.MAC+"-")) &&
		(r.UUID == "" || strings.EqualFold(r.UUID, facts.UUID)) &&
		(r.Serial == "" || r.Serial == facts.Serial) &&
		(r.Vendor == "" || r.Vendor == facts.Vendor)
}
