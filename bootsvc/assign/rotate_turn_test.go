package assign

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"slipway/bootsvc/inventory"
	"slipway/bootsvc/store"
	"slipway/configs/enroll"
	"slipway/configs/machine"
)

// rig is a cluster of control planes whose machines take what they are given.
type rig struct {
	*testing.T
	*Office
	clock time.Time
}

func newRig(t *testing.T, machines int) *rig {
	r := &rig{T: t, Office: threeOf(t), clock: noon}
	r.now = func() time.Time { return r.clock }
	for n := 1; n <= machines; n++ {
		r.take(n)
	}
	return r
}

// take has the n-th machine run, well, with the config that it should have.
func (r *rig) take(n int) {
	r.Helper()
	c, err := r.Get(r.Context(), "prod")
	if err != nil {
		r.Fatal(err)
	}
	keys, err := r.keys.Get(r.Context(), "prod")
	if err != nil {
		r.Fatal(err)
	}
	wanted, err := c.render(c.Machines[n-1], keys)
	if err != nil {
		r.Fatal(err)
	}
	r.report(n, func(m *inventory.Machine) {
		m.Given.Digest, m.Applied, m.LastSeen = wanted.digest, wanted.digest, r.clock
		m.Etcd = inventory.EtcdState{Voter: true, Healthy: true, Generation: c.Etcd.Generation}
		*m = m.Enter(enroll.Ready)
	})
}

func (r *rig) report(n int, change func(*inventory.Machine)) {
	r.Helper()
	_, err := r.inventory.Change(r.Context(), id(n), func(m *inventory.Machine) ([]inventory.Event, error) {
		change(m)
		return nil, nil
	})
	if err != nil {
		r.Fatal(err)
	}
}

func (r *rig) turnAll() {
	r.Helper()
	if err := r.Turn(r.Context(), slog.New(slog.DiscardHandler)); err != nil {
		r.Fatal(err)
	}
}

// shown are the rotations as people see them.
func (r *rig) shown() (text string) {
	r.Helper()
	c, err := r.Show(r.Context(), "prod")
	if err != nil {
		r.Fatal(err)
	}
	rotations, err := r.Rotations(r.Context(), c)
	if err != nil {
		r.Fatal(err)
	}
	for _, one := range rotations {
		text += fmt.Sprintf("%s %s: %s\n", one.What, one.Phase, one.WaitingFor)
	}
	return text
}

func (r *rig) rotate(what What) {
	r.Helper()
	if _, err := r.Rotate(r.Context(), "prod", what); err != nil {
		r.Fatal(err)
	}
}

func (r *rig) want(text string) {
	r.Helper()
	if got := r.shown(); !strings.HasPrefix(got, text) || text == "" && got != "" {
		r.Fatalf("the rotations are\n%swant\n%s", got, text)
	}
}

func TestARotationFollowsTheMachines(t *testing.T) {
	r := newRig(t, 3)
	r.turnAll()
	r.want("")
	r.rotate(EtcdCA)
	r.rotate(EtcdCA) // once more is the same one
	for _, phase := range []string{"trust", "use", "retire"} {
		for n := 1; n <= 3; n++ {
			r.turnAll()
			r.want(fmt.Sprintf("etcd-ca %s: prod-cp-%d (%s) to take its config", phase, n, id(n)))
			r.take(n)
		}
		r.turnAll()
	}
	r.want("")
	line, err := r.inventory.Timeline(t.Context(), id(2))
	if err != nil {
		t.Fatal(err)
	}
	var events []string
	for _, e := range line.Latest() {
		if e.Name == "rotation" {
			events = append(events, e.Detail)
		}
	}
	if !slices.Equal(events, []string{"etcd-ca: use", "etcd-ca: retire", "etcd-ca: done"}) {
		t.Errorf("the timeline says %q", events)
	}
}

func TestADeadMachineHoldsARotationAndIsNamed(t *testing.T) {
	r := newRig(t, 3)
	r.rotate(SecretsKey)
	r.take(1)
	r.take(3)
	r.clock = r.clock.Add(time.Hour)
	r.take(1)
	r.take(3)
	r.turnAll()
	r.want("encryption-key trust: prod-cp-2 (52-54-00-00-00-02) to take its config; it waits for a sign of life")
	r.take(2)
	r.report(2, func(m *inventory.Machine) { m.Etcd.Healthy = false })
	r.turnAll()
	r.want("encryption-key trust: prod-cp-2 (52-54-00-00-00-02) to be well: it waits for its member of etcd to be a healthy voter")
	r.report(2, func(m *inventory.Machine) { m.Etcd.Healthy = true; *m = m.Enter(enroll.Joining) })
	r.turnAll()
	r.want("encryption-key trust: prod-cp-2 (52-54-00-00-00-02) to be well: it waits for its services to start")
	r.report(2, func(m *inventory.Machine) { *m = m.Enter(enroll.Ready) })
	r.turnAll()
	r.want("encryption-key use: prod-cp-1")
}

func TestConfigsShowBothWhileTheyRotate(t *testing.T) {
	r := newRig(t, 3)
	r.rotate(KubernetesCA)
	r.rotate(SecretsKey)
	r.rotate(AccountKey)
	c, err := r.Get(t.Context(), "prod")
	if err != nil {
		t.Fatal(err)
	}
	keys, err := r.keys.Get(t.Context(), "prod")
	if err != nil {
		t.Fatal(err)
	}
	wanted, err := c.render(c.Machines[0], keys) // which validates
	if err != nil {
		t.Fatal(err)
	}
	config, err := machine.Parse(wanted.text, "config")
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(config.Cluster.CA, "BEGIN CERTIFICATE"); n != 2 || len(config.ControlPlaneKeys.EncryptionKeys) != 2 {
		t.Errorf("the config has %d CAs and %d keys", n, len(config.ControlPlaneKeys.EncryptionKeys))
	}
	if other := config.ControlPlaneKeys.OtherAccounts; other != string(keys.OtherServiceAccount) || other == "" {
		t.Errorf("the other service-account key is %q", other)
	}
	kubeconfig, err := r.Kubeconfig(t.Context(), "prod", "ann")
	if err != nil || len(kubeconfig) < 2*len(keys.CA.CertPEM) {
		t.Errorf("a kubeconfig does not trust both: %v", err)
	}
}

func TestWhatIsNotRotated(t *testing.T) {
	r := newRig(t, 0)
	if _, err := r.Rotate(t.Context(), "test", EtcdCA); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("a cluster that does not exist: %v", err)
	}
	if _, err := r.keys.Get(t.Context(), "test"); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("its keys: %v", err)
	}
}

func TestRunRotationsTurnsAtEveryReport(t *testing.T) {
	r := newRig(t, 3)
	r.rotate(FrontProxyCA)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- r.RunRotations(ctx, slog.New(slog.DiscardHandler)) }()
	for n := 1; n <= 3; n++ {
		r.take(n)
	}
	taken, stop := context.WithTimeout(t.Context(), 20*time.Second)
	defer stop()
	err := r.keys.WaitFor(taken, func() (bool, error) {
		keys, err := r.keys.Get(taken, "prod")
		return err == nil && !keys.Rotations[0].Taken.IsZero(), err
	})
	if err != nil {
		t.Errorf("nobody turned: %v", err)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
