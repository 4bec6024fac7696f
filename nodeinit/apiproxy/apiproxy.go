// Package apiproxy is the node-local balancer: TCP connections to
// 127.0.0.1:7445 go to an API server that is well. Every component of a node
// uses it, so no load balancer is needed and no component knows how many
// control planes there are. It looks at no byte of what it carries: TLS is
// between the component and the API server.
//
// It runs as the unit apiproxy (`slipway-init apiproxy`) on workers and control
// planes. Package worker writes its File. Which upstream a connection gets is
// decided in choose.go, what a probe's result means in health.go; both are pure.
package apiproxy

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"

	"slipway/nodeinit/proc"
)

const (
	// Address is where it listens; Server is that as components are told it.
	Address = "127.0.0.1:7445"
	Server  = "https://" + Address

	// Path is its File, caFile what the API servers are checked against.
	Path   = "/etc/kubernetes/apiproxy.json"
	caFile = "/etc/kubernetes/pki/ca.crt"
)

// File is what it is told: the API servers, host:port, in the order they are
// tried when nothing else is known of them. It is read again when it changes.
type File struct {
	// Own is the API server of this machine; empty on a worker. It is used
	// whenever it is well.
	Own    string   `json:"own,omitempty"`
	Others []string `json:"others"`
}

// Encode is the File at Path.
func (f File) Encode() (proc.File, error) {
	data, err := json.MarshalIndent(f, "", "  ")
	return proc.File{Path: Path, Mode: 0o644, Data: append(data, '\n')}, err
}

// parse reads a File; one without any API server is an error.
func parse(data []byte) (f File, err error) {
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&f); err != nil {
		return f, err
	}
	seen := map[string]bool{}
	for _, addr := range f.all() {
		if _, err := netip.ParseAddrPort(addr); err != nil {
			return f, fmt.Errorf("upstream: %w", err)
		}
		if seen[addr] {
			return f, fmt.Errorf("upstream %s: it is there twice", addr)
		}
		seen[addr] = true
	}
	if len(seen) == 0 {
		return f, fmt.Errorf("there is no upstream")
	}
	return f, nil
}

func (f File) all() []string {
	if f.Own == "" {
		return f.Others
	}
	return append([]string{f.Own}, f.Others...)
}

// Main runs the balancer until ctx ends.
func Main(ctx context.Context, log *slog.Logger) error {
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp4", Address)
	if err != nil {
		return err
	}
	read := func() ([]byte, error) { return os.ReadFile(Path) }
	return New(log, read, NewProber(caFile, ReadyPath, answerWithin), rand.Uint64()).Run(ctx, listener.(*net.TCPListener))
}
