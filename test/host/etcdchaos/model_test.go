package etcdchaos

import (
	"errors"
	"testing"
	"time"
)

// TestLinearizable checks the checker: it must find what it is there for.
func TestLinearizable(t *testing.T) {
	unknown := errors.New("timeout")
	wrote := func(value string, from, to time.Duration) operation {
		return operation{kind: put, value: value, invoked: from, ended: to}
	}
	read := func(value string, from, to time.Duration) operation {
		return operation{kind: get, got: value, invoked: from, ended: to}
	}
	swap := func(expect, value string, ok bool, got string, from, to time.Duration) operation {
		return operation{kind: cas, expect: expect, value: value, swapped: ok, got: got, invoked: from, ended: to}
	}
	maybe := func(o operation) operation { o.err = unknown; return o }
	for name, c := range map[string]struct {
		operations []operation
		want       bool
	}{
		"one after the other":                     {[]operation{wrote("a", 0, 1), read("a", 2, 3), wrote("b", 4, 5), read("b", 6, 7)}, true},
		"an old value after a new one":            {[]operation{wrote("a", 0, 1), wrote("b", 2, 3), read("a", 4, 5)}, false},
		"either, while it is written":             {[]operation{wrote("a", 0, 1), wrote("b", 2, 9), read("b", 3, 4), read("b", 5, 6)}, true},
		"the new one and then the old one":        {[]operation{wrote("a", 0, 1), wrote("b", 2, 9), read("b", 3, 4), read("a", 5, 6)}, false},
		"a lost write":                            {[]operation{wrote("a", 0, 1), read("", 2, 3)}, false},
		"a swap":                                  {[]operation{wrote("a", 0, 1), swap("a", "b", true, "", 2, 3), read("b", 4, 5)}, true},
		"two swaps of one value":                  {[]operation{wrote("a", 0, 1), swap("a", "b", true, "", 2, 5), swap("a", "c", true, "", 2, 5)}, false},
		"a swap refused, rightly":                 {[]operation{wrote("a", 0, 1), swap("x", "b", false, "a", 2, 3)}, true},
		"a swap refused, wrongly":                 {[]operation{wrote("a", 0, 1), swap("a", "b", false, "a", 2, 3)}, false},
		"unknown, and it did not happen":          {[]operation{wrote("a", 0, 1), maybe(wrote("b", 2, 3)), read("a", 4, 5)}, true},
		"unknown, and it happened later":          {[]operation{wrote("a", 0, 1), maybe(wrote("b", 2, 3)), read("a", 4, 5), read("b", 6, 7)}, true},
		"unknown, and undone":                     {[]operation{wrote("a", 0, 1), maybe(wrote("b", 2, 3)), read("b", 4, 5), read("a", 6, 7)}, false},
		"a swap unknown, and it happened":         {[]operation{wrote("a", 0, 1), maybe(swap("a", "b", false, "", 2, 3)), read("b", 4, 5)}, true},
		"a swap unknown, of what was not there":   {[]operation{wrote("a", 0, 1), maybe(swap("x", "b", false, "", 2, 3)), read("b", 4, 5)}, false},
		"a read of unknown outcome says nothing":  {[]operation{wrote("a", 0, 1), maybe(read("x", 2, 3)), read("a", 4, 5)}, true},
		"a value that nobody wrote":               {[]operation{wrote("a", 0, 1), read("z", 2, 3)}, false},
		"a value before it was asked to be there": {[]operation{read("a", 0, 1), maybe(wrote("a", 2, 3))}, false},
	} {
		if got := linearizable(c.operations); got != c.want {
			t.Errorf("%s: %t, want %t", name, got, c.want)
		}
	}
}
