// Package vip keeps a cluster's virtual IP on one control plane that is well:
// the address that people reach the API at, whichever machine is dead. It
// speaks VRRP version 3 (RFC 9568) among the control planes and needs neither
// etcd nor the API to agree on who holds the address. Unlike RFC 9568 it
// answers with the link's own hardware address, not with one made from the
// virtual router's number: switches and hypervisors filter such addresses.
//
// It runs as the unit vip (`slipway-init vip`) on control planes of a cluster
// that has such an address. Who is to hold it is decided in machine.go, how
// good this machine is for it in health.go; both are pure. The components of
// nodes do not use the address: they have package apiproxy.
package vip

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"slices"
	"time"

	"slipway/nodeinit/proc"
)

const (
	// Path is where its File is.
	Path = "/etc/kubernetes/vip.json"

	caFile   = "/etc/kubernetes/pki/ca.crt"
	local    = "127.0.0.1:6443"
	interval = time.Second     // of advertisements
	looks    = 2 * time.Second // between looks at the API server
)

// File is what it is told.
type File struct {
	VirtualIP netip.Addr   `json:"virtualIP"`
	Link      string       `json:"link"`    // that is to hold it
	Address   netip.Addr   `json:"address"` // this machine's
	Peers     []netip.Addr `json:"peers"`   // the other control planes': nobody else is listened to
}

// Encode is the File at Path.
func (f File) Encode() (proc.File, error) {
	data, err := json.MarshalIndent(f, "", "  ")
	return proc.File{Path: Path, Mode: 0o644, Data: append(data, '\n')}, err
}

// Parse reads a File.
func Parse(data []byte) (f File, err error) {
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&f); err != nil {
		return f, err
	}
	if !f.VirtualIP.Is4() || !f.Address.Is4() || f.Link == "" {
		return f, errors.New("want virtualIP and address, both IPv4, and link")
	}
	if f.VirtualIP == f.Address || slices.Contains(f.Peers, f.VirtualIP) {
		return f, fmt.Errorf("virtualIP %s: it is a machine's own address", f.VirtualIP)
	}
	return f, nil
}

// VRID is the number of the virtual router (RFC 9568, 5.2.3): the address's last
// octet, since addresses on one network differ there most. 0 is not allowed.
func (f File) VRID() uint8 {
	if last := f.VirtualIP.As4()[3]; last != 0 {
		return last
	}
	return 255
}

// Main runs the router until ctx ends.
func Main(ctx context.Context, log *slog.Logger) error {
	data, err := os.ReadFile(Path)
	if err != nil {
		return err
	}
	file, err := Parse(data)
	if err != nil {
		return fmt.Errorf("read %s: %w", Path, err)
	}
	return Router{File: file, Look: NewLook(), Log: log}.Run(ctx)
}
