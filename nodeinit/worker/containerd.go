package worker

import (
	"slipway/configs/machine"
	"slipway/nodeinit/proc"
	"slipway/nodeinit/supervise"
)

const (
	containerdName   = "containerd"
	containerdConfig = "/etc/containerd/config.toml"
	containerdSocket = "/run/containerd/containerd.sock"

	// pauseImage holds each pod's namespaces. It is ours and ships in the image.
	pauseImage = "slipway.local/pause:1"
)

// containerd may be restarted under running pods: their shims stay.
func containerd() supervise.Unit {
	return supervise.Unit{Name: containerdName, Service: &proc.Process{
		Name:          containerdName,
		Path:          "/usr/bin/containerd",
		Args:          []string{"--config=" + containerdConfig, "--log-level=warn"},
		Reads:         []string{containerdConfig},
		Ready:         proc.UnixProbe{Path: containerdSocket},
		OOMScoreAdj:   -999,
		LeaveChildren: true,
	}}
}

func containerdFiles(*machine.Config, machine.Identity) ([]proc.File, error) {
	file, err := render("containerd.toml", containerdConfig, map[string]string{
		"Socket": containerdSocket,
		"Pause":  pauseImage,
		"CNIDir": cniDir,
	})
	return []proc.File{file}, err
}
