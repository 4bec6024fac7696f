package cluster_test

import (
	"bytes"
	"flag"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"

	"slipway/configs/cluster"
	"slipway/configs/machine"
	"slipway/configs/secret"
)

var update = flag.Bool("update", false, "write the goldens")

func TestExamples(t *testing.T) {
	for _, file := range []string{"cluster-minimal.yaml", "cluster-ha.yaml"} {
		t.Run(file, func(t *testing.T) {
			data, err := os.ReadFile(filepath.Join("../examples", file))
			if err != nil {
				t.Fatal(err)
			}
			got, err := cluster.Parse(data, file)
			if err != nil {
				t.Fatal(err)
			}
			roundTrip(t, got)
		})
	}
}

func roundTrip(t *testing.T, c *cluster.Cluster) {
	t.Helper()
	data, err := cluster.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	again, err := cluster.Parse(data, "again")
	if err != nil {
		t.Fatalf("%v\n%s", err, data)
	}
	if diff := cmp.Diff(c, again, comparers); diff != "" {
		t.Errorf("marshalled and parsed again (-want +got):\n%s", diff)
	}
}

func TestShortestIsComplete(t *testing.T) {
	c, err := cluster.Parse([]byte("name: demo\nmachines: [{id: '52:54:00:AB:cd:56'}]\n"), "c")
	if err != nil {
		t.Fatal(err)
	}
	yes := true
	want := &cluster.Cluster{
		APIVersion: "slipway/v1", Kind: "Cluster", Name: "demo",
		Etcd:                cluster.Etcd{Snapshots: cluster.Snapshots{Every: 6 * time.Hour, Keep: 28}},
		CertificateLifetime: 365 * 24 * time.Hour,
		Network: cluster.Network{
			PodSubnet: cluster.DefaultPodSubnet, ServiceSubnet: cluster.DefaultServiceSubnet, DNSDomain: "cluster.local",
		},
		ScheduleOnControlPlanes: &yes,
		Install:                 cluster.Install{Disk: machine.Disk{Word: machine.NoDisk}},
		Machines:                []cluster.Machine{{ID: "52-54-00-ab-cd-56", Role: machine.ControlPlane, Hostname: "demo-cp-1"}},
	}
	if diff := cmp.Diff(want, c, comparers); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// TestErrors reads each case of testdata/errors: the input and what is said of it.
func TestErrors(t *testing.T) {
	files, err := filepath.Glob("testdata/errors/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatal("no cases", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) { checkErrors(t, file) })
	}
}

func checkErrors(t *testing.T, file string) {
	a, err := txtar.ParseFile(file)
	if err != nil {
		t.Fatal(err)
	}
	_, err = cluster.Parse(a.Files[0].Data, "cluster.yaml")
	if err == nil {
		t.Fatal("no error")
	}
	got := []byte(err.Error() + "\n")
	if *update {
		a.Files = append(a.Files[:1], txtar.File{Name: "errors", Data: got})
		if err := os.WriteFile(file, txtar.Format(a), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if !bytes.Equal(got, a.Files[1].Data) {
		t.Error(cmp.Diff(string(a.Files[1].Data), string(got)))
	}
}

func FuzzClusterParse(f *testing.F) {
	for _, file := range []string{"cluster-minimal.yaml", "cluster-ha.yaml"} {
		data, err := os.ReadFile(filepath.Join("../examples", file))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := cluster.Parse(data, "fuzz.yaml")
		if (c == nil) == (err == nil) {
			t.Fatalf("Parse returned %v and %v", c, err)
		}
		if err == nil {
			roundTrip(t, c)
		}
	})
}

// prefixes compares subnets by value: their types hide their fields.
var comparers = cmp.Options{
	cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }),
	cmp.Comparer(func(a, b netip.Addr) bool { return a == b }),
	cmp.Comparer(func(a, b secret.String) bool { return a == b }),
}

// TestInstall says what each machine's disk is: its own word, or the cluster's.
func TestInstall(t *testing.T) {
	c, err := cluster.Parse([]byte(`name: demo
install: {disk: any, dataSize: 20GiB}
machines:
- {id: '52-54-00-00-00-01'}
- {id: '52-54-00-00-00-02', install: {disk: {type: nvme, minSize: 100GB}}}
- {id: '52-54-00-00-00-03', install: {disk: none}}
- {id: '52-54-00-00-00-04', install: {dataSize: 1TiB}}
`), "c")
	if err != nil {
		t.Fatal(err)
	}
	roundTrip(t, c)
	want := []cluster.Install{
		{Disk: machine.Disk{Word: "any"}, DataSize: 20 * machine.GiB},
		{Disk: machine.Disk{Rule: &machine.DiskRule{Type: machine.NVMe, MinSize: 100e9}}, DataSize: 20 * machine.GiB},
		{Disk: machine.Disk{Word: "none"}},
		{Disk: machine.Disk{Word: "any"}, DataSize: 1024 * machine.GiB},
	}
	for i, m := range c.Machines {
		if diff := cmp.Diff(want[i], c.InstallOf(m)); diff != "" {
			t.Errorf("machine %s (-want +got):\n%s", m.ID, diff)
		}
	}
}

func TestEverySettingIsWritten(t *testing.T) {
	c, err := cluster.Parse([]byte("name: demo\nvirtualIP: 192.0.2.9\netcd: {allowSlowDisk: true, snapshots: {every: 1h, keep: 3}}\nmachines: [{id: '52:54:00:AB:cd:56'}]\n"), "c")
	if err != nil {
		t.Fatal(err)
	}
	roundTrip(t, c)
}
