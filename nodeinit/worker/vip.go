package worker

import (
	"net/netip"
	"slices"

	"slipway/configs/machine"
	"slipway/nodeinit/early"
	"slipway/nodeinit/proc"
	"slipway/nodeinit/supervise"
	"slipway/nodeinit/vip"
)

const vipName = "vip"

// virtualIP waits for nothing: its part in the election is as good as the API
// server is, and it is none while there is none.
func virtualIP(cfg *machine.Config) []supervise.Unit {
	if !hasVirtualIP(cfg) {
		return nil
	}
	return []supervise.Unit{{Name: vipName, Service: &proc.Process{
		Name:        vipName,
		Path:        early.Self,
		Args:        []string{vipName},
		Reads:       []string{vip.Path},
		OOMScoreAdj: -999,
	}}}
}

func virtualIPFiles(cfg *machine.Config, id machine.Identity) ([]proc.File, error) {
	if !hasVirtualIP(cfg) {
		return nil, nil
	}
	isOwn := func(addr netip.Addr) bool { return addr == id.Address }
	file, err := vip.File{
		VirtualIP: cfg.Cluster.VirtualIP, Link: id.Link, Address: id.Address,
		Peers: slices.DeleteFunc(slices.Clone(cfg.Cluster.ControlPlanes), isOwn),
	}.Encode()
	return []proc.File{file}, err
}

func hasVirtualIP(cfg *machine.Config) bool {
	return cfg.Role == machine.ControlPlane && cfg.Cluster.VirtualIP.IsValid()
}
