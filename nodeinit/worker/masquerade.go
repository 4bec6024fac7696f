package worker

import (
	"slipway/configs/machine"
	"slipway/nodeinit/proc"
	"slipway/nodeinit/supervise"
)

const (
	masqueradeName = "masquerade"
	masqueradePath = "/etc/slipway/masquerade.nft"
)

// masquerade gives pods the node's address for whatever lies outside of the
// pod network. Between pods, on whatever nodes, addresses stay as they are.
func masquerade() supervise.Unit {
	return supervise.Unit{Name: masqueradeName, Restart: supervise.OnFailure, Service: &proc.Process{
		Name: masqueradeName,
		Path: "/usr/sbin/nft",
		Args: []string{"--file", masqueradePath},
	}}
}

func masqueradeFiles(cfg *machine.Config, _ machine.Identity) ([]proc.File, error) {
	file, err := render("masquerade.nft", masqueradePath, cfg.Cluster.PodSubnet)
	return []proc.File{file}, err
}
