package addons

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"slipway/controlplane/apiclient"
)

// dns keeps the endpoints of the DNS service: the control planes, of which
// those count as ready whose Node is. Every control plane runs it and comes to
// the same from the same Nodes, whatever its own config says, so that they do
// not fight: a machine that joins is there with its Node, and one that died is
// gone with its Node's readiness.
type dns struct {
	access apiclient.Access
	own    netip.Addr

	client *apiclient.Client // nil: to be opened with the certificate of the day
	last   []byte            // what was applied last
	first  bool              // it is the first of those that are ready
}

const (
	controlPlaneNodes = "/api/v1/nodes?labelSelector=node-role.kubernetes.io%2Fcontrol-plane&resourceVersion=0"
	endpointsPath     = "/apis/discovery.k8s.io/v1/namespaces/kube-system/endpointslices/kube-dns-slipway?fieldManager=slipway&force=true"
)

// update looks at the Nodes and applies what has changed since it last did.
func (d *dns) update(ctx context.Context) error {
	err := d.try(ctx)
	if err != nil {
		d.hangUp()
	}
	return err
}

func (d *dns) try(ctx context.Context) (err error) {
	if d.client == nil {
		if d.client, err = apiclient.Open(d.access); err != nil {
			return err
		}
	}
	var nodes nodeList
	if err := d.client.Get(ctx, controlPlaneNodes, &nodes); err != nil {
		return err
	}
	endpoints := nodes.endpoints(d.own)
	d.first = firstReady(endpoints) == d.own.String()
	slice, err := json.Marshal(endpointSlice(endpoints))
	if err != nil {
		return fmt.Errorf("encode DNS endpoints: %w", err)
	}
	if bytes.Equal(slice, d.last) {
		return nil
	}
	if err := d.client.Patch(ctx, endpointsPath, apiclient.Apply, slice); err != nil {
		return err
	}
	d.last = slice
	return nil
}

// hangUp also forgets what was applied: the next update applies it again.
func (d *dns) hangUp() {
	if d.client != nil {
		d.client.Close()
	}
	d.client, d.last = nil, nil
}

// nodeList is what is read of a list of Nodes.
type nodeList struct {
	Items []struct {
		Metadata struct{ Labels map[string]string } `json:"metadata"`
		Status   struct {
			Addresses  []struct{ Type, Address string }
			Conditions []struct{ Type, Status string }
		} `json:"status"`
	} `json:"items"`
}

// endpoint is one of an EndpointSlice.
type endpoint struct {
	Addresses  []string   `json:"addresses"`
	Conditions conditions `json:"conditions"`
}

type conditions struct {
	Ready bool `json:"ready"`
}

// endpoints are the Nodes' addresses, in order. One that leaves the cluster is
// not ready, whatever it says. Where no Node is yet, it is own. Where none is
// ready, all count as ready: one that may answer is better than none.
func (l nodeList) endpoints(own netip.Addr) []endpoint {
	var list []endpoint
	anyReady := false
	for _, node := range l.Items {
		e := endpoint{}
		for _, a := range node.Status.Addresses {
			if a.Type == "InternalIP" {
				e.Addresses = []string{a.Address}
			}
		}
		_, leaving := node.Metadata.Labels[apiclient.Leaving]
		for _, c := range node.Status.Conditions {
			e.Conditions.Ready = e.Conditions.Ready || c.Type == "Ready" && c.Status == "True" && !leaving
		}
		if e.Addresses != nil {
			list = append(list, e)
			anyReady = anyReady || e.Conditions.Ready
		}
	}
	if len(list) == 0 {
		list = []endpoint{{Addresses: []string{own.String()}}}
	}
	for i := range list {
		list[i].Conditions.Ready = list[i].Conditions.Ready || !anyReady
	}
	slices.SortFunc(list, func(a, b endpoint) int { return strings.Compare(a.Addresses[0], b.Addresses[0]) })
	return list
}

// firstReady is the address of the first that is ready; at least one is.
func firstReady(list []endpoint) string {
	i := slices.IndexFunc(list, func(e endpoint) bool { return e.Conditions.Ready })
	return list[i].Addresses[0]
}

// endpointSlice is the object (discovery.k8s.io/v1).
func endpointSlice(endpoints []endpoint) map[string]any {
	port := func(name, protocol string) map[string]any {
		return map[string]any{"name": name, "port": 53, "protocol": protocol}
	}
	return map[string]any{
		"apiVersion": "discovery.k8s.io/v1",
		"kind":       "EndpointSlice",
		"metadata": map[string]any{
			"name": "kube-dns-slipway", "namespace": "kube-system",
			"labels": map[string]string{
				"kubernetes.io/service-name": "kube-dns", "endpointslice.kubernetes.io/managed-by": "slipway",
			},
		},
		"addressType": "IPv4",
		"ports":       []any{port("dns", "UDP"), port("dns-tcp", "TCP")},
		"endpoints":   endpoints,
	}
}
