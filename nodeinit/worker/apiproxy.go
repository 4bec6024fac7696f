package worker

import (
	"net"
	"net/netip"

	"slipway/configs/machine"
	"slipway/nodeinit/apiproxy"
	"slipway/nodeinit/early"
	"slipway/nodeinit/proc"
	"slipway/nodeinit/supervise"
)

const (
	apiProxyName = "apiproxy"

	// apiServer is the API server that this node's components use, whichever it is.
	apiServer = apiproxy.Server
	apiPort   = "6443"
)

// apiProxy is ready when it takes connections: whether an API server answers is
// the business of those who ask.
func apiProxy() supervise.Unit {
	return supervise.Unit{Name: apiProxyName, Service: &proc.Process{
		Name: apiProxyName,
		Path: early.Self,
		Args: []string{apiProxyName},
		// It reads its file again by itself: connections outlive a change.
		Ready:       proc.TCPProbe{Address: apiproxy.Address},
		OOMScoreAdj: -999,
	}}
}

// apiProxyFiles tells it the control planes. This machine's own is reached by
// the loopback, which works whatever happens to its network.
func apiProxyFiles(cfg *machine.Config, id machine.Identity) ([]proc.File, error) {
	upstreams := apiproxy.File{Others: []string{}}
	for _, addr := range cfg.Cluster.ControlPlanes {
		if cfg.Role == machine.ControlPlane && addr == id.Address {
			addr = netip.MustParseAddr("127.0.0.1")
			upstreams.Own = net.JoinHostPort(addr.String(), apiPort)
			continue
		}
		upstreams.Others = append(upstreams.Others, net.JoinHostPort(addr.String(), apiPort))
	}
	file, err := upstreams.Encode()
	return []proc.File{file}, err
}
