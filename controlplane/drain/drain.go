// Package drain takes a node's pods away from it by the Kubernetes API: no new
// ones are placed there, and those that run are evicted, which respects their
// disruption budgets. It gives the node back afterwards, unless a person had
// cordoned it before. slipway node upgrade and cluster upgrade call it.
package drain

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"slipway/controlplane/apiclient"
)

// mark is the annotation of a node that was cordoned here: only that is undone.
const mark = "slipway.internal/cordoned"

// Node is a node of the cluster, with the way to the API.
type Node struct {
	API  *apiclient.Client
	Name string
	// Every is how often evictions are tried and pods are looked at.
	Every time.Duration
}

type metadata struct {
	Name, Namespace string
	UID             string
	Annotations     map[string]string
	OwnerReferences []struct {
		Kind       string
		Controller bool
	}
}

type pod struct {
	Metadata metadata
	Status   struct{ Phase string }
}

func (p pod) String() string { return p.Metadata.Namespace + "/" + p.Metadata.Name }

type node struct {
	Metadata metadata
	Spec     struct {
		Unschedulable bool
		Taints        []struct{ Effect string }
	}
	Status struct {
		NodeInfo struct{ KubeletVersion string }
	}
}

func (n Node) path() string { return "/api/v1/nodes/" + url.PathEscape(n.Name) }

// Cordon keeps new pods away. A node that is cordoned stays as it is: whoever
// did that undoes it.
func (n Node) Cordon(ctx context.Context) error {
	var is node
	if err := n.API.Get(ctx, n.path(), &is); err != nil {
		return err
	}
	if is.Spec.Unschedulable {
		return nil
	}
	return n.API.Patch(ctx, n.path(), apiclient.Merge, []byte(`{"metadata":{"annotations":{"`+mark+`":"upgrade"}},"spec":{"unschedulable":true}}`))
}

// Uncordon undoes Cordon, also of an earlier run that was broken off.
func (n Node) Uncordon(ctx context.Context) error {
	var is node
	if err := n.API.Get(ctx, n.path(), &is); err != nil {
		return err
	}
	if is.Metadata.Annotations[mark] == "" {
		return nil
	}
	return n.API.Patch(ctx, n.path(), apiclient.Merge, []byte(`{"metadata":{"annotations":{"`+mark+`":null}},"spec":{"unschedulable":null}}`))
}

// Evict has the node's pods evicted and waits until they are gone, or ctx ends:
// then the error says which are left, and why. A pod that nothing would make
// anew is not touched and an error at once, unless forced.
func (n Node) Evict(ctx context.Context, force bool) error {
	refused := map[string]error{}
	for first := true; ; first = false {
		left, err := n.pods(ctx)
		switch {
		case err != nil:
			return n.given(ctx, refused, err)
		case len(left) == 0:
			return nil
		case first && !force:
			if alone := alone(left); len(alone) > 0 {
				return fmt.Errorf("drain %s: nothing would make %s anew: delete them, or drain by force", n.Name, strings.Join(alone, ", "))
			}
		}
		answers := n.evictAll(ctx, left)
		if ctx.Err() != nil { // a question that was cut off says nothing of its pod
			return n.given(ctx, refused, ctx.Err())
		}
		refused = answers
		timer := time.NewTimer(n.Every)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return n.given(ctx, refused, ctx.Err())
		}
	}
}

// evictAll asks for the eviction of all, and says why each is still there.
func (n Node) evictAll(ctx context.Context, left []pod) map[string]error {
	answers := map[string]error{}
	for _, p := range left {
		answers[p.String()] = cmp.Or(n.evict(ctx, p), errors.New("it is being stopped"))
	}
	return answers
}

// given explains the end: which pods are left, and why.
func (n Node) given(ctx context.Context, refused map[string]error, err error) error {
	if ctx.Err() == nil || len(refused) == 0 {
		return fmt.Errorf("drain %s: %w", n.Name, err)
	}
	var left []string
	for name, why := range refused {
		left = append(left, fmt.Sprintf("%s (%v)", name, why))
	}
	slices.Sort(left)
	return fmt.Errorf("drain %s: there are still %s: %w", n.Name, strings.Join(left, ", "), err)
}

// evict asks for one eviction. A pod that is gone is no error.
func (n Node) evict(ctx context.Context, p pod) error {
	body, err := json.Marshal(map[string]any{
		"apiVersion": "policy/v1", "kind": "Eviction",
		"metadata":      map[string]string{"name": p.Metadata.Name, "namespace": p.Metadata.Namespace},
		"deleteOptions": map[string]any{"preconditions": map[string]string{"uid": p.Metadata.UID}},
	})
	if err != nil {
		return err
	}
	err = n.API.Post(ctx, fmt.Sprintf("/api/v1/namespaces/%s/pods/%s/eviction", p.Metadata.Namespace, p.Metadata.Name), body)
	if errors.Is(err, apiclient.ErrNotFound) || errors.Is(err, apiclient.ErrConflict) {
		return nil // it is gone, or another one has its name by now
	}
	return err
}

// pods are those to be evicted.
func (n Node) pods(ctx context.Context) ([]pod, error) {
	var list struct{ Items []pod }
	if err := n.API.Get(ctx, "/api/v1/pods?fieldSelector="+url.QueryEscape("spec.nodeName="+n.Name), &list); err != nil {
		return nil, err
	}
	return slices.DeleteFunc(list.Items, stays), nil
}

// stays says that a pod need not go: it is a part of the node, or it has ended.
func stays(p pod) bool {
	if p.Status.Phase == "Succeeded" || p.Status.Phase == "Failed" || p.Metadata.Annotations["kubernetes.io/config.mirror"] != "" {
		return true
	}
	for _, owner := range p.Metadata.OwnerReferences {
		if owner.Controller && owner.Kind == "DaemonSet" {
			return true
		}
	}
	return false
}

// alone are the pods without a controller.
func alone(pods []pod) (names []string) {
	for _, p := range pods {
		owned := false
		for _, owner := range p.Metadata.OwnerReferences {
			owned = owned || owner.Controller
		}
		if !owned {
			names = append(names, p.String())
		}
	}
	return names
}

// Elsewhere says whether another node takes pods that tolerate nothing.
func (n Node) Elsewhere(ctx context.Context) (bool, error) {
	var list struct{ Items []node }
	if err := n.API.Get(ctx, "/api/v1/nodes", &list); err != nil {
		return false, err
	}
	return slices.ContainsFunc(list.Items, func(other node) bool { return other.Metadata.Name != n.Name && other.takesPods() }), nil
}

func (n node) takesPods() bool {
	for _, taint := range n.Spec.Taints {
		if taint.Effect != "PreferNoSchedule" {
			return false // also what says that it is not ready, or not reachable
		}
	}
	return !n.Spec.Unschedulable
}

// Versions are those of the kubelets, by the nodes' names.
func (n Node) Versions(ctx context.Context) (map[string]string, error) {
	var list struct{ Items []node }
	if err := n.API.Get(ctx, "/api/v1/nodes", &list); err != nil {
		return nil, err
	}
	versions := map[string]string{}
	for _, one := range list.Items {
		versions[one.Metadata.Name] = one.Status.NodeInfo.KubeletVersion
	}
	return versions, nil
}
