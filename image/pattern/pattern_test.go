package pattern

import "testing"

func TestTakes(t *testing.T) {
	f := Filter{Include: []string{"kernel/net/", "kernel/fs/*.ko", "usr/sbin/nft"}, Exclude: []string{"kernel/net/atm/"}}
	for name, want := range map[string]bool{
		"kernel/net/ipv4/ip_tunnel.ko": true,
		"kernel/net/atm/atm.ko":        false,
		"kernel/fs/binfmt_misc.ko":     true,
		"kernel/fs/ext4/ext4.ko":       false,
		"kernel/network/x.ko":          false,
		"usr/sbin/nft":                 true,
		"usr/sbin/nftx":                false,
	} {
		if got := f.Takes(name); got != want {
			t.Errorf("Takes(%q) = %v, want %v", name, got, want)
		}
	}
}

func TestCheck(t *testing.T) {
	for p, valid := range map[string]bool{"a/": true, "a/*.ko": true, "": false, "/a": false, "a/[": false} {
		if err := Check(p); (err == nil) != valid {
			t.Errorf("Check(%q) = %v", p, err)
		}
	}
}
