package host

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"slipway/bootsvc/dhcp"
	"slipway/bootsvc/lease"
	"slipway/bootsvc/store"
	"slipway/test/netns"
)

// The benchmarks put the same load on our servers and on dnsmasq, across the
// same bridge:
//
//	go test ./test/host -run '^$' -bench . -benchtime 1x

// kept is a lease.Store in etcd, as slipway serve has it: every ACK waits for the disk.
type kept struct{ table store.Table[lease.Lease] }

func (k kept) Load(ctx context.Context) ([]lease.Lease, error) { return k.table.List(ctx) }
func (k kept) Save(ctx context.Context, l lease.Lease) error   { return k.table.Put(ctx, l.MAC, l) }
func (k kept) Delete(ctx context.Context, mac string) error    { return k.table.Delete(ctx, mac) }

func etcd(b *testing.B) lease.Store {
	b.Helper()
	dir := b.TempDir()
	s, err := store.Open(b.Context(), store.Config{Dir: filepath.Join(dir, "etcd"), KeyFile: filepath.Join(dir, "key"), Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(s.Close)
	return kept{store.NewTable[lease.Lease](s, "leases")}
}

// wide makes room for a crowd.
func wide(_ *dhcp.Config, p *lease.Pool) {
	p.First, p.Last = first.Prev(), subnet.Addr()
	for range 60_000 {
		p.Last = p.Last.Next()
	}
}

func dnsmasq(b *testing.B, args ...string) *netns.Net {
	b.Helper()
	netns.Require(b, "dnsmasq")
	n := netns.New(b, bridgeAddress)
	cmd := exec.Command("dnsmasq", append([]string{"--no-daemon", "--conf-file=/dev/null", "--port=0", "--user=root", "--bind-interfaces", "--interface=" + n.Device}, args...)...)
	said, err := cmd.StderrPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	if !netns.Await(said, "started") {
		b.Fatal("dnsmasq ended")
	}
	return n
}

func BenchmarkDHCP(b *testing.B) {
	netns.Require(b)
	peers := map[string]func(b *testing.B) *netns.Net{
		"slipway":        func(b *testing.B) *netns.Net { return start(b, wide, nil, nil, etcd(b)).Net },
		"slipway-memory": func(b *testing.B) *netns.Net { return start(b, wide, nil, nil, nil).Net },
		"dnsmasq": func(b *testing.B) *netns.Net {
			return dnsmasq(b, "--dhcp-range=10.99.0.100,10.99.200.0,255.255.0.0,1h", "--dhcp-lease-max=60000", "--dhcp-leasefile="+filepath.Join(b.TempDir(), "leases"), "--quiet-dhcp", "--dhcp-authoritative", "--no-ping")
		},
	}
	for _, name := range []string{"slipway", "slipway-memory", "dnsmasq"} {
		for _, window := range []int{1, 10, 50, 200} {
			b.Run(fmt.Sprintf("%s/window=%d", name, window), func(b *testing.B) {
				n := peers[name](b)
				crowd := n.Host("02:00:00:00:00:77")
				for b.Loop() {
					r := runLoad(b, crowd, load{Clients: 200 + 20*window, Window: window})
					b.ReportMetric(float64(r.Done)/r.Seconds, "exchanges/s")
					b.ReportMetric(100*float64(r.Lost)/float64(r.Done+r.Lost), "lost%")
				}
			})
		}
	}
}

func runLoad(b *testing.B, h *netns.Host, l load) result {
	b.Helper()
	text, err := json.Marshal(l)
	if err != nil {
		b.Fatal(err)
	}
	cmd := again(b, h, loading, string(text))
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		b.Fatal(err)
	}
	var r result
	if err := json.Unmarshal(out, &r); err != nil {
		b.Fatalf("%v: %s", err, out)
	}
	return r
}

func BenchmarkTFTP(b *testing.B) {
	netns.Require(b, "curl")
	dir := b.TempDir()
	data := noise(64 << 20)
	if err := os.WriteFile(filepath.Join(dir, "large"), data, 0o644); err != nil {
		b.Fatal(err)
	}
	peers := map[string]func(b *testing.B) *netns.Net{
		"slipway": func(b *testing.B) *netns.Net { return start(b, nil, map[string][]byte{"large": data}, nil, nil).Net },
		"dnsmasq": func(b *testing.B) *netns.Net { return dnsmasq(b, "--enable-tftp", "--tftp-root="+dir) },
	}
	for _, name := range []string{"slipway", "dnsmasq"} {
		b.Run(name, func(b *testing.B) {
			n := peers[name](b)
			fetchers(b, n, 1, int64(len(data)), "tftp://10.99.0.1/large", "--tftp-blksize", "1468")
		})
	}
}

func BenchmarkHTTP(b *testing.B) {
	netns.Require(b, "curl")
	data := noise(100 << 20)
	for _, clients := range []int{1, 8} {
		b.Run(fmt.Sprintf("clients=%d", clients), func(b *testing.B) {
			s := start(b, nil, nil, map[string][]byte{"/image/initramfs": data}, nil)
			fetchers(b, s.Net, clients, int64(len(data)), "http://10.99.0.1/image/initramfs")
		})
	}
}

// fetchers has clients fetch a URL at once and reports megabytes a second in all.
func fetchers(b *testing.B, n *netns.Net, clients int, size int64, url string, args ...string) {
	b.Helper()
	h := n.Host("02:00:00:00:00:78")
	h.Run("ip", "addr", "add", "10.99.0.50/16", "dev", "eth0")
	one := "curl -sS -o /dev/null " + strings.Join(args, " ") + " " + url
	for b.Loop() {
		began := time.Now()
		h.Run("sh", "-c", strings.Repeat(one+" & ", clients)+"wait")
		b.ReportMetric(float64(size)*float64(clients)/1e6/time.Since(began).Seconds(), "MB/s")
	}
}
