package etcd

import (
	"slices"
	"strings"
	"testing"
)

const self, cluster, generation = uint64(1), uint64(100), 2

func others(healthy int, learner bool) []Member {
	list := []Member{{ID: 2, Name: "b", PeerURL: "https://b:2380"}, {ID: 3, Name: "c", PeerURL: "https://c:2380"}}
	for i := range list {
		list[i].Healthy = i < healthy
	}
	if learner {
		list = append(list, Member{ID: 4, Name: "d", PeerURL: "https://d:2380", Learner: true, Healthy: true})
	}
	return list
}

// seats are what a list may say of this machine.
var seats = map[string][]Member{
	"absent":          nil,
	"this member":     {{ID: self, Name: "a", PeerURL: "https://a:2380"}},
	"dead namesake":   {{ID: 9, Name: "a", PeerURL: "https://old:2380"}},
	"live namesake":   {{ID: 9, Name: "a", PeerURL: "https://old:2380", Healthy: true}},
	"never started":   {{ID: 9, PeerURL: "https://a:2380", Learner: true}},
	"address of dead": {{ID: 9, Name: "old", PeerURL: "https://a:2380"}},
	"address of live": {{ID: 9, Name: "old", PeerURL: "https://a:2380", Healthy: true}},
}

// TestEveryCombination walks through all facts, and keeps to what must never be.
func TestEveryCombination(t *testing.T) {
	count, kinds := 0, map[Kind]int{}
	for f := range everything() {
		count++
		a := Decide(f)
		kinds[a.Kind]++
		if problem := broken(f, a); problem != "" {
			t.Fatalf("%s: %+v\nfor %+v", problem, a, f)
		}
		if again := Decide(f); again.Kind != a.Kind || again.What != a.What || again.Member != a.Member {
			t.Fatalf("the same facts gave %+v and %+v", a, again)
		}
	}
	t.Logf("%d combinations: %v", count, kinds)
	for _, k := range []Kind{Start, Join, Bootstrap, Restore, Recover, Add, RemoveStale, Wait, Refuse} {
		if kinds[k] == 0 {
			t.Errorf("nothing leads to %s", k)
		}
	}
}

func everything() func(func(Facts) bool) {
	return func(yield func(Facts) bool) {
		for _, f := range machines() {
			for _, seen := range views() {
				f.Seen = seen
				if !yield(f) {
					return
				}
			}
		}
	}
}

// machines are the combinations of what a machine knows by itself.
func machines() []Facts {
	var all []Facts
	flags := []bool{false, true}
	for _, intended := range [][]string{{"a"}, {"a", "b", "c"}, {"b", "c"}} {
		for _, grant := range []*Grant{nil, {}, {Snapshot: "s"}, {Recover: true}} {
			for _, record := range []Record{NoRecord, Begun, Done} {
				for _, data := range []Data{{}, {State: Ours, MemberID: self, ClusterID: cluster}, {State: Ours, MemberID: self, ClusterID: 200}, {State: Unreadable}, {State: Foreign}, {State: Left}} {
					for _, previous := range flags {
						for _, slow := range []string{"", "slow"} {
							for _, clock := range []string{"", "1970"} {
								all = append(all, Facts{Name: "a", PeerURL: "https://a:2380", Generation: generation, Intended: intended,
									Grant: grant, Record: record, Data: data, Previous: previous, SlowDisk: slow, Clock: clock})
							}
						}
					}
				}
			}
		}
	}
	return all
}

// views are the combinations of what the others may answer.
func views() [][]View {
	all := [][]View{nil}
	for _, gen := range []int{0, 1, 2, 3} {
		all = append(all, []View{{From: "d", ClusterID: cluster, Generation: gen, Blind: true}})
	}
	for _, seat := range seats {
		for healthy := range 3 {
			for _, learner := range []bool{false, true} {
				for _, quorum := range []bool{false, true} {
					for _, gen := range []int{0, 1, 2, 3} {
						v := View{From: "b", ClusterID: cluster, Generation: gen, Quorum: quorum, Members: append(slices.Clone(seat), others(healthy, learner)...)}
						all = append(all, []View{v}, []View{v, {From: "c", ClusterID: 200, Generation: 2, Quorum: true, Members: others(2, false)}})
					}
				}
			}
		}
	}
	return all
}

// broken says which rule an action breaks.
func broken(f Facts, a Action) string {
	begins := slices.Contains([]Kind{Bootstrap, Restore, Recover}, a.Kind)
	runs := begins || slices.Contains([]Kind{Start, Join, Add, RemoveStale}, a.Kind)
	current := f.current()
	switch {
	case begins && slices.ContainsFunc(f.Seen, f.isCurrent):
		return "begins a cluster that answers"
	case begins && (f.Grant == nil || f.Record == Done):
		return "begins without leave, or twice"
	case begins && f.Data.State != NoData:
		return "begins over data"
	case a.Kind == Bootstrap && len(f.Seen) > 0:
		return "begins an empty cluster though a member answers"
	case runs && (f.Data.State == Foreign || f.Data.State == Left || f.Clock != ""):
		return "touches data that is not to be touched"
	case runs && f.Data.State == Ours && len(current) > 0 && current[0].ClusterID != f.Data.ClusterID:
		return "touches another cluster's data"
	case a.Kind == Start && f.Data.State != Ours:
		return "starts without data"
	case a.Kind == Start && len(current) > 0 && !listed(best(current)):
		return "starts a member that is none"
	case a.Kind != Join && a.Kind != Add && a.Aside:
		return "moves data for nothing"
	case a.Aside && (len(current) == 0 || !best(current).Quorum):
		return "moves data aside without a quorum to join"
	case a.Kind == RemoveStale && !QuorumWithout(best(current).Members, a.Member):
		return "removes a member that is needed"
	case a.Kind == RemoveStale && (a.Member == f.Data.MemberID || !namesake(best(current), a.Member)):
		return "removes another's member"
	case (begins || a.Kind == Add || a.Kind == Join) && f.SlowDisk != "":
		return "a new member on a slow disk"
	case (a.Kind == Wait || a.Kind == Refuse) && (a.What == "" || a.Next == ""):
		return "says nothing"
	}
	return ""
}

func listed(v View) bool {
	return slices.ContainsFunc(v.Members, func(m Member) bool { return m.ID == self })
}

func namesake(v View, id uint64) bool {
	return slices.ContainsFunc(v.Members, func(m Member) bool { return m.ID == id && m.Name == "a" && !m.Healthy })
}

// TestTable: the cases that people meet, by name.
func TestTable(t *testing.T) {
	seat := func(name string, healthy int) []View {
		return []View{{From: "b", ClusterID: cluster, Generation: 2, Quorum: healthy > 1, Members: append(slices.Clone(seats[name]), others(healthy, false)...)}}
	}
	ours := Data{State: Ours, MemberID: self, ClusterID: cluster}
	older := []View{{From: "b", ClusterID: 50, Generation: 1, Quorum: true, Members: others(2, false)}}
	tests := []struct {
		name  string
		facts Facts
		want  Kind
		text  string
	}{
		{"the first machine", Facts{Grant: &Grant{}}, Bootstrap, ""},
		{"the first machine, after a crash before etcd ran", Facts{Grant: &Grant{}, Record: Begun}, Bootstrap, ""},
		{"the first machine, after a crash when etcd ran", Facts{Grant: &Grant{}, Record: Begun, Data: ours}, Start, ""},
		{"its disk was wiped afterwards", Facts{Grant: &Grant{}, Record: Done}, Refuse, "not begun twice"},
		{"its disk was wiped, and the others go on", Facts{Grant: &Grant{}, Record: Done, Seen: seat("dead namesake", 2)}, RemoveStale, ""},
		{"a second machine told at once", Facts{Grant: &Grant{}, Seen: seat("absent", 2)}, Add, ""},
		{"a machine that is to join, too early", Facts{}, Wait, "no other member answers"},
		{"a machine that is to join", Facts{Seen: seat("absent", 2)}, Add, ""},
		{"it crashed after it was added", Facts{Seen: seat("never started", 2)}, Join, ""},
		{"the power comes back", Facts{Data: ours}, Start, ""},
		{"a restart among others", Facts{Data: ours, Seen: seat("this member", 2)}, Start, ""},
		{"a restart among others that have no quorum without it", Facts{Data: ours, Seen: seat("this member", 1)}, Start, ""},
		{"it was removed while it was off", Facts{Data: ours, Seen: seat("absent", 2)}, Add, ""},
		{"it was replaced while it was off", Facts{Data: ours, Seen: seat("live namesake", 2)}, Refuse, "has the name a too"},
		{"a replacement for a dead machine", Facts{Seen: seat("dead namesake", 2)}, RemoveStale, ""},
		{"a replacement that would cost the quorum", Facts{Seen: []View{{From: "b", ClusterID: cluster, Generation: 2, Quorum: true, Members: append(slices.Clone(seats["dead namesake"]), others(1, false)...)}}}, Wait, "no quorum without"},
		{"two machines of one name", Facts{Seen: seat("live namesake", 2)}, Refuse, "rename or switch off"},
		{"damaged data, alone", Facts{Intended: []string{"a"}, Data: Data{State: Unreadable, Problem: "crc mismatch"}}, Refuse, "(crc mismatch) and is kept"},
		{"damaged data, a quorum of others", Facts{Data: Data{State: Unreadable}, Seen: seat("dead namesake", 2)}, RemoveStale, ""},
		{"damaged data, no quorum of others", Facts{Data: Data{State: Unreadable}, Seen: seat("dead namesake", 1)}, Wait, "cannot be read"},
		{"a clock that is years off", Facts{Data: ours, Clock: "it shows 2006", Seen: seat("this member", 2)}, Wait, "it shows 2006; nothing was changed, and the data is kept; set the clock"},
		{"a new member on a slow disk", Facts{SlowDisk: "300ms", Seen: seat("absent", 2)}, Refuse, "300ms; another disk, or etcd.allowSlowDisk"},
		{"a replacement on a slow disk", Facts{SlowDisk: "300ms", Seen: seat("dead namesake", 2)}, Refuse, "300ms; another disk, or etcd.allowSlowDisk"},
		{"the first machine, on a slow disk", Facts{SlowDisk: "300ms", Grant: &Grant{}}, Refuse, "300ms; another disk, or etcd.allowSlowDisk"},
		{"a member whose disk became slow", Facts{SlowDisk: "300ms", Data: ours, Seen: seat("this member", 2)}, Start, ""},
		{"a lone member whose disk became slow", Facts{SlowDisk: "300ms", Intended: []string{"a"}, Data: ours}, Start, ""},
		{"a restore, while the old generation still runs", Facts{Grant: &Grant{Snapshot: "s"}, Seen: older}, Restore, ""},
		{"a recovery", Facts{Grant: &Grant{Recover: true}, Previous: true, Seen: older}, Recover, ""},
		{"a recovery without data", Facts{Grant: &Grant{Recover: true}}, Refuse, "no data of an earlier generation"},
		{"an empty cluster beside the old one", Facts{Grant: &Grant{}, Seen: older}, Refuse, "would forget"},
		{"the others wait for the restored one", Facts{Seen: older}, Wait, "no other member answers"},
		{"a config that is behind", Facts{Data: ours, Seen: []View{{From: "b", ClusterID: cluster, Generation: 3}}}, Wait, "generation 3"},
	}
	for _, tt := range tests {
		f := tt.facts
		f.Name, f.PeerURL, f.Generation = "a", "https://a:2380", generation
		if f.Intended == nil {
			f.Intended = []string{"a", "b", "c"}
		}
		if a := Decide(f); a.Kind != tt.want || !strings.Contains(a.Text(), tt.text) {
			t.Errorf("%s: %s: %s; want %s: %s", tt.name, a.Kind, a.Text(), tt.want, tt.text)
		}
	}
}

func TestQuorumWithout(t *testing.T) {
	voter := func(id uint64, healthy bool) Member { return Member{ID: id, Healthy: healthy} }
	tests := []struct {
		members []Member
		want    bool
	}{
		{[]Member{voter(1, true)}, false}, // the last one stays
		{[]Member{voter(1, false), voter(2, true)}, false},
		{[]Member{voter(1, true), voter(2, true)}, true},
		{[]Member{voter(1, false), voter(2, true), voter(3, true)}, true},
		{[]Member{voter(1, true), voter(2, true), voter(3, false)}, false},
		{[]Member{{ID: 1, Learner: true}, voter(2, true)}, true},
	}
	for i, tt := range tests {
		if got := QuorumWithout(tt.members, 1); got != tt.want {
			t.Errorf("case %d: %t, want %t", i, got, tt.want)
		}
	}
}
