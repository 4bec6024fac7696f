package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"slices"
	"time"

	"connectrpc.com/connect"

	"slipway/bootsvc/api/bootv1"
	"slipway/bootsvc/api/client"
	"slipway/configs/machine"
	"slipway/controlplane/apiclient"
	"slipway/controlplane/drain"
)

// apiPort is where API servers listen on their machines.
const apiPort = "6443"

// kubeServers reaches a cluster's API, by whichever of its control planes answers:
// the one behind its endpoint may be the one that restarts.
type kubeServers struct {
	clients []*apiclient.Client
}

// openKube asks the boot service for credentials.
func openKube(ctx context.Context, boot *client.Client, c *bootv1.Cluster) (*kubeServers, error) {
	answer, err := boot.Clusters.Kubeconfig(ctx, connect.NewRequest(&bootv1.KubeconfigRequest{Name: c.GetName()}))
	if err != nil {
		return nil, err
	}
	credentials, err := readCredentials(answer.Msg.GetKubeconfig())
	if err != nil {
		return nil, err
	}
	pair, err := tls.X509KeyPair(credentials.cert, credentials.key)
	if err != nil {
		return nil, fmt.Errorf("read kubeconfig: %w", err)
	}
	k := &kubeServers{}
	for _, server := range servers(credentials.server, c.GetMachines()) {
		client, err := apiclient.New(server, credentials.ca, pair)
		if err != nil {
			return nil, err
		}
		k.clients = append(k.clients, client)
	}
	return k, nil
}

// servers are the endpoint and each control plane's own.
func servers(endpoint string, machines []*bootv1.Machine) []string {
	list := []string{endpoint}
	for _, m := range machines {
		own := "https://" + m.GetAddress() + ":" + apiPort
		if m.GetRole() == string(machine.ControlPlane) && m.GetAddress() != "" && !slices.Contains(list, own) {
			list = append(list, own)
		}
	}
	return list
}

// ready is the first that answers.
func (k *kubeServers) ready(ctx context.Context) (drain.Node, error) {
	var errs []error
	for _, c := range k.clients {
		probe, cancel := context.WithTimeout(ctx, 5*time.Second)
		_, err := c.Find(probe, "/readyz", "ok")
		cancel()
		if err == nil {
			return drain.Node{API: c}, nil
		}
		errs = append(errs, err)
	}
	return drain.Node{}, fmt.Errorf("reach the cluster's API: %w", errors.Join(errs...))
}
