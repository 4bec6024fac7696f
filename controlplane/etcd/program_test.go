package etcd

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"slipway/nodeinit/proc"
	"slipway/nodeinit/proc/proctest"
)

func settingsOf(members ...string) *Settings {
	s := &Settings{Cluster: "prod", Name: members[0], Generation: 2}
	for i, name := range members {
		s.Members = append(s.Members, Place{name, netip.AddrFrom4([4]byte{192, 0, 2, byte(10 + i)})})
	}
	s.Address = s.Members[0].Address
	return s
}

// TestConfigFile: the files of a member that begins and of one that joins.
func TestConfigFile(t *testing.T) {
	paths := NodePaths()
	begin := Program{Paths: paths, Settings: settingsOf("prod-cp-1"), New: true}
	join := Program{Paths: paths, Settings: settingsOf("prod-cp-2", "prod-cp-1"), Measured: Measured{RoundTrip: 60 * time.Millisecond},
		Members: []Member{{Name: "prod-cp-1", PeerURL: "https://192.0.2.11:2380"}, {PeerURL: "https://192.0.2.10:2380"}}}
	recovered := begin
	recovered.Force = true
	var files []proc.File
	for _, c := range []struct {
		name    string
		program Program
	}{{"begin", begin}, {"join", join}, {"recover", recovered}} {
		text, err := c.program.ConfigFile()
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, proc.File{Path: c.name, Data: text})
	}
	proctest.Golden(t, "testdata/etcd.yaml.txt", proctest.Contents(files))
}

func TestTiming(t *testing.T) {
	const ms = time.Millisecond
	tests := []struct {
		name      string
		measured  Measured
		members   int
		heartbeat time.Duration
	}{
		{"alone", Measured{Fsync: 30 * ms}, 1, 50 * ms},
		{"a rack of servers", Measured{Fsync: 2 * ms, RoundTrip: ms, Sign: 25 * time.Microsecond}, 3, 100 * ms},
		{"two sites", Measured{RoundTrip: 60 * ms}, 3, 250 * ms},
		{"a slow disk that is allowed", Measured{Fsync: 300 * ms}, 3, 500 * ms},
		{"software emulation", Measured{RoundTrip: 30 * ms, Sign: 700 * time.Microsecond}, 3, 500 * ms},
		{"a processor as slow as none", Measured{Sign: time.Second}, 3, 500 * ms},
		{"the other side of the world", Measured{RoundTrip: 900 * ms}, 3, time.Second},
	}
	for _, tt := range tests {
		heartbeat, election := tt.measured.Timing(tt.members)
		if heartbeat != tt.heartbeat || election != 10*heartbeat {
			t.Errorf("%s: %s and %s, want %s", tt.name, heartbeat, election, tt.heartbeat)
		}
	}
}

func TestSlowDisk(t *testing.T) {
	if text := (Measured{Fsync: 9 * time.Millisecond}).SlowDisk(); text != "" {
		t.Errorf("a good disk: %s", text)
	}
	if text := (Measured{Fsync: 123456 * time.Microsecond}).SlowDisk(); !strings.Contains(text, "123ms") || !strings.Contains(text, "100ms") {
		t.Errorf("a slow disk: %q names no figures", text)
	}
}
