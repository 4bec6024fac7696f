package bootsvc

import (
	"context"
	"crypto/x509"
	"path/filepath"
	"slices"

	"github.com/prometheus/client_golang/prometheus"

	"slipway/bootsvc/api"
	"slipway/bootsvc/assign"
	"slipway/bootsvc/inventory"
	"slipway/bootsvc/snapshot"
)

// snapshots gives the API its store of snapshots and what takes them, and
// returns what takes them by the clock.
func (s Service) snapshots(p plan, people *api.Server, metrics *prometheus.Registry) (*snapshot.Schedule, error) {
	store, err := snapshot.Open(filepath.Join(s.DataDir, "snapshots"), s.Log, s.Now)
	if err != nil {
		return nil, err
	}
	nodes := &snapshot.Nodes{Roots: func() *x509.CertPool { return p.who.ca.View().Pool }, Certificate: p.who.backupCertificate}
	people.Snapshots, people.Take, people.EtcdStatus = store, snapshot.NewTaker(store, nodes).Take, nodes.Status
	return &snapshot.Schedule{
		Take: people.Take, Store: store, Metrics: metrics, Log: s.Log, Now: s.Now,
		Clusters: func(ctx context.Context) ([]snapshot.Target, error) {
			all, err := people.Office.All(ctx)
			return targets(all), err
		},
	}, nil
}

// targets are the clusters whose etcd has started once: before that there is
// nothing to take.
func targets(all []assign.Cluster) (targets []snapshot.Target) {
	for _, c := range all {
		members, err := c.Members()
		if err != nil || !slices.ContainsFunc(members, func(m inventory.Machine) bool { return m.Etcd.MemberID != "" }) {
			continue
		}
		every := c.Document.Etcd.Snapshots
		targets = append(targets, snapshot.Target{
			Cluster: c.Document.Name, Every: every.Every, Keep: every.Keep, Members: snapshot.MembersOf(members),
		})
	}
	return targets
}
