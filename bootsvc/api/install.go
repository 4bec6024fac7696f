package api

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"unicode"
	"unicode/utf8"

	"connectrpc.com/connect"

	"slipway/bootsvc/api/bootv1"
	"slipway/bootsvc/inventory"
	"slipway/bootsvc/source"
	"slipway/configs/enroll"
)

// What a machine may say of its disks.
const (
	maxSignatures = 256      // on one disk
	maxManifest   = 64 << 10 // bytes of text
)

// errInstall is what a machine says of its disks and cannot be.
var errInstall = errors.New("not a disk's report")

// ReportWipe keeps what an installation would destroy.
func (h *machineHandler) ReportWipe(ctx context.Context, request *connect.Request[bootv1.ReportWipeRequest]) (*connect.Response[bootv1.ReportWipeResponse], error) {
	manifest, err := manifestFrom(request.Msg.GetManifest())
	if err != nil {
		return nil, h.failed(ctx, "wipe manifest refused", err)
	}
	c := callerOf(ctx)
	if err := h.Office.AskToWipe(ctx, c.name, c.keyHash, manifest); err != nil {
		return nil, h.failed(ctx, "wipe manifest refused", err)
	}
	return connect.NewResponse(&bootv1.ReportWipeResponse{}), nil
}

// AgreeWipe lets a machine destroy what its manifest lists.
func (h *inventoryHandler) AgreeWipe(ctx context.Context, request *connect.Request[bootv1.AgreeWipeRequest]) (*connect.Response[bootv1.AgreeWipeResponse], error) {
	person := callerOf(ctx).name
	m, err := h.decide(ctx, request.Msg.GetId(), func(m *inventory.Machine) (event string, err error) {
		*m, err = m.Agree(hex.EncodeToString(request.Msg.GetHash()), person)
		return "wipe-agreed", err
	})
	var other inventory.ErrWipe
	if errors.As(err, &other) {
		return nil, connect.NewError(connect.CodeFailedPrecondition, other)
	}
	if err != nil {
		return nil, h.failed(ctx, "agreement refused", err)
	}
	h.Log.Info("wipe agreed to", "unit", service, "machine", m.ID, "person", person, "manifest", m.Installation.Agreed)
	return connect.NewResponse(&bootv1.AgreeWipeResponse{Machine: machineTo(m, h.Now())}), nil
}

// GetImage says which image is served.
func (h *inventoryHandler) GetImage(context.Context, *connect.Request[bootv1.GetImageRequest]) (*connect.Response[bootv1.GetImageResponse], error) {
	return connect.NewResponse(h.Image), nil
}

// BootFrom says what a machine's firmware gets next.
func (h *inventoryHandler) BootFrom(ctx context.Context, request *connect.Request[bootv1.BootFromRequest]) (*connect.Response[bootv1.BootFromResponse], error) {
	from := source.Source(request.Msg.GetFrom())
	if from != source.Disk && from != source.Installer {
		return nil, connect.NewError(connect.CodeInvalidArgument, fmt.Errorf("a machine does not boot from %q: disk, installer", clean(string(from))))
	}
	m, err := h.decide(ctx, request.Msg.GetId(), func(m *inventory.Machine) (string, error) {
		*m = m.BootFrom(from)
		return "boot-from-" + string(from), nil
	})
	if err != nil {
		return nil, h.failed(ctx, "machine not changed", err)
	}
	h.Log.Info("machine boots from "+string(from), "unit", service, "machine", m.ID, "person", callerOf(ctx).name)
	return connect.NewResponse(&bootv1.BootFromResponse{Machine: machineTo(m, h.Now())}), nil
}

// Forget drops all that is known of a machine that no cluster has.
func (h *inventoryHandler) Forget(ctx context.Context, request *connect.Request[bootv1.ForgetRequest]) (*connect.Response[bootv1.ForgetResponse], error) {
	id, err := enroll.ParseMachineID(request.Msg.GetId())
	if err != nil {
		return nil, h.failed(ctx, "machine not forgotten", fmt.Errorf("%w: %w", errInstall, err))
	}
	if err := h.Inventory.Forget(ctx, id); err != nil {
		return nil, h.failed(ctx, "machine not forgotten", err)
	}
	h.Log.Info("machine forgotten", "unit", service, "machine", id, "person", callerOf(ctx).name)
	return connect.NewResponse(&bootv1.ForgetResponse{}), nil
}

// decide changes a known machine by a person's word, and notes it on the timeline.
func (h *inventoryHandler) decide(ctx context.Context, text string, change func(*inventory.Machine) (event string, err error)) (inventory.Machine, error) {
	id, err := enroll.ParseMachineID(text)
	if err != nil {
		return inventory.Machine{}, fmt.Errorf("%w: %w", errInstall, err)
	}
	if _, err := h.Inventory.Get(ctx, id); err != nil {
		return inventory.Machine{}, err
	}
	return h.Inventory.Change(ctx, id, func(m *inventory.Machine) ([]inventory.Event, error) {
		event, err := change(m)
		return []inventory.Event{{Name: event, Detail: "by " + callerOf(ctx).name, At: h.Now()}}, err
	})
}

func manifestFrom(w *bootv1.WipeManifest) (enroll.WipeManifest, error) {
	manifest := enroll.WipeManifest{Hash: hex.EncodeToString(w.GetHash()), Text: w.GetText()}
	sum := sha256.Sum256([]byte(w.GetText()))
	switch {
	case len(w.GetDisks()) == 0 || len(w.GetDisks()) > enroll.MaxDisks:
		return manifest, fmt.Errorf("%w: a wipe manifest has 1 to %d disks, and not %d", errInstall, enroll.MaxDisks, len(w.GetDisks()))
	case len(w.GetText()) > maxManifest || !readable(w.GetText()):
		return manifest, fmt.Errorf("%w: the text of a wipe manifest is printable, and has at most %d bytes", errInstall, maxManifest)
	case !bytes.Equal(w.GetHash(), sum[:]):
		return manifest, fmt.Errorf("%w: the hash of a wipe manifest is not that of its text", errInstall)
	}
	for _, d := range w.GetDisks() {
		disk := enroll.WipeDisk{Path: clean(d.GetPath()), Size: d.GetSize(), Model: clean(d.GetModel()), Serial: clean(d.GetSerial()), WWN: clean(d.GetWwn())}
		if len(d.GetSignatures()) > maxSignatures {
			return manifest, fmt.Errorf("%w: %d signatures on %s: at most %d", errInstall, len(d.GetSignatures()), disk.Path, maxSignatures)
		}
		for _, s := range d.GetSignatures() {
			disk.Signatures = append(disk.Signatures, enroll.Signature{Device: clean(s.GetDevice()), Type: clean(s.GetType()), Label: clean(s.GetLabel()), UUID: clean(s.GetUuid())})
		}
		manifest.Disks = append(manifest.Disks, disk)
	}
	return manifest, nil
}

// readable says that a text is lines of printable characters: that it does to a
// terminal what it seems to.
func readable(text string) bool {
	for _, r := range text {
		if r == utf8.RuneError || r != '\n' && !unicode.IsPrint(r) {
			return false
		}
	}
	return true
}

func manifestTo(w enroll.WipeManifest) *bootv1.WipeManifest {
	if w.Hash == "" {
		return nil
	}
	manifest := &bootv1.WipeManifest{Hash: bytesOf(w.Hash), Text: w.Text}
	for _, d := range w.Disks {
		disk := &bootv1.WipeDisk{Path: d.Path, Size: d.Size, Model: d.Model, Serial: d.Serial, Wwn: d.WWN}
		for _, s := range d.Signatures {
			disk.Signatures = append(disk.Signatures, &bootv1.Signature{Device: s.Device, Type: s.Type, Label: s.Label, Uuid: s.UUID})
		}
		manifest.Disks = append(manifest.Disks, disk)
	}
	return manifest
}

// bytesOf is a hash that we wrote ourselves.
func bytesOf(hash string) []byte {
	sum, err := hex.DecodeString(hash)
	if err != nil {
		return nil
	}
	return sum
}

// diskFrom is what a machine says of where it lives; nil if it says nothing.
func diskFrom(d *bootv1.SystemDisk) (*enroll.SystemDisk, error) {
	if d == nil {
		return nil, nil
	}
	disk := &enroll.SystemDisk{
		Path: clean(d.GetPath()), Serial: clean(d.GetSerial()), Booted: d.GetBooted(), Good: d.GetGood(), Trying: d.GetTrying(),
		Tries: int(d.GetTries()), Failure: clean(d.GetFailure()),
	}
	if disk.Path == "" || len(d.GetSlots()) > 2 {
		return nil, fmt.Errorf("%w: a system disk has a path and at most two slots", errInstall)
	}
	for _, slot := range []string{disk.Booted, disk.Good, disk.Trying} {
		if slot != "" && slot != "a" && slot != "b" {
			return nil, fmt.Errorf("%w: %q is not a slot: a, b", errInstall, clean(slot))
		}
	}
	for _, s := range d.GetSlots() {
		disk.Slots = append(disk.Slots, enroll.Slot{Name: clean(s.GetName()), Version: clean(s.GetVersion()), RootHash: clean(s.GetRootHash()), Kubernetes: clean(s.GetKubernetes())})
	}
	return disk, nil
}

func diskTo(d enroll.SystemDisk) *bootv1.SystemDisk {
	if d.Path == "" {
		return nil
	}
	disk := &bootv1.SystemDisk{
		Path: d.Path, Serial: d.Serial, Booted: d.Booted, Good: d.Good, Trying: d.Trying, Tries: int32(d.Tries), Failure: d.Failure,
	}
	for _, s := range d.Slots {
		disk.Slots = append(disk.Slots, &bootv1.Slot{Name: s.Name, Version: s.Version, RootHash: s.RootHash, Kubernetes: s.Kubernetes})
	}
	return disk
}

// installationTo is nil for a machine that has nothing to do with its disks.
func installationTo(m inventory.Machine) *bootv1.Installation {
	i := m.Installation
	if i.Wipe.Hash == "" && i.Disk.Path == "" {
		return nil
	}
	return &bootv1.Installation{
		Wipe: manifestTo(i.Wipe), Agreed: bytesOf(i.Agreed), AgreedBy: i.By, Disk: diskTo(i.Disk),
		Next: string(m.Source()), Held: m.Held(),
	}
}
