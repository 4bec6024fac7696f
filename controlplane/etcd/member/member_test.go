package member

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect"
	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"go.etcd.io/etcd/client/pkg/v3/fileutil"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/storage/wal"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"slipway/controlplane/etcd"
	"slipway/controlplane/pki"
)

// newData makes what etcd leaves on a disk, as far as it is looked at.
func newData(t *testing.T, s store, generation int) string {
	t.Helper()
	dir := s.data(generation)
	must(t, os.MkdirAll(dir+"/member/snap", 0o700))
	metadata, err := proto.Marshal(&etcdserverpb.Metadata{NodeID: proto.Uint64(7), ClusterID: proto.Uint64(9)})
	must(t, err)
	w, err := wal.Create(nil, dir+"/member/wal", metadata)
	must(t, err)
	for i := range uint64(20) {
		entry := &raftpb.Entry{Term: proto.Uint64(1), Index: proto.Uint64(i + 1), Data: []byte(strings.Repeat("data", 20))}
		must(t, w.Save(&raftpb.HardState{Term: proto.Uint64(1), Commit: proto.Uint64(i)}, []*raftpb.Entry{entry}))
	}
	must(t, w.Close())
	db := make([]byte, 8192)
	copy(db[16:], "\xed\xda\x0c\xed")
	must(t, os.WriteFile(dir+"/member/snap/db", db, 0o600))
	return dir
}

func logFile(t *testing.T, dir string) string {
	t.Helper()
	names, err := walFiles(dir)
	must(t, err)
	return names[0]
}

func overwrite(t *testing.T, path string, at int64, text string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	must(t, err)
	_, err = f.WriteAt([]byte(text), at)
	must(t, errors.Join(err, f.Close()))
}

func TestLook(t *testing.T) {
	tests := map[string]struct {
		prepare func(t *testing.T, s store)
		want    etcd.DataState
		problem string
	}{
		"nothing":              {func(*testing.T, store) {}, etcd.NoData, ""},
		"cut off at first":     {func(t *testing.T, s store) { must(t, os.MkdirAll(s.data(1)+"/member/snap", 0o700)) }, etcd.NoData, ""},
		"sound":                {func(t *testing.T, s store) { newData(t, s, 1) }, etcd.Ours, ""},
		"another generation's": {func(t *testing.T, s store) { newData(t, s, 2) }, etcd.NoData, ""},
		"damaged log":          {func(t *testing.T, s store) { overwrite(t, logFile(t, newData(t, s, 1)), 900, "xxxxxxxx") }, etcd.Unreadable, "log is damaged"},
		"empty log":            {func(t *testing.T, s store) { must(t, os.Truncate(logFile(t, newData(t, s, 1)), 0)) }, etcd.Unreadable, "no beginning"},
		"damaged database": {func(t *testing.T, s store) {
			must(t, os.WriteFile(newData(t, s, 1)+"/member/snap/db", make([]byte, 8192), 0o600))
		}, etcd.Unreadable, "does not begin like one"},
		"no database": {func(t *testing.T, s store) { must(t, os.Remove(newData(t, s, 1)+"/member/snap/db")) }, etcd.Unreadable, "no such file"},
		"left": {func(t *testing.T, s store) {
			newData(t, s, 1)
			must(t, s.setMark(1, mark{Cluster: "prod", Left: true}))
		}, etcd.Left, ""},
		"another cluster's": {func(t *testing.T, s store) { newData(t, s, 1); must(t, s.setMark(1, mark{Cluster: "test"})) }, etcd.Foreign, "of test, not of prod"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s := store{t.TempDir()}
			tt.prepare(t, s)
			data, err := s.look(1, "prod")
			must(t, err)
			if data.State != tt.want || !strings.Contains(data.Problem, tt.problem) {
				t.Errorf("%+v, want %d: %s", data, tt.want, tt.problem)
			}
			if data.State == etcd.Ours && (data.MemberID != 7 || data.ClusterID != 9) {
				t.Errorf("%+v is not what was written", data)
			}
		})
	}
}

// TestPowerCut: a log whose last record was cut off is what etcd repairs.
func TestPowerCut(t *testing.T) {
	s := store{t.TempDir()}
	path := logFile(t, newData(t, s, 1))
	text, err := os.ReadFile(path)
	must(t, err)
	end := int64(len(strings.TrimRight(string(text), "\x00")))
	must(t, os.Truncate(path, end-20))
	if data := readData(s.data(1)); data.State != etcd.Ours {
		t.Errorf("%+v", data)
	}
}

func TestInUse(t *testing.T) {
	s := store{t.TempDir()}
	dir := newData(t, s, 1)
	if used, err := inUse(dir); used || err != nil {
		t.Fatalf("nobody runs: %t, %v", used, err)
	}
	lock, err := fileutil.TryLockFile(logFile(t, dir), os.O_WRONLY, 0o600)
	must(t, err)
	defer lock.Close()
	if used, err := inUse(dir); !used || err != nil {
		t.Errorf("an etcd runs: %t, %v", used, err)
	}
}

func TestRecord(t *testing.T) {
	s := store{t.TempDir()}
	must(t, s.setRecord(record{Token: "one", Generation: 2, Done: true}))
	for _, tt := range []struct {
		token      string
		generation int
		want       etcd.Record
	}{{"one", 2, etcd.Done}, {"one", 3, etcd.NoRecord}, {"two", 2, etcd.NoRecord}} {
		r, err := s.record(tt.token, tt.generation)
		must(t, err)
		if got := progress(r); got != tt.want {
			t.Errorf("%s of %d: %d, want %d", tt.token, tt.generation, got, tt.want)
		}
	}
}

// TestAside: what was moved aside last is kept, what was before is not.
func TestAside(t *testing.T) {
	s := store{t.TempDir()}
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for i := range 3 {
		newData(t, s, 1)
		kept, err := s.aside(1, "corrupt", now.Add(time.Duration(i)*time.Hour))
		must(t, err)
		if data := readData(kept); data.State != etcd.Ours {
			t.Errorf("%s holds %+v", kept, data)
		}
	}
	if kept, err := filepath.Glob(s.dir + "/*"); err != nil || len(kept) != 1 || !strings.HasSuffix(kept[0], "1.corrupt-20260101T020000Z") {
		t.Errorf("kept are %v, %v", kept, err)
	}
}

// TestForget: the generation before this one stays, older ones go.
func TestForget(t *testing.T) {
	s := store{t.TempDir()}
	for _, name := range []string{"1", "1.json", "1.leader.json", "1.corrupt-20260101T000000Z", "2", "2.json", "3", "bootstrap.json"} {
		must(t, os.MkdirAll(filepath.Join(s.dir, name), 0o700))
	}
	must(t, s.forget(3))
	var left []string
	entries, err := os.ReadDir(s.dir)
	must(t, err)
	for _, e := range entries {
		left = append(left, e.Name())
	}
	if got := strings.Join(left, " "); got != "2 2.json 3 bootstrap.json" {
		t.Errorf("left are %s", got)
	}
}

// TestLeaderSeen: when there was a leader is written down now and then, and read
// by the next process; a generation knows nothing of another's.
func TestLeaderSeen(t *testing.T) {
	noon := time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)
	now := noon
	begin := func(dir string) *Service {
		return &Service{Paths: etcd.Paths{Data: dir}, Log: slog.New(slog.DiscardHandler), Now: func() time.Time { return now }}
	}
	dir := t.TempDir()
	s := begin(dir)
	s.recallLeader(2)
	if seen := s.state().lastSeen; !seen.IsZero() {
		t.Errorf("nothing was written, and it was seen at %s", seen)
	}
	for _, tt := range []struct {
		after time.Duration // noon
		want  time.Duration // what the next process knows
	}{{0, 0}, {keepInterval - 1, 0}, {keepInterval, keepInterval}, {keepInterval + time.Second, keepInterval}, {-time.Hour, -time.Hour}} {
		now = noon.Add(tt.after)
		s.sawLeader(2)
		if seen := s.state().lastSeen; !seen.Equal(now) {
			t.Errorf("seen at %s, and it says %s", now, seen)
		}
		next, other := begin(dir), begin(dir)
		next.recallLeader(2)
		other.recallLeader(3)
		if seen := next.state().lastSeen; !seen.Equal(noon.Add(tt.want)) {
			t.Errorf("after a look at %s the next process says %s", now, seen)
		}
		if seen := other.state().lastSeen; !seen.IsZero() {
			t.Errorf("another generation says %s", seen)
		}
	}
}

// TestClock: certificates of another time are the clock's fault.
func TestClock(t *testing.T) {
	made := time.Date(2026, 6, 1, 0, 0, 0, 0, time.UTC)
	ca, err := pki.NewCA("etcd", made, 24*365*time.Hour)
	must(t, err)
	leaf, err := ca.Issue(pki.Request{CommonName: "a", Server: true, Validity: time.Hour}, made)
	must(t, err)
	dir := t.TempDir()
	must(t, os.WriteFile(dir+"/server.crt", leaf.CertPEM, 0o600))
	for now, wrong := range map[time.Time]bool{made.Add(time.Minute): false, made.AddDate(-20, 0, 0): true, made.AddDate(3, 0, 0): true} {
		s := &Service{Paths: etcd.Paths{PKI: dir}, Now: func() time.Time { return now }}
		text := s.clock()
		if (text != "") != wrong || wrong && !strings.Contains(text, now.Format(time.DateTime)) {
			t.Errorf("at %s: %q", now, text)
		}
	}
}

func TestReason(t *testing.T) {
	expired := errors.New("tls: failed to verify certificate: x509: certificate has expired or is not yet valid: current time 2001-01-01T00:00:00Z is before 2026-06-01T00:00:00Z")
	if got := reason(expired); !strings.Contains(got, "the clock of one of the two machines is wrong") {
		t.Error(got)
	}
}

// TestReleased: whom the leader's machine removes by itself.
func TestReleased(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	place := func(name string, last byte) etcd.Place {
		return etcd.Place{Name: name, Address: netip.AddrFrom4([4]byte{192, 0, 2, last})}
	}
	a, b, c := place("a", 1), place("b", 2), place("c", 3)
	at := func(id uint64, p etcd.Place, healthy bool) etcd.Member {
		return etcd.Member{ID: id, Name: p.Name, PeerURL: p.PeerURL(), Healthy: healthy}
	}
	all := []etcd.Member{at(1, a, true), at(2, b, true), at(3, c, false)}
	tests := map[string]struct {
		listed, known []etcd.Place
		members       []etcd.Member
		later         time.Duration
		want          uint64
	}{
		"listed and dead":                  {[]etcd.Place{a, b, c}, nil, all, time.Hour, 0},
		"released and dead":                {[]etcd.Place{a, b}, []etcd.Place{c}, all, 0, 3},
		"never listed, silent for a while": {[]etcd.Place{a, b}, nil, all, time.Minute, 0},
		"never listed, silent for long":    {[]etcd.Place{a, b}, nil, all, time.Hour, 3},
		"released and alive":               {[]etcd.Place{a, b}, []etcd.Place{c}, []etcd.Member{at(1, a, true), at(2, b, true), at(3, c, true)}, time.Hour, 0},
		"released, but needed":             {[]etcd.Place{a}, []etcd.Place{c}, []etcd.Member{at(1, a, true), at(3, c, false)}, time.Hour, 0},
		"added, not started yet":           {[]etcd.Place{a, b, c}, nil, []etcd.Member{at(1, a, true), at(2, b, true), {ID: 3, PeerURL: c.PeerURL(), Learner: true}}, time.Hour, 0},
		"added for a machine that is gone": {[]etcd.Place{a, b}, nil, []etcd.Member{at(1, a, true), at(2, b, true), {ID: 3, PeerURL: c.PeerURL(), Learner: true}}, time.Hour, 3},
	}
	for name, tt := range tests {
		var u upkeep
		u.learn(&etcd.Settings{Members: tt.known})
		settings := &etcd.Settings{Members: tt.listed}
		u.learn(settings)
		u.released(settings, tt.members, now)
		if got, _ := u.released(settings, tt.members, now.Add(tt.later)); got != tt.want {
			t.Errorf("%s: removes %d, want %d", name, got, tt.want)
		}
	}
}

func TestStuck(t *testing.T) {
	var u upkeep
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for i, tt := range []struct {
		index uint64
		after time.Duration
		want  bool
	}{{5, 0, false}, {5, time.Minute, false}, {5, 3 * time.Minute, true}, {6, 4 * time.Minute, false}} {
		if got := u.stuck(tt.index, now.Add(tt.after)); got != tt.want {
			t.Errorf("look %d: %t", i, got)
		}
	}
}

// TestMayDefrag: one member after the other, the leader last, and only while all
// are well.
func TestMayDefrag(t *testing.T) {
	const mib = 1 << 20
	member := func(id, leader uint64, size, used int64) answer {
		return answer{endpoint: "https://" + string(rune('a'+id)), status: &clientv3.StatusResponse{
			Header: &etcdserverpb.ResponseHeader{MemberId: id}, Leader: leader, DbSize: size * mib, DbSizeInUse: used * mib,
		}}
	}
	full, lean := func(id, leader uint64) answer { return member(id, leader, 400, 50) }, func(id, leader uint64) answer { return member(id, leader, 100, 90) }
	silent := answer{endpoint: "https://x", err: errors.New("connection refused")}
	for name, tt := range map[string]struct {
		own    answer
		others []answer
		want   bool
	}{
		"alone, much is free":                    {full(1, 1), nil, true},
		"alone, little is free":                  {lean(1, 1), nil, false},
		"half is free, and that is little":       {member(1, 1, 180, 90), nil, false},
		"much is free, and that is a small part": {member(1, 1, 900, 600), nil, false},
		"a follower":                             {full(1, 2), []answer{full(2, 2), full(3, 2)}, true},
		"a follower, before its turn":            {full(3, 2), []answer{full(1, 2), full(2, 2)}, false},
		"a follower, in its turn":                {full(3, 2), []answer{lean(1, 2), full(2, 2)}, true},
		"a follower, one member is silent":       {full(1, 2), []answer{full(2, 2), silent}, false},
		"a follower, one member has no leader":   {full(1, 2), []answer{full(2, 2), full(3, 0)}, false},
		"it sees no leader itself":               {full(1, 0), []answer{full(2, 2), full(3, 2)}, false},
		"the leader, before a follower":          {full(2, 2), []answer{lean(1, 2), full(3, 2)}, false},
		"the leader, after the followers":        {full(2, 2), []answer{lean(1, 2), lean(3, 2)}, true},
		"the leader, one member is silent":       {full(2, 2), []answer{lean(1, 2), silent}, false},
	} {
		if got := mayDefrag(tt.own, append(tt.others, tt.own)); got != tt.want {
			t.Errorf("%s: %t", name, got)
		}
	}
}

// TestSettled: etcd wants its members connected for a while before it removes one.
// Who is still not in time is named by what a person can do.
func TestSettled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		asked := 0
		soon := func() error {
			if asked++; asked < 4 {
				return rpctypes.ErrUnhealthy
			}
			return nil
		}
		if err := settled(t.Context(), soon); err != nil || asked != 4 {
			t.Errorf("asked %d times: %v", asked, err)
		}
		if err := settled(t.Context(), func() error { return rpctypes.ErrMemberNotFound }); !errors.Is(err, rpctypes.ErrMemberNotFound) {
			t.Errorf("another refusal: %v", err)
		}
		began := time.Now()
		err := problem("remove c", settled(t.Context(), func() error { return rpctypes.ErrUnhealthy }))
		const want = "remove c: etcdserver: unhealthy cluster: too few of the members that would remain have been connected for long enough, after 20s; it is still a member; slipway etcd members says who is away: start it, then try again"
		if connect.CodeOf(err) != connect.CodeFailedPrecondition || !strings.HasSuffix(err.Error(), want) {
			t.Errorf("never: %v", err)
		}
		if took := time.Since(began); took != etcd.SettleTime {
			t.Errorf("it took %v", took)
		}
	})
}

func TestGuard(t *testing.T) {
	voter := func(id uint64, healthy bool) etcd.Member {
		return etcd.Member{ID: id, Name: string(rune('a' - 1 + id)), Healthy: healthy}
	}
	c := &cluster{members: []etcd.Member{voter(1, true), voter(2, true), voter(3, false)}}
	if err := c.guard(c.members[2]); err != nil {
		t.Errorf("the dead one: %v", err)
	}
	err := c.guard(c.members[1])
	if connect.CodeOf(err) != connect.CodeFailedPrecondition {
		t.Fatalf("one of the two that answer: %v", err)
	}
	for _, next := range []string{"add or start a member first", "slipway cluster recover", "slipway node reset --force"} {
		if !strings.Contains(err.Error(), next) {
			t.Errorf("%q is not in: %v", next, err)
		}
	}
}

// TestFullDisk: what a person can do about it depends on whether there is still
// an API.
func TestFullDisk(t *testing.T) {
	const mib = 1 << 20
	alone := &etcd.Settings{Name: "a", Members: []etcd.Place{{Name: "a"}}}
	three := &etcd.Settings{Name: "a", Members: []etcd.Place{{Name: "a"}, {Name: "b"}, {Name: "c"}}}
	for name, tt := range map[string]struct {
		left, size uint64
		settings   *etcd.Settings
		want       []string // all of them; none: no text
	}{
		"room enough":        {64 * mib, 220 * mib, three, nil},
		"not known":          {0, 0, three, nil},
		"nearly full":        {63*mib + 5, 220 * mib, three, []string{"the disk has 63 MiB left: nothing is lost", "once there is room; delete pods", "kubectl get pods -A --field-selector spec.nodeName=a", "slipway node reset a --force, then slipway node join"}},
		"full":               {0, 220 * mib, three, []string{"the disk has 0 MiB left"}},
		"full, and no other": {0, 220 * mib, alone, []string{"the disk has 0 MiB left: nothing is lost", "where pods run, the kubelet removes pulled images", "slipway cluster restore", "install.dataSize"}},
	} {
		got := fullDisk(tt.left, tt.size, tt.settings)
		for _, want := range tt.want {
			if !strings.Contains(got, want) {
				t.Errorf("%s: %q, want %q", name, got, want)
			}
		}
		if (len(tt.want) == 0) != (got == "") || tt.settings == alone && strings.Contains(got, "kubectl") {
			t.Errorf("%s: %q", name, got)
		}
	}
}

func TestBoth(t *testing.T) {
	for want, texts := range map[string][2]string{"": {}, "one": {"one", ""}, "other": {"", "other"}, "one; other": {"one", "other"}} {
		if got := both(texts[0], texts[1]); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

// TestLearnerText: what a machine says that is no voter yet.
func TestLearnerText(t *testing.T) {
	const hint = "; it gets no nearer: can the leader reach https://192.0.2.3:2380? slipway etcd remove c gives up, and nothing is lost"
	self := etcd.Place{Name: "c", Address: netip.MustParseAddr("192.0.2.3")}
	for name, tt := range map[string]struct {
		learner learner
		want    string
	}{
		"behind":                      {learner{applied: 40, lead: 100, err: rpctypes.ErrMemberLearnerNotReady}, "this learner to catch up: it has applied 40 entries, 60 to go"},
		"behind, and no nearer":       {learner{applied: 40, lead: 100, err: rpctypes.ErrMemberLearnerNotReady, stuck: true}, "this learner to catch up: it has applied 40 entries, 60 to go" + hint},
		"it got ahead of the answers": {learner{applied: 101, lead: 100, err: rpctypes.ErrMemberLearnerNotReady}, "this learner to catch up: it has applied 101 entries, 0 to go"},
		"nobody answers":              {learner{applied: 40, err: errors.New("no voter answers")}, "this learner to catch up: it has applied 40 entries; no voter answers"},
		"nobody ever answers":         {learner{err: errors.New("no voter answers"), stuck: true}, "this learner to catch up: it has applied 0 entries; no voter answers" + hint},
		"a voter is too slow":         {learner{applied: 99, lead: 100, err: context.DeadlineExceeded}, "this learner to catch up: it has applied 99 entries, 1 to go; no answer within 5s"},
	} {
		if got := tt.learner.text(self); got != tt.want {
			t.Errorf("%s: %q, want %q", name, got, tt.want)
		}
	}
}

func TestAlarm(t *testing.T) {
	for given, want := range map[string]string{
		"":                             "",
		"memberID:1234 alarm:NOSPACE ": "(1024 MiB): nothing is lost, writes are refused; delete objects, then slipway etcd defrag",
		"memberID:1234 alarm:CORRUPT ": "take a snapshot",
		"etcdserver: no leader":        "",
	} {
		if got := alarm([]string{given}, etcd.Quota); (want == "") != (got == "") || !strings.Contains(got, want) {
			t.Errorf("%s: %q", given, got)
		}
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// TestMeasure: the disk is timed where there is one, and the processor always.
func TestMeasure(t *testing.T) {
	dir := t.TempDir()
	m, err := measure(dir)
	if err != nil {
		t.Fatal(err)
	}
	memory, err := inMemory(dir)
	if err != nil {
		t.Fatal(err)
	}
	if m.Sign <= 0 || (m.Fsync == 0) != memory {
		t.Errorf("measured %+v, in memory: %t", m, memory)
	}
}
