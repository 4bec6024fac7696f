package apiproxy

import (
	"fmt"
	"strings"
	"testing"
)

func TestChoose(t *testing.T) {
	own := func(l Level, conns int) view { return view{addr: "own", own: true, level: l, conns: conns} }
	a := func(l Level, conns int) view { return view{addr: "a", level: l, conns: conns} }
	b := func(l Level, conns int) view { return view{addr: "b", level: l, conns: conns} }
	for _, test := range []struct {
		name      string
		upstreams []view
		want      string
	}{
		{"its own, however many connections it has", []view{own(Healthy, 9), a(Healthy, 0)}, "own a"},
		{"its own, before anything is known", []view{own(Unknown, 0), a(Unknown, 0), b(Unknown, 0)}, "own"},
		{"a healthy one before its own that is not", []view{own(Unready, 0), a(Healthy, 3)}, "a own"},
		{"healthy ones by how few connections they have", []view{a(Healthy, 2), b(Healthy, 1)}, "b a"},
		{"one not asked yet before one that is not ready", []view{a(Unready, 0), b(Unknown, 0)}, "b a"},
		{"none is ready: whoever answers, its own first", []view{a(Unready, 0), own(Unready, 0), b(Dead, 0)}, "own a b"},
		{"all are dead: tried all the same", []view{own(Dead, 0), a(Dead, 1), b(Dead, 0)}, "own b a"},
		{"no upstream", nil, ""},
	} {
		var got []string
		for _, v := range choose(test.upstreams, 1) {
			got = append(got, v.addr)
		}
		if text := strings.Join(got, " "); !strings.HasPrefix(text, test.want) || len(got) != len(test.upstreams) {
			t.Errorf("%s: %s, want %s", test.name, text, test.want)
		}
	}
}

// TestNodesSpread: equal upstreams get their share of a thousand nodes, and a
// node that loses one of the others stays where it is.
func TestNodesSpread(t *testing.T) {
	var three []view
	for i := range 3 {
		three = append(three, view{addr: fmt.Sprintf("192.0.2.%d:6443", 10+i), level: Healthy})
	}
	share, moved := map[string]int{}, 0
	for seed := range uint64(1000) {
		seed *= 0x9e3779b97f4a7c15
		order := choose(three, seed)
		share[order[0].addr]++
		if without := choose([]view{order[0], order[1]}, seed); without[0].addr != order[0].addr {
			moved++
		}
	}
	for addr, n := range share {
		if n < 250 || n > 420 {
			t.Errorf("%s has %d of 1000 nodes", addr, n)
		}
	}
	if len(share) != 3 || moved > 0 {
		t.Errorf("%d upstreams are used; %d nodes moved", len(share), moved)
	}
}

func TestMustMove(t *testing.T) {
	for _, test := range []struct {
		from, other Level
		want        bool
	}{
		{Healthy, Healthy, false},
		{Unknown, Healthy, false},
		{Unready, Healthy, true},
		{Unready, Unready, false}, // etcd has lost its quorum: nothing is better elsewhere
		{Unready, Dead, false},
		{Unready, Unknown, false},
		{Dead, Healthy, true},
		{Dead, Unready, true},
		{Dead, Unknown, false},
		{Dead, Dead, false},
	} {
		from, other := view{addr: "a", level: test.from}, view{addr: "b", level: test.other}
		if got := mustMove(from, []view{from, other}); got != test.want {
			t.Errorf("from %s, the other %s: %v", test.from, test.other, got)
		}
	}
}

func TestHealth(t *testing.T) {
	names := map[rune]Result{'+': OK, '!': NotReady, '~': Slow, '.': Silent, 'x': Refused}
	for results, want := range map[string]Level{
		"":       Unknown,
		"+":      Healthy, // the first decides
		"!":      Unready,
		".":      Dead,
		"x":      Dead,
		"+!":     Healthy, // one beat missed
		"+!!":    Unready,
		"+!+!":   Healthy,
		"~":      Unready,
		"+~~":    Healthy, // busy
		"+~~~":   Unready,
		"+~~+~~": Healthy,
		"+.":     Healthy,
		"+..":    Dead, // no power
		"+.~.":   Healthy,
		"+x":     Dead, // the process is gone
		"x+":     Dead,
		"x++":    Healthy,
		"x+!+":   Dead,
		"+!!+":   Unready,
		"+!!++":  Healthy,
	} {
		h := newHealth()
		for _, r := range results {
			h = h.observe(names[r])
		}
		if h.level != want {
			t.Errorf("%q: %s, want %s", results, h.level, want)
		}
	}
}

func TestParse(t *testing.T) {
	file, err := File{Own: "127.0.0.1:6443", Others: []string{"192.0.2.11:6443"}}.Encode()
	if err != nil {
		t.Fatal(err)
	}
	if f, err := parse(file.Data); err != nil || strings.Join(f.all(), " ") != "127.0.0.1:6443 192.0.2.11:6443" {
		t.Errorf("%v, %v from %s", f, err, file.Data)
	}
	for text, complaint := range map[string]string{
		``:                         "EOF",
		`{"others":[]}`:            "no upstream",
		`{"others":["cp-1:6443"]}`: "upstream",
		`{"own":"192.0.2.1:1","others":["192.0.2.1:1"]}`: "twice",
		`{"upstreams":[]}`: "unknown field",
	} {
		if _, err := parse([]byte(text)); err == nil || !strings.Contains(err.Error(), complaint) {
			t.Errorf("%s: %v, want %q", text, err, complaint)
		}
	}
}
