package worker

import (
	"net/netip"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"

	"slipway/configs/machine"
	"slipway/configs/secret"
	"slipway/nodeinit/proc"
	"slipway/nodeinit/proc/proctest"
	"slipway/nodeinit/supervise"
)

func config(role machine.Role) (*machine.Config, machine.Identity) {
	cp := netip.MustParseAddr("192.0.2.10")
	others := []netip.Addr{netip.MustParseAddr("192.0.2.11"), netip.MustParseAddr("192.0.2.12")}
	cfg := &machine.Config{
		Hostname: "prod-1", Role: role,
		Cluster: machine.Cluster{
			Name: "prod", Endpoint: "https://192.0.2.10:6443", ControlPlanes: append([]netip.Addr{cp}, others...),
			PodSubnet: netip.MustParsePrefix("10.244.0.0/16"), ServiceSubnet: netip.MustParsePrefix("10.96.0.0/16"),
			DNSDomain: "cluster.local", CA: "cluster CA\n", MachineCA: "machine CA\n",
			BootstrapToken: secret.New("abcdef.0123456789abcdef"),
		},
	}
	id := machine.Identity{Hostname: "prod-1", Address: cp, Link: "eth0"}
	if role == machine.Worker {
		id.Address = netip.MustParseAddr("192.0.2.20")
		cfg.Kubelet = machine.Kubelet{
			Labels: map[string]string{"rack": "a", "example.com/disk": "ssd"},
			Taints: []string{"dedicated=db:NoSchedule", "spare:NoExecute"},
		}
	}
	return cfg, id
}

// TestPages: what runs on a node of each role.
func TestPages(t *testing.T) {
	for _, role := range []machine.Role{machine.ControlPlane, machine.Worker} {
		cfg, id := config(role)
		files, err := Files(cfg, id)
		if err != nil {
			t.Fatal(err)
		}
		proctest.Golden(t, "testdata/"+string(role)+".txt", proctest.Page(Units(cfg, id), files))
	}
}

// TestContents: the files a worker gets, as text.
func TestContents(t *testing.T) {
	cfg, id := config(machine.Worker)
	files, err := Files(cfg, id)
	if err != nil {
		t.Fatal(err)
	}
	conf, err := cniFile(cniDir, netip.MustParsePrefix("10.244.3.0/24"))
	if err != nil {
		t.Fatal(err)
	}
	proctest.Golden(t, "testdata/worker-files.txt", proctest.Contents(append(files, conf)))
}

func TestParseTaints(t *testing.T) {
	for _, text := range []string{"", "dedicated", "=db:NoSchedule", "dedicated=db:"} {
		if got, err := parseTaints([]string{text}); err == nil {
			t.Errorf("parseTaints(%q) = %v, want an error", text, got)
		}
	}
}

// TestOwnAPIServerFirst: a control plane reaches its own by the loopback.
func TestOwnAPIServerFirst(t *testing.T) {
	cfg, id := config(machine.ControlPlane)
	files, err := apiProxyFiles(cfg, id)
	if err != nil {
		t.Fatal(err)
	}
	proctest.Golden(t, "testdata/apiproxy.txt", proctest.Contents(files))
}

// TestVirtualIP: control planes have the unit, and only if there is an address.
func TestVirtualIP(t *testing.T) {
	cfg, id := config(machine.ControlPlane)
	cfg.Cluster.VirtualIP = netip.MustParseAddr("192.0.2.50")
	files, err := virtualIPFiles(cfg, id)
	if err != nil {
		t.Fatal(err)
	}
	proctest.Golden(t, "testdata/vip.txt", proctest.Page(virtualIP(cfg), files)+proctest.Contents(files))
	cfg.Role = machine.Worker
	if units := virtualIP(cfg); units != nil {
		t.Errorf("a worker has %v", units)
	}
}

func TestEtcdOnlyIsNoNode(t *testing.T) {
	cfg, id := config(machine.EtcdOnly)
	files, err := Files(cfg, id)
	if units := Units(cfg, id); len(units)+len(files) > 0 || err != nil {
		t.Errorf("units %v, files %v, %v", units, files, err)
	}
}

// TestCommon: what is started before there is a config is, to the byte, what
// the config of any node has, or it would be started anew.
func TestCommon(t *testing.T) {
	common, units, err := Common()
	if err != nil {
		t.Fatal(err)
	}
	for _, role := range []machine.Role{machine.ControlPlane, machine.Worker} {
		cfg, id := config(role)
		files, err := Files(cfg, id)
		if err != nil {
			t.Fatal(err)
		}
		planned := Units(cfg, id)
		for _, u := range units {
			same := func(v supervise.Unit) bool { return reflect.DeepEqual(u, v) }
			if u.Name != "programs" && !slices.ContainsFunc(planned, same) {
				t.Errorf("%s: unit %s is another", role, u.Name)
			}
		}
		for _, f := range common {
			if !slices.ContainsFunc(files, func(g proc.File) bool { return reflect.DeepEqual(f, g) }) {
				t.Errorf("%s: file %s is another", role, f.Path)
			}
		}
	}
}

// TestImagesAreCollected: pulled images go one by one, before the disk is so full
// that the kubelet removes all of them and evicts pods; at 100 none would.
func TestImagesAreCollected(t *testing.T) {
	for _, role := range []machine.Role{machine.ControlPlane, machine.Worker} {
		files, err := kubeletFiles(config(role))
		if err != nil {
			t.Fatal(err)
		}
		var kubelet struct {
			High     int               `yaml:"imageGCHighThresholdPercent"`
			Low      int               `yaml:"imageGCLowThresholdPercent"`
			Eviction map[string]string `yaml:"evictionHard"`
		}
		if err := yaml.Unmarshal(files[0].Data, &kubelet); err != nil {
			t.Fatal(err)
		}
		for _, signal := range []string{"nodefs.available", "imagefs.available"} {
			free, err := strconv.Atoi(strings.TrimSuffix(kubelet.Eviction[signal], "%"))
			if err != nil || kubelet.Low <= 0 || kubelet.Low >= kubelet.High || kubelet.High >= 100-free {
				t.Errorf("%s: images are removed from %d %% down to %d %%, pods evicted with %s of %q, %v", role, kubelet.High, kubelet.Low, signal, kubelet.Eviction[signal], err)
			}
		}
	}
}
