// Package renew is the unit certificates: it mints the leaves of this machine's
// components and mints each anew before it ends, or when another CA signs, or
// when its names change. Package controlplane lists the leaves; the rule that
// makes one due is package leaf's.
//
// It restarts nothing. How each program comes to use its new files is in the
// table of package kube.
package renew

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"time"

	"slipway/configs/machine"
	"slipway/controlplane/leaf"
	"slipway/controlplane/pki"
	"slipway/nodeinit/proc"
	"slipway/nodeinit/supervise"
)

// Name is the unit's. Whatever reads a leaf comes after it.
const Name = "certificates"

// Unit returns the unit that keeps leaves, each valid for the lifetime that cfg
// asks for.
func Unit(cfg *machine.Config, leaves []leaf.Leaf) supervise.Unit {
	return supervise.Unit{Name: Name, Service: &Service{
		Leaves: leaves, Lifetime: Lifetime(cfg),
	}}
}

// Lifetime is how long certificates of the cluster's components last.
func Lifetime(cfg *machine.Config) time.Duration {
	return cmp.Or(cfg.Cluster.CertificateLifetime, machine.DefaultCertificateLifetime)
}

// Service keeps leaves on disk.
type Service struct {
	Leaves   []leaf.Leaf
	Lifetime time.Duration
	Root     string           // before each path; a test's
	Now      func() time.Time // nil: time.Now
}

// Equal reports whether other keeps the same leaves.
func (s *Service) Equal(other supervise.Service) bool {
	o, ok := other.(*Service)
	return ok && s.Lifetime == o.Lifetime && s.Root == o.Root && reflect.DeepEqual(s.Leaves, o.Leaves)
}

// Run mints what is due, is ready, and looks again each minute until ctx ends.
// It looks by the wall clock: a clock that is set makes leaves due at once.
func (s *Service) Run(ctx context.Context, ready func()) error {
	tick := time.NewTicker(leaf.Look)
	defer tick.Stop()
	if err := s.Renew(); err != nil {
		return err
	}
	ready()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			if err := s.Renew(); err != nil {
				return err
			}
		}
	}
}

// Renew looks at each leaf once and mints those that are due. All are tried;
// the errors are joined. It may be repeated: a clock that is off by years
// changes nothing, and once it is set what is there is good again.
func (s *Service) Renew() error {
	now := time.Now
	if s.Now != nil {
		now = s.Now
	}
	var errs []error
	var clock *pki.ClockError
	for _, l := range s.Leaves {
		l.Path = filepath.Join(s.Root, l.Path)
		if err := renew(l, now(), s.Lifetime); !errors.As(err, &clock) {
			errs = append(errs, err)
		}
	}
	if clock != nil { // said once, not for each leaf
		errs = append(errs, fmt.Errorf("%w; no certificate of it was changed, and the data is kept; %s", clock, setTheClock))
	}
	return errors.Join(errs...)
}

// setTheClock is what to do. Package agent is what sets it.
const setTheClock = "the machine sets its clock by the boot service: see that it reaches that, or set the clock in the machine's firmware"

func renew(l leaf.Leaf, now time.Time, lifetime time.Duration) error {
	cert, err := read(l.CertFile())
	if err != nil {
		return err
	}
	key, err := read(l.KeyFile())
	if err != nil {
		return err
	}
	why, err := l.Due(cert, key, now, lifetime)
	if err != nil || why == "" {
		return err
	}
	certFile, keyFile, err := l.Mint(now, lifetime)
	if err != nil {
		return err
	}
	return replace(certFile, keyFile)
}

// read returns nil if the file is not there.
func read(path string) ([]byte, error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return data, err
}

// replace puts both files in the place of the old ones. Both are written and
// synced under other names first, so that only the time between two renames
// remains in which a reader gets the old certificate with the new key. It then
// fails one handshake, or its reload, and reads again: every program here does.
// Should the machine stop between the two, the pair does not match when it is
// looked at next, which makes it due.
func replace(cert, key proc.File) error {
	files := []proc.File{key, cert}
	for i := range files {
		files[i].Path += ".new"
	}
	if err := proc.WriteFiles(files); err != nil {
		return err
	}
	for _, path := range []string{key.Path, cert.Path} {
		if err := os.Rename(path+".new", path); err != nil {
			return fmt.Errorf("renew %s: %w", path, err)
		}
	}
	return nil
}
