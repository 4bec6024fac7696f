package worker

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"path/filepath"

	"slipway/nodeinit/proc"
)

const (
	cniDir = "/etc/cni/net.d"
	// leases of pod addresses end with the boot: pods do too.
	cniLeases = "/run/slipway/pod-addresses"
)

// cniFile is the pod network of this node: a bridge, which is the pods'
// gateway, with addresses from the node's pod subnet, and host ports
// (github.com/containernetworking/cni/blob/main/SPEC.md, version 1.0.0).
func cniFile(dir string, subnet netip.Prefix) (proc.File, error) {
	text, err := json.MarshalIndent(map[string]any{
		"cniVersion": "1.0.0",
		"name":       "slipway",
		"plugins": []any{
			map[string]any{
				"type":        "bridge",
				"bridge":      bridgeOf(subnet),
				"isGateway":   true,
				"hairpinMode": true,
				"ipam": map[string]any{
					"type":    "host-local",
					"dataDir": cniLeases,
					"ranges":  [][]any{{map[string]any{"subnet": subnet.String()}}},
					"routes":  []any{map[string]any{"dst": "0.0.0.0/0"}},
				},
			},
			map[string]any{
				"type":         "portmap",
				"backend":      "nftables",
				"capabilities": map[string]any{"portMappings": true},
			},
		},
	}, "", "  ")
	if err != nil {
		return proc.File{}, fmt.Errorf("encode pod network: %w", err)
	}
	return proc.File{Path: filepath.Join(dir, "10-slipway.conflist"), Mode: 0o644, Data: append(text, '\n')}, nil
}

// bridgeOf names a bridge by its subnet (IPv4): a Node that is registered anew
// gets another one, and the plugin does not give a bridge that has an address a
// second. The pods of before have their gateway until they are stopped.
func bridgeOf(subnet netip.Prefix) string {
	return fmt.Sprintf("cni%x", subnet.Masked().Addr().AsSlice())
}
