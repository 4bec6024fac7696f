package inventory

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"slipway/bootsvc/store"
	"slipway/bootsvc/timeline"
	"slipway/configs/enroll"
)

const id = "52-54-00-00-00-01"

func open(t *testing.T) *Inventory {
	t.Helper()
	dir := t.TempDir()
	log := slog.New(slog.NewTextHandler(t.Output(), nil))
	s, err := store.Open(t.Context(), store.Config{Dir: filepath.Join(dir, "etcd"), KeyFile: filepath.Join(dir, "key"), Log: log})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return New(s, log, prometheus.NewRegistry())
}

func TestServersEventsReachTheTimeline(t *testing.T) {
	v := open(t)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- v.Run(ctx) }()

	mac, err := net.ParseMAC("52:54:00:00:00:01")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range []timeline.Event{
		{MAC: mac, Name: "dhcp", Asker: timeline.Firmware, At: powerOn, UUID: "u-1"},
		{MAC: nil, Name: "http", At: powerOn}, // somebody without a lease
		{MAC: mac, Name: "tftp", Detail: "undionly.kpxe", At: powerOn.Add(1)},
	} {
		v.Observe(ctx, e)
	}
	var m Machine
	err = v.WaitFor(ctx, func() (bool, error) {
		m, err = v.Get(ctx, id)
		if errors.Is(err, store.ErrNotFound) {
			return false, nil
		}
		return m.Phase == enroll.Booting, err
	})
	if err != nil {
		t.Fatal(err)
	}
	if m.Facts.UUID != "u-1" || !m.FirstSeen.Equal(powerOn) {
		t.Errorf("the machine is %+v", m)
	}
	if machines, err := v.List(ctx); err != nil || len(machines) != 1 {
		t.Errorf("%d machines, %v", len(machines), err)
	}
	line, err := v.Timeline(ctx, id)
	if got := strings.Join(boots(line), "; "); err != nil || got != "dhcp×1 tftp×1" {
		t.Errorf("the timeline is %s, %v", got, err)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestObserveNeverBlocks(t *testing.T) {
	v := open(t) // nothing drains the queue
	mac, err := net.ParseMAC("52:54:00:00:00:01")
	if err != nil {
		t.Fatal(err)
	}
	for range maxQueue + 10 {
		v.Observe(t.Context(), timeline.Event{MAC: mac, Name: "dhcp", At: powerOn})
	}
	var dropped dto.Metric
	if err := v.dropped.Write(&dropped); err != nil || dropped.GetCounter().GetValue() != 10 {
		t.Errorf("%v events dropped, want 10; %v", dropped.GetCounter(), err)
	}
}

func TestAFailedChangeChangesNothing(t *testing.T) {
	v := open(t)
	stop := errors.New("stop")
	_, err := v.Change(t.Context(), id, func(m *Machine) ([]Event, error) {
		m.Cluster = "prod"
		return []Event{at(0, "assigned")}, stop
	})
	if !errors.Is(err, stop) {
		t.Errorf("the error is %v", err)
	}
	if _, err := v.Get(t.Context(), id); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("the machine exists: %v", err)
	}
	if line, err := v.Timeline(t.Context(), id); err != nil || len(line.Boots) != 0 {
		t.Errorf("the timeline is %v, %v", line, err)
	}
}

func TestMachinesAreListedAsTheyWereDiscovered(t *testing.T) {
	v := open(t)
	for i, one := range []string{"52-54-00-00-00-09", "52-54-00-00-00-01", "52-54-00-00-00-05"} {
		if err := v.Record(t.Context(), one, at(float64(i), "dhcp/loader")); err != nil {
			t.Fatal(err)
		}
	}
	machines, err := v.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var order []string
	for _, m := range machines {
		order = append(order, m.ID[len(m.ID)-1:])
	}
	if got := strings.Join(order, " "); got != "9 1 5" {
		t.Errorf("the order is %s", got)
	}
}

func TestAFloodOfStrangersPushesOutStrangersOnly(t *testing.T) {
	v := open(t)
	v.limit = 8
	for i, known := range []func(*Machine){
		func(m *Machine) { m.Cluster = "prod" },
		func(m *Machine) { m.Enrolment.Approved.Hash = "a" },
		func(m *Machine) { m.Enrolment.Pending.Hash = "b" },
	} {
		_, err := v.Change(t.Context(), fmt.Sprintf("52-54-00-00-01-%02d", i), func(m *Machine) ([]Event, error) {
			known(m)
			return nil, nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	for i := range 50 {
		if err := v.Record(t.Context(), fmt.Sprintf("52-54-00-00-00-%02d", i), at(float64(i), "dhcp/firmware")); err != nil {
			t.Fatal(err)
		}
	}
	machines, err := v.List(t.Context())
	if err != nil || len(machines) > v.limit {
		t.Fatalf("%d machines, %v", len(machines), err)
	}
	var known int
	for _, m := range machines {
		if !m.stranger() {
			known++
		}
	}
	if known != 3 || machines[len(machines)-1].ID != "52-54-00-00-00-49" {
		t.Errorf("%d known machines are left; the newest is %s", known, machines[len(machines)-1].ID)
	}
	if count, err := v.timelines.Count(t.Context()); err != nil || count > int64(v.limit) {
		t.Errorf("%d timelines are left, %v", count, err)
	}
}

func TestAFullInventoryRefuses(t *testing.T) {
	v := open(t)
	v.limit = 1
	_, err := v.Change(t.Context(), id, func(m *Machine) ([]Event, error) {
		m.Cluster = "prod"
		return nil, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := v.Record(t.Context(), "52-54-00-00-00-02", at(0, "dhcp/firmware")); !errors.Is(err, ErrFull) {
		t.Errorf("one too many: %v", err)
	}
	if err := v.Record(t.Context(), id, at(0, "dhcp/firmware")); err != nil {
		t.Errorf("a machine that is there already: %v", err)
	}
}
