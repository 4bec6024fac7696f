package assign

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"slipway/bootsvc/inventory"
	"slipway/configs/enroll"
	"slipway/configs/machine"
)

const sum = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"

// source is a snapshot of prod, as an office made it.
func source(t *testing.T, o *Office) Source {
	t.Helper()
	keys, err := o.keys.Get(t.Context(), "prod")
	if err != nil {
		t.Fatal(err)
	}
	ids, err := keys.IDs()
	if err != nil {
		t.Fatal(err)
	}
	return Source{Snapshot: "prod-20260601T000000Z", SHA256: sum, Name: "prod", ID: ids[0]}
}

func TestARestoreStartsEtcdAnewOnTheFirstMachine(t *testing.T) {
	o := threeOf(t)
	c, err := o.Restore(t.Context(), "", source(t, o), nil, false)
	if err != nil {
		t.Fatal(err)
	}
	if g := c.Etcd.Grant; c.Etcd.Generation != 2 || g.Machine != id(1) || g.KeyHash != "key" || g.Snapshot != sum || g.Done {
		t.Errorf("etcd is %+v", c.Etcd)
	}
	config, err := fetch(t, o, 1, "key")
	if err != nil || config.Etcd.Generation != 2 || config.Etcd.Bootstrap == nil || config.Etcd.Bootstrap.Snapshot != sum {
		t.Errorf("the config is %+v, %v", config.Etcd, err)
	}
	for n, want := range map[int]error{1: nil, 2: ErrGrant, 9: ErrReplaced} {
		if got, err := o.Granted(t.Context(), id(n), "key"); !errors.Is(err, want) && n != 9 || err == nil && got != sum {
			t.Errorf("machine %d may fetch %q, %v", n, got, err)
		}
	}
	if _, err := o.Granted(t.Context(), id(1), "stolen"); !errors.Is(err, ErrReplaced) {
		t.Errorf("another key of the machine: %v", err)
	}
	for _, done := range []bool{false, true} {
		if err := o.Redeem(t.Context(), id(1), "key", config.Etcd.Bootstrap.Token.Reveal(), done); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := o.Granted(t.Context(), id(1), "key"); !errors.Is(err, ErrGrant) {
		t.Errorf("after it was done: %v", err)
	}
}

// TestARestoreIsRepeatedWhenItsOnlyDataIsLost: the machine that restored says
// done, and loses its power before another one is a voter.
func TestARestoreIsRepeatedWhenItsOnlyDataIsLost(t *testing.T) {
	o := threeOf(t)
	if _, err := o.Restore(t.Context(), "prod", source(t, o), nil, false); err != nil {
		t.Fatal(err)
	}
	config, err := fetch(t, o, 1, "key")
	if err != nil {
		t.Fatal(err)
	}
	for _, done := range []bool{false, true} {
		if err := o.Redeem(t.Context(), id(1), "key", config.Etcd.Bootstrap.Token.Reveal(), done); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := o.Report(t.Context(), id(1), "key", Report{Etcd: &inventory.EtcdState{Generation: 2, Voter: true, Healthy: true}}); err != nil {
		t.Fatal(err)
	}
	if _, err := o.keys.Update(t.Context(), "prod", func(k *Keys) error {
		k.EncryptionKeys, k.Retired = []EncryptionKey{newEncryptionKey(2)}, k.EncryptionKeys
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	approve(t, o, 1, "key after a restart from RAM")
	again, err := fetch(t, o, 1, "key after a restart from RAM")
	if err != nil {
		t.Fatal(err)
	}
	if e := again.Etcd; e.Generation != 3 || e.Bootstrap == nil || e.Bootstrap.Snapshot != sum || len(again.ControlPlaneKeys.EncryptionKeys) != 2 {
		t.Errorf("the config says %+v, with %d encryption keys", e, len(again.ControlPlaneKeys.EncryptionKeys))
	}
	if got, err := o.Granted(t.Context(), id(1), "key after a restart from RAM"); err != nil || got != sum {
		t.Errorf("it may fetch %q, %v", got, err)
	}
	line, err := o.inventory.Timeline(t.Context(), id(1))
	if err != nil {
		t.Fatal(err)
	}
	last := line.Boots[len(line.Boots)-1].Entries
	const want = "generation 3 of etcd, from the same snapshot as generation 2, whose only data is gone: what was written since the snapshot is lost"
	if got := last[len(last)-1]; got.Name != "restore" || got.Detail != want {
		t.Errorf("the timeline ends with %+v", got)
	}
}

func TestARestoreOntoOtherMachines(t *testing.T) {
	o := threeOf(t)
	text := "name: prod\nmachines:\n"
	for n := 4; n <= 6; n++ {
		text += "- {id: " + id(n) + ", role: control-plane, hostname: new-" + id(n)[15:] + "}\n"
	}
	approve(t, o, 5, "key")
	c, err := o.Restore(t.Context(), "prod", source(t, o), []byte(text), false)
	if err != nil {
		t.Fatal(err)
	}
	if c.Etcd.Generation != 2 || c.Etcd.Grant.Machine != id(5) || len(c.Document.Machines) != 3 {
		t.Errorf("etcd is %+v of %d machines", c.Etcd, len(c.Document.Machines))
	}
	config, err := fetch(t, o, 5, "key")
	if err != nil {
		t.Fatal(err)
	}
	if config.Etcd.Bootstrap == nil || config.Etcd.Bootstrap.Snapshot != sum || config.Etcd.Members[0].Address != netip.MustParseAddr("10.0.0.5") {
		t.Errorf("the config is %+v", config.Etcd)
	}
	if m, err := o.inventory.Get(t.Context(), id(1)); err != nil || m.Cluster != "" {
		t.Errorf("the first machine belongs to %q, %v", m.Cluster, err)
	}
}

func TestRestoresThatAreRefused(t *testing.T) {
	o := threeOf(t)
	good := source(t, o)
	other := Source{Snapshot: "prod-20260601T000000Z", SHA256: sum, Name: "test", ID: strings.Repeat("ab", 32)}
	for name, test := range map[string]struct {
		from     Source
		document string
		want     error
		words    string
	}{
		"another cluster's":             {other, "", ErrOther, `"test" (abababababab), and this is "prod" (` + good.ID[:12] + "); nothing was changed. slipway cluster snapshots prod lists its own"},
		"one that does not say":         {Source{Snapshot: "x", SHA256: sum}, "", ErrOther, "does not say"},
		"a bad document":                {good, "name: prod\nmachine: []\n", ErrDocument, "unknown field"},
		"a document of another cluster": {good, string(document("test", 1)), ErrDocument, "its name is test"},
		"another network":               {good, "network: {podSubnet: 10.9.0.0/16}\n" + string(document("prod", 1)), ErrFixed, "podSubnet"},
	} {
		_, err := o.Restore(t.Context(), "prod", test.from, []byte(test.document), false)
		if !errors.Is(err, test.want) || !strings.Contains(err.Error(), test.words) {
			t.Errorf("%s: %v; want %v with %q", name, err, test.want, test.words)
		}
	}
	if c, err := o.Get(t.Context(), "prod"); err != nil || c.Etcd.Generation != 1 {
		t.Errorf("etcd is %+v, %v", c.Etcd, err)
	}
	if c, err := o.Restore(t.Context(), "prod", other, nil, true); err != nil || c.Etcd.Generation != 2 {
		t.Errorf("forced: %+v, %v", c.Etcd, err)
	}
}

func TestOldSecretsCanBeReadAfterARestore(t *testing.T) {
	o := threeOf(t)
	_, err := o.keys.Update(t.Context(), "prod", func(k *Keys) error {
		k.EncryptionKeys, k.Retired = []EncryptionKey{newEncryptionKey(2)}, k.EncryptionKeys
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := o.Restore(t.Context(), "prod", Source{Snapshot: "prod-1", SHA256: strings.Repeat("a", 64)}, nil, true); err != nil {
		t.Fatal(err)
	}
	keys, err := o.keys.Get(t.Context(), "prod")
	if err != nil || len(keys.EncryptionKeys) != 2 || keys.EncryptionKeys[0].Name != "key-2" || !keys.rewriting() {
		t.Errorf("the keys are %d, rewriting: %v, %v", len(keys.EncryptionKeys), keys.rewriting(), err)
	}
}

func TestWhoStartsFromASnapshot(t *testing.T) {
	member := func(n int, key string, seen time.Duration) inventory.Machine {
		m := inventory.Machine{ID: id(n), LastSeen: noon.Add(-seen)}
		if key != "" {
			m.Enrolment.Approved.Hash, m.Address = key, netip.AddrFrom4([4]byte{10, 0, 0, byte(n)})
		}
		return m
	}
	for name, test := range map[string]struct {
		members []inventory.Machine
		want    int
	}{
		"the first":                   {[]inventory.Machine{member(1, "k", 0), member(2, "k", 0)}, 1},
		"the first that is heard of":  {[]inventory.Machine{member(1, "k", time.Hour), member(2, "", 0), member(3, "k", 0)}, 3},
		"the first that has enrolled": {[]inventory.Machine{member(1, "", 0), member(2, "k", time.Hour)}, 2},
		"one that is still to come":   {[]inventory.Machine{member(1, "", 0), member(2, "", 0)}, 1},
	} {
		if got := starter(test.members, noon); got.ID != id(test.want) {
			t.Errorf("%s: %s", name, got.ID)
		}
	}
}

// TestARestoreReachesAllMembersAtOnce has three members that run; none of them
// waits for another one to take the new generation.
func TestARestoreReachesAllMembersAtOnce(t *testing.T) {
	o := threeOf(t)
	have := map[int]string{}
	for n := 1; n <= 3; n++ {
		got, err := o.Fetch(t.Context(), id(n), "key", Has{Prepared: true}, time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		digest := sha256.Sum256(got.YAML)
		have[n] = hex.EncodeToString(digest[:])
		voter := &inventory.EtcdState{Generation: 1, Voter: true, Healthy: true, MemberID: "a"}
		if err := o.Acknowledge(t.Context(), id(n), "key"); err != nil {
			t.Fatal(err)
		}
		if _, err := o.Report(t.Context(), id(n), "key", Report{Phase: enroll.Ready, Applied: have[n], Etcd: voter}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := o.Restore(t.Context(), "prod", source(t, o), nil, false); err != nil {
		t.Fatal(err)
	}
	for n := 1; n <= 3; n++ {
		got, err := o.Fetch(t.Context(), id(n), "key", Has{Digest: have[n], Prepared: true}, time.Minute)
		if err != nil || got.YAML == nil {
			t.Fatalf("machine %d waits for %q, %v", n, got.WaitingFor, err)
		}
		config, err := machine.Parse(got.YAML, "config")
		if err != nil || config.Etcd.Generation != 2 || (config.Etcd.Bootstrap != nil) != (n == 1) {
			t.Errorf("machine %d gets %+v, %v", n, config.Etcd, err)
		}
	}
}
