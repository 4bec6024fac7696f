package install

import (
	"context"
	"errors"
	"fmt"
	"io"

	"slipway/configs/disklayout"
	"slipway/nodeinit/slot"
)

// System writes an image into a slot. It is what Install and Upgrade share.
type System struct {
	Source       Source
	Image        *Image
	Architecture string // as Go names it
	// Loader opens the boot partition, for one step.
	Loader func() (slot.Loader, error)
	// Open opens a slot's partition, for one step.
	Open func(disklayout.Slot) (Device, error)
	// Wrote is told how much of the root image is on the disk; may be nil.
	Wrote func(done, total int64)
}

// steps write the image into a slot and leave it filled, not bootable. The
// slot must be empty or failed.
func (s System) steps(n disklayout.Slot) []Step {
	return []Step{
		{"root image", func(ctx context.Context) error { return s.writeRoot(ctx, n) }},
		{"read back", func(ctx context.Context) error { return s.readBack(n) }},
		{"boot files", func(ctx context.Context) error { return s.writeBootFiles(ctx, n) }},
	}
}

func (s System) writeRoot(ctx context.Context, n disklayout.Slot) error {
	a, err := s.Image.Find(rootArtifact)
	if err != nil {
		return err
	}
	return s.with(n, func(dev Device) error {
		if err := fits(a, dev.Size()); err != nil {
			return err
		}
		err := s.Source.fetch(ctx, a, func(from io.Reader) error {
			_, err := io.CopyBuffer(&atWriter{dev, 0, a.Size, s.Wrote}, onlyReader{from}, make([]byte, 1<<20))
			return err
		})
		return errors.Join(err, dev.Sync())
	})
}

// readBack reads the root image from the medium, every block of it.
func (s System) readBack(n disklayout.Slot) error {
	return s.with(n, func(dev Device) error {
		if err := dev.Forget(); err != nil {
			return err
		}
		return VerifyRoot(dev, s.Image.Root.DataSize, s.Image.Root.Hash)
	})
}

func (s System) with(n disklayout.Slot, do func(Device) error) error {
	dev, err := s.Open(n)
	if err == nil {
		err = errors.Join(do(dev), dev.Close())
	}
	if err != nil {
		return fmt.Errorf("slot %s: %w", n, err)
	}
	return nil
}

func (s System) writeBootFiles(ctx context.Context, n disklayout.Slot) error {
	loader, err := s.Loader()
	if err != nil {
		return err
	}
	for _, name := range loader.Artifacts() {
		a, err := s.Image.Find(name)
		if err != nil {
			return err
		}
		err = s.Source.fetch(ctx, a, func(from io.Reader) error {
			if name == "kernel" || name == "uki.efi" {
				if from, err = program(from, s.Architecture); err != nil {
					return err
				}
			}
			return loader.Put(n, name, a.Size, from)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// change does a transition of what the loader says now. One that is done
// already is no error.
func change(l slot.Loader, to func(slot.Slots) (slot.Slots, error)) error {
	now, err := l.Read()
	if err != nil {
		return err
	}
	next, err := to(now)
	if err != nil {
		return err
	}
	return l.Write(next)
}

// atWriter writes one piece behind the other. What is written but not on the
// medium is kept small, so that an error of the disk is found soon and the
// machine's memory is not filled.
type atWriter struct {
	dev   Device
	at    int64
	total int64
	wrote func(done, total int64)
}

const syncEvery = 64 << 20

func (w *atWriter) Write(p []byte) (int, error) {
	n, err := w.dev.WriteAt(p, w.at)
	before := w.at
	w.at += int64(n)
	if err == nil && before/syncEvery != w.at/syncEvery {
		err = w.dev.Sync()
	}
	if err == nil && w.wrote != nil {
		w.wrote(w.at, w.total)
	}
	return n, err
}

// onlyReader keeps io.Copy from finding another way than the buffer it was given.
type onlyReader struct{ io.Reader }
