// Package skew says whether a cluster may go from the Kubernetes versions that
// it has to another one, by Kubernetes' version-skew policy
// (kubernetes.io/releases/version-skew-policy). It is pure; the upgrades and the
// rollback of package main ask it before they begin.
package skew

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// kubeletsBehind is how many minor versions a kubelet may be older than the API
// servers. It may never be newer.
const kubeletsBehind = 3

// Node is a node with the version that it runs, v1.37.1.
type Node struct {
	Name         string
	Version      string
	ControlPlane bool
	// Stays: it is not upgraded with the others. What goes has to suit it.
	Stays bool
}

// ErrForbidden says that the policy does not allow the way to the version.
var ErrForbidden = errors.New("the version-skew policy of Kubernetes forbids it")

// Check returns nil if all nodes that do not stay may go to the target: control
// planes by at most one minor version and one after the other, then the workers,
// which may be three behind meanwhile. Nothing goes back: Kubernetes keeps no old
// form of what it stored. No kubelet goes beyond an API server that stays.
func Check(nodes []Node, target string) error { return check(nodes, target, Node.forbids) }

// CheckBack is Check for nodes that go back to what they ran before. A control
// plane goes back by one minor version at most: so far, and no further, Kubernetes
// promises that an API server reads what a newer one stored (rule 4b of
// kubernetes.io/docs/reference/using-api/deprecation-policy). The workers go back
// before the control planes do.
func CheckBack(nodes []Node, target string) error { return check(nodes, target, Node.forbidsBack) }

func check(nodes []Node, target string, forbids func(n Node, from, to version) string) error {
	to, err := parse(target)
	if err != nil {
		return err
	}
	var errs []error
	for _, n := range nodes {
		from, err := parse(n.Version)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", n.Name, err))
			continue
		}
		why := forbids(n, from, to)
		if n.Stays {
			why = n.minds(from, to, planesMove(nodes))
		}
		if why != "" {
			errs = append(errs, fmt.Errorf("%s has %s, the image %s: %s: %w", n.Name, n.Version, target, why, ErrForbidden))
		}
	}
	return errors.Join(errs...)
}

func (n Node) forbids(from, to version) string {
	behind := to.minor - from.minor
	switch {
	case from.major != to.major:
		return "another major version"
	case compare(from, to) > 0:
		return "it would go back"
	case n.ControlPlane && behind > 1:
		return fmt.Sprintf("a control plane goes one minor version at a time: take an image with v%d.%d first", from.major, from.minor+1)
	case behind > kubeletsBehind:
		return fmt.Sprintf("its kubelet would be %d minor versions behind the API servers, %d are allowed: upgrade it to what the control planes have first", behind, kubeletsBehind)
	}
	return ""
}

func (n Node) forbidsBack(from, to version) string {
	switch {
	case from.major != to.major || compare(from, to) <= 0:
		return n.forbids(from, to)
	case n.ControlPlane && from.minor-to.minor > 1:
		return "a control plane goes back one minor version at most: an older API server may not read what this one stored"
	}
	return ""
}

func planesMove(nodes []Node) bool {
	return slices.ContainsFunc(nodes, func(n Node) bool { return n.ControlPlane && !n.Stays })
}

// minds says what a node that stays has against it that others go.
func (n Node) minds(from, to version, planesMove bool) string {
	behind := to.minor - from.minor
	switch {
	case from.major != to.major:
		return "another major version"
	case n.ControlPlane && !planesMove && behind > 0:
		return "no kubelet may be newer than the API servers: upgrade the control planes first"
	case n.ControlPlane && !planesMove && behind < -kubeletsBehind:
		return fmt.Sprintf("the kubelet would be %d minor versions behind this API server, %d are allowed: take an image with v%d.%d or later", -behind, kubeletsBehind, from.major, from.minor-kubeletsBehind)
	case n.ControlPlane && planesMove && (behind > 1 || behind < -1):
		return "the API servers of a cluster may be one minor version apart: have this one follow, or go first"
	case !n.ControlPlane && planesMove && behind > kubeletsBehind:
		return fmt.Sprintf("its kubelet would be %d minor versions behind the API servers, %d are allowed: restart it with a newer image first", behind, kubeletsBehind)
	case !n.ControlPlane && planesMove && behind < 0:
		return "its kubelet would be newer than the API servers: have it go back first"
	}
	return ""
}

type version struct{ major, minor, patch int }

func compare(a, b version) int {
	return cmp.Or(cmp.Compare(a.major, b.major), cmp.Compare(a.minor, b.minor), cmp.Compare(a.patch, b.patch))
}

// parse reads v1.37.1, with or without a suffix such as -rc.1 or +build.
func parse(text string) (version, error) {
	numbers, _, _ := strings.Cut(strings.TrimPrefix(text, "v"), "+")
	numbers, _, _ = strings.Cut(numbers, "-")
	parts := strings.Split(numbers, ".")
	var v [3]int
	if len(parts) != len(v) {
		return version{}, fmt.Errorf("%q is not a Kubernetes version such as v1.37.1", text)
	}
	for i, part := range parts {
		n, err := strconv.ParseUint(part, 10, 31)
		if err != nil {
			return version{}, fmt.Errorf("%q is not a Kubernetes version such as v1.37.1", text)
		}
		v[i] = int(n)
	}
	return version{v[0], v[1], v[2]}, nil
}
