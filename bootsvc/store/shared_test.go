package store

import (
	"context"
	"log/slog"
	"net/url"
	"path/filepath"
	"sync"
	"testing"

	"go.etcd.io/etcd/server/v3/embed"
)

// listen runs an etcd that others may use, on a socket.
func listen(t *testing.T) (endpoint string) {
	t.Helper()
	dir := t.TempDir()
	at := url.URL{Scheme: "unix", Path: filepath.Join(dir, "client")}
	config := embed.NewConfig()
	config.Dir = filepath.Join(dir, "data")
	config.ListenPeerUrls = nil
	config.ListenClientUrls, config.AdvertiseClientUrls = []url.URL{at}, []url.URL{at}
	config.TickMs, config.ElectionMs = tickMs, electionMs
	config.ZapLoggerBuilder = embed.NewZapLoggerBuilder(zapTo(configOf(t).Log))
	member, err := embed.StartEtcd(config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(member.Close)
	<-member.Server.ReadyNotify()
	return at.String()
}

func configOf(t *testing.T) Config { return config(t, t.TempDir()) }

// TestTwoServicesShareOneEtcd has two stores on an etcd cluster that neither
// of them runs: what one writes the other sees, and no update is lost.
func TestTwoServicesShareOneEtcd(t *testing.T) {
	c := configOf(t)
	c.Dir, c.Endpoints = "", []string{listen(t)}
	var tables []Table[document]
	for range 2 {
		s, err := Open(t.Context(), c)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(s.Close)
		tables = append(tables, SealedTable[document](s, "shared"))
	}
	const rounds = 20
	var group sync.WaitGroup
	for _, table := range tables {
		group.Go(func() {
			for range rounds {
				if _, err := table.Update(context.Background(), "n", func(d *document) error { d.Count++; return nil }); err != nil {
					t.Error(err)
				}
			}
		})
	}
	group.Wait()
	for i, table := range tables {
		if got, err := table.Get(t.Context(), "n"); err != nil || got.Count != 2*rounds {
			t.Errorf("store %d has %d, %v; want %d", i, got.Count, err, 2*rounds)
		}
	}
}

// BenchmarkPut is what a DHCP server does at its busiest: many machines' leases
// at once, each on the disk before it is promised.
func BenchmarkPut(b *testing.B) {
	dir := b.TempDir()
	s, err := Open(b.Context(), Config{Dir: filepath.Join(dir, "etcd"), KeyFile: filepath.Join(dir, "key"), Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	table := NewTable[document](s, "bench")
	b.SetParallelism(32)
	b.RunParallel(func(pb *testing.PB) {
		for n := 0; pb.Next(); n++ {
			if err := table.Put(b.Context(), "machine", document{Name: "x", Count: n}); err != nil {
				b.Error(err)
			}
		}
	})
}
