package assign

import (
	"slices"
	"strings"
	"testing"
	"time"

	"slipway/bootsvc/authority"
	"slipway/bootsvc/inventory"
	"slipway/configs/enroll"
	"slipway/configs/machine"
)

// trusts has a machine say what it trusts, and that it runs with its config.
func trusts(t *testing.T, o *Office, n int, key, digest string) {
	t.Helper()
	applied := ""
	if c, err := o.Get(t.Context(), "prod"); err == nil && n == 1 {
		keys, err := o.keys.Get(t.Context(), "prod")
		if err != nil {
			t.Fatal(err)
		}
		wanted, err := c.render(c.Machines[n-1], keys)
		if err != nil {
			t.Fatal(err)
		}
		applied = wanted.digest
	}
	if _, err := o.Report(t.Context(), id(n), key, Report{Phase: enroll.Ready, Trusts: digest, Applied: applied}); err != nil {
		t.Fatal(err)
	}
}

// TestTheCAWaitsForMachines: for those of clusters until their components have
// it too, for free ones, and not for one that is off, but that is named.
func TestTheCAWaitsForMachines(t *testing.T) {
	o := newOffice(t)
	now := noon
	o.now = func() time.Time { return now }
	for n, key := range []string{"key1", "key2", "key3"} {
		approve(t, o, n+1, key)
	}
	if _, err := o.Create(t.Context(), document("prod", 1)); err != nil {
		t.Fatal(err)
	}
	plane, err := fetch(t, o, 1, "key1")
	if err != nil {
		t.Fatal(err)
	}
	digest := func() string {
		t.Helper()
		ca, err := o.CA.Table().Get(t.Context(), authority.ID)
		if err != nil {
			t.Fatal(err)
		}
		return enroll.TrustDigest(ca.Trusted())
	}
	phase := func(want authority.Phase, waits ...string) {
		t.Helper()
		if err := o.TurnAuthority(t.Context()); err != nil {
			t.Fatal(err)
		}
		ca, holders, err := o.Holders(t.Context())
		if err != nil || (ca.Rotation == nil) != (want == "") || ca.Rotation != nil && ca.Rotation.Phase != want {
			t.Fatalf("it is in %+v, %v; want %q", ca.Rotation, err, want)
		}
		var got []string
		for _, w := range ca.Waiting(holders) {
			got = append(got, w.Name+": "+w.For)
		}
		for i, w := range waits {
			if len(got) != len(waits) || !slices.ContainsFunc(got, func(text string) bool { return strings.HasPrefix(text, w) }) {
				t.Errorf("in %s it waits for %q, want %q", want, got, waits[i:])
			}
		}
	}
	trusts(t, o, 1, "key1", digest())
	if err := o.ChangeAuthority(t.Context(), func(r authority.Record) (authority.Record, error) { return r.Begin(now) }); err != nil {
		t.Fatal(err)
	}
	for n, heard := range map[int]time.Time{2: now, 3: now.Add(-time.Hour)} { // the third is off
		_, err := o.inventory.Change(t.Context(), id(n), func(m *inventory.Machine) ([]inventory.Event, error) {
			m.LastSeen = heard
			return nil, nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	both := "the CAs that it is to trust"
	phase(authority.Trust, "prod-cp-1 ("+id(1)+"): "+both, id(2)+": "+both)
	if _, err := o.Report(t.Context(), id(1), "key1", Report{Trusts: digest()}); err != nil {
		t.Fatal(err)
	}
	phase(authority.Trust, "prod-cp-1 ("+id(1)+"): its config to be applied", id(2)+": "+both)
	next, err := o.Fetch(t.Context(), id(1), "key1", Has{Digest: "none"}, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	config, err := machine.Parse(next.YAML, "config")
	if err != nil || strings.Count(config.Cluster.MachineCA, "BEGIN") != 2 || strings.Count(plane.Cluster.MachineCA, "BEGIN") != 1 {
		t.Fatalf("the config trusts\n%s, %v", config.Cluster.MachineCA, err)
	}
	trusts(t, o, 1, "key1", digest())
	trusts(t, o, 2, "key2", digest())
	phase(authority.Use, "prod-cp-1 ("+id(1)+"): its certificate", id(2)+": its certificate", id(3)+": a sign of life")
}
