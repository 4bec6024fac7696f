package etcdmember

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"connectrpc.com/connect"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"slipway/configs/secret"
	"slipway/controlplane/etcd"
	"slipway/nodeinit/api/nodev1"
	"slipway/nodeinit/proc"
)

// TestLife is a cluster's life: it begins, grows to three, loses machines and
// gets them back, is restored onto other machines, and is recovered.
func TestLife(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	a, b, c := s.add("a", "192.0.2.11"), s.add("b", "192.0.2.12"), s.add("c", "192.0.2.13")
	t.Run("three machines become three voters", func(t *testing.T) {
		b.start(1, nil, a, b, c) // too early: it waits
		b.says("no other member answers", "192.0.2.11:2379", "begins the cluster")
		b.holdsBack("no other member answers")
		a.start(1, leave("one", ""), a, b, c)
		c.start(1, nil, a, b, c)
		for _, n := range []*node{a, b, c} {
			n.voter()
		}
		if got := a.members(); len(got) != 3 {
			t.Fatalf("members %v", got)
		}
		a.eventually("done told to the boot service", func() bool { return s.boot.finished("one") })
		sameClock(t, a, b, c)
		a.put("greeting", "hello")
	})
	t.Run("nobody reads anything without a certificate", func(t *testing.T) { s.strangers(a) })
	t.Run("a killed member comes back", func(t *testing.T) {
		c.kill()
		a.put("while", "c was dead")
		c.voter()
	})
	t.Run("a blank machine of the same name takes a dead one's place", func(t *testing.T) {
		before := a.members()["c"]
		c.stop()
		c = s.add("c", "192.0.2.13")
		c.start(1, nil, a, b, c)
		c.voter()
		if now := a.members(); len(now) != 3 || now["c"] == before {
			t.Errorf("members %v, c was %s", now, before)
		}
	})
	t.Run("a second machine of one name refuses", func(t *testing.T) {
		other := s.add("c", "192.0.2.23")
		other.start(1, nil, a, b, other)
		other.says("a live member at https://192.0.2.13:2380 has the name c too", "rename or switch off")
		other.stop()
	})
	t.Run("a machine that is told to begin what has begun joins", func(t *testing.T) {
		c.stop()
		c = s.add("c", "192.0.2.13")
		c.start(1, leave("one", ""), a, b, c)
		c.voter()
	})
	t.Run("damaged data is kept, and the machine joins anew", func(t *testing.T) { s.damage(b, a, c) })
	t.Run("a member that a person removes joins anew while its machine is to be one", func(t *testing.T) {
		before := a.members()["c"]
		_, err := c.api().Remove(t.Context(), connect.NewRequest(&nodev1.EtcdRemoveRequest{Member: "c"}))
		must(t, err)
		c.eventually("new member", func() bool { id := c.status().MemberId; return id != "" && id != before })
		c.voter()
		if kept, err := filepath.Glob(c.paths.Data + "/1.removed-*"); err != nil || len(kept) != 1 {
			t.Errorf("kept are %v, %v", kept, err)
		}
	})
	t.Run("a member leaves for good", func(t *testing.T) { s.leaveForGood(c, a, b) })
	t.Run("the quorum is guarded", func(t *testing.T) {
		b.stop()
		_, err := a.api().Remove(t.Context(), connect.NewRequest(&nodev1.EtcdRemoveRequest{Member: "b"}))
		if connect.CodeOf(err) != connect.CodeFailedPrecondition {
			t.Errorf("remove b: %v", err)
		}
		a.says("a quorum of the members: 0 of 2 others answer", "slipway cluster recover")
		a.remembersLeader()
		b.run()
		a.voter()
		b.voter()
	})
	data := a.snapshot()
	a.stop()
	b.stop()
	s.afterwards(t, data, a)
}

// afterwards: the cluster is gone but for a snapshot, and for a's disk.
func (s *site) afterwards(t *testing.T, data []byte, a *node) {
	sum := sha256.Sum256(data)
	id := hex.EncodeToString(sum[:])
	d, e := s.add("d", "192.0.2.31"), s.add("e", "192.0.2.32")
	t.Run("half a snapshot is refused", func(t *testing.T) {
		s.boot.keep(id, data[:len(data)/2])
		d.start(2, leave("two", id), d, e)
		d.says("is not the one to restore", "nothing was changed")
	})
	t.Run("a snapshot is restored onto other machines", func(t *testing.T) {
		s.boot.keep(id, data)
		e.start(2, nil, d, e)
		d.voter()
		e.voter()
		if got := d.get("greeting"); got != "hello" {
			t.Errorf("greeting is %q", got)
		}
		if key := d.get("/slipway/cluster"); !strings.Contains(key, `"generation":2`) || !strings.Contains(key, `"name":"prod"`) {
			t.Errorf("the cluster is %s", key)
		}
		d.put("greeting", "again")
	})
	t.Run("a cluster without quorum is recovered from one disk", func(t *testing.T) {
		e.stop()
		d.stop()
		d.start(3, recovery("three"), d, e)
		d.voter()
		if got := d.get("greeting"); got != "again" {
			t.Errorf("greeting is %q", got)
		}
		if text, err := os.ReadFile(d.paths.Config); err != nil || strings.Contains(string(text), "force") {
			t.Errorf("the configuration still takes over: %v\n%s", err, text)
		}
		e.start(3, nil, d, e)
		e.voter()
		if _, err := os.Stat(e.paths.Data + "/2"); err != nil {
			t.Errorf("the earlier data of e is gone: %v", err)
		}
	})
	t.Run("a machine with an old config does not start its data", func(t *testing.T) {
		a.start(1, nil, a, d)
		a.says("is of generation 3, this machine's config of 1")
	})
}

func leave(token, snapshot string) *grant {
	return &grant{Token: secret.New(token), Snapshot: snapshot}
}

func recovery(token string) *grant { return &grant{Token: secret.New(token), Recover: true} }

// sameClock: nobody asks for an election within four beats of any other.
func sameClock(t *testing.T, nodes ...*node) {
	t.Helper()
	var slowest, shortest int32 = 0, 1 << 30
	for _, n := range nodes {
		s := n.status()
		t.Logf("%s: fsync %d us, round trip %d us, heartbeat %d ms, election %d ms", n.name, s.FsyncP99Us, s.RoundTripUs, s.HeartbeatMs, s.ElectionMs)
		slowest, shortest = max(slowest, s.HeartbeatMs), min(shortest, s.ElectionMs)
	}
	if slowest == 0 || shortest < 4*slowest {
		t.Errorf("the slowest beat is %d ms, the shortest election timeout %d ms", slowest, shortest)
	}
}

// holdsBack: the unit's probe keeps etcd from starting, and says why.
func (n *node) holdsBack(why string) {
	n.t.Helper()
	err := proc.SocketProbe{Path: n.paths.Socket, URL: etcd.ReadyPath}.Probe(n.t.Context())
	if err == nil || !strings.HasPrefix(err.Error(), why) {
		n.t.Errorf("the probe says %v", err)
	}
	for _, u := range n.units.Status() {
		if u.Name == etcd.Name && u.WaitingFor != etcd.MemberUnit {
			n.t.Errorf("etcd waits for %q", u.WaitingFor)
		}
	}
}

// strangers: neither metrics nor health nor data without a client certificate.
func (s *site) strangers(n *node) {
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(s.ca.CertPEM)
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}}}
	for _, path := range []string{"/metrics", "/readyz", "/health"} {
		if answer, err := client.Get("https://" + n.paths.Local + path); err == nil {
			answer.Body.Close()
			s.t.Errorf("%s answers %s", path, answer.Status)
		}
	}
}

// damage: who has a damaged log keeps it aside and joins the others anew.
func (s *site) damage(n *node, others ...*node) {
	n.stop()
	n.spoil()
	n.run()
	n.voter()
	kept, err := filepath.Glob(n.paths.Data + "/1.corrupt-*/member/wal/*.wal")
	if err != nil || len(kept) == 0 {
		s.t.Errorf("the damaged data is gone: %v %v", kept, err)
	}
	if got := others[0].members(); len(got) != 3 {
		s.t.Errorf("members %v", got)
	}
}

// remembersLeader: a restart of a machine that has no leader any more does not
// make it forget when it had one.
func (n *node) remembersLeader() {
	n.t.Helper()
	seen := n.status().LastLeader
	n.stop()
	n.run()
	n.says("a quorum of the members", "slipway cluster recover")
	if again := n.status().LastLeader; again == nil || seen == nil || again.AsTime().After(seen.AsTime()) {
		n.t.Errorf("it last had a leader at %v, after a restart at %v", seen, again)
	}
}

// leaveForGood: the member that goes leads when it is told to, while somebody
// writes. Another one leads afterwards, and nothing that was acknowledged is lost.
func (s *site) leaveForGood(n *node, others ...*node) {
	gone := n.status().MemberId
	writing := write(s.t, append(others, n)...)
	n.eventually("write that is taken", func() bool { return writing.count() > 0 })
	n.lead(others...)
	_, err := n.api().Leave(s.t.Context(), connect.NewRequest(&nodev1.EtcdLeaveRequest{}))
	must(s.t, err)
	count := writing.count()
	if got := others[0].members(); len(got) != len(others) || got[n.name] != "" {
		s.t.Errorf("members %v", got)
	}
	others[0].eventually("leader among the others", func() bool {
		leader := others[0].status().LeaderId
		return leader != "" && leader != gone
	})
	others[0].eventually("write that is taken afterwards", func() bool { return writing.count() > count })
	writing.check(others[0])
	n.says("has left the cluster for good")
	n.stop()
}

// lead has a member lead, whoever does now.
func (n *node) lead(others ...*node) {
	n.t.Helper()
	n.eventually("leadership", func() bool {
		own := n.status()
		for _, o := range others {
			st := o.status()
			if st.LeaderId == "" || st.LeaderId != st.MemberId || own.MemberId == "" {
				continue
			}
			id, err := strconv.ParseUint(own.MemberId, 16, 64)
			must(n.t, err)
			client := o.client()
			defer client.Close()
			client.MoveLeader(n.t.Context(), id) // forfeit-leadership does not choose; what came of it is seen at the next look
		}
		return own.LeaderId != "" && own.LeaderId == own.MemberId
	})
}

// spoil turns bits in the middle of the log of a member that is off.
func (n *node) spoil() {
	n.t.Helper()
	logs, err := filepath.Glob(n.paths.Data + "/1/member/wal/*.wal")
	must(n.t, err)
	file, err := os.OpenFile(logs[0], os.O_RDWR, 0)
	must(n.t, err)
	_, err = file.WriteAt([]byte("damaged damaged damaged"), 400)
	must(n.t, err)
	must(n.t, file.Close())
}

// kill ends etcd as a crash does; the supervisor starts it again.
func (n *node) kill() {
	n.t.Helper()
	for _, u := range n.units.Status() {
		if u.PID != 0 {
			p, err := os.FindProcess(u.PID)
			must(n.t, err)
			must(n.t, p.Kill())
		}
	}
}

// snapshot is what the node's API streams, if its own hash is right.
func (n *node) snapshot() []byte {
	n.t.Helper()
	stream, err := n.api().Snapshot(n.t.Context(), connect.NewRequest(&nodev1.EtcdSnapshotRequest{}))
	must(n.t, err)
	var data []byte
	for stream.Receive() {
		data = append(data, stream.Msg().Data...)
	}
	must(n.t, stream.Err())
	body, hash := data[:len(data)-sha256.Size], data[len(data)-sha256.Size:]
	if got := sha256.Sum256(body); string(got[:]) != string(hash) {
		n.t.Fatalf("the snapshot's hash is wrong")
	}
	return data
}

func hexID(id uint64) string { return strconv.FormatUint(id, 16) }

func (b *bootService) keep(id string, data []byte) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.snapshots[id] = data
}

func (n *node) client() *clientv3.Client {
	n.t.Helper()
	ca, err := os.ReadFile(n.paths.PKI + "/ca.crt")
	must(n.t, err)
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	client, err := clientv3.New(clientv3.Config{
		Endpoints: []string{"https://" + n.paths.Local}, Logger: zap.NewNop(),
		TLS: &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{n.pair()}},
	})
	must(n.t, err)
	return client
}

func (n *node) put(key, value string) {
	n.t.Helper()
	client := n.client()
	defer client.Close()
	_, err := client.Put(n.t.Context(), key, value)
	must(n.t, err)
}

func (n *node) get(key string) string {
	n.t.Helper()
	client := n.client()
	defer client.Close()
	answer, err := client.Get(n.t.Context(), key)
	must(n.t, err)
	if len(answer.Kvs) != 1 {
		return ""
	}
	return string(answer.Kvs[0].Value)
}
