package api

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/timestamppb"

	"slipway/bootsvc/api/bootv1"
	"slipway/bootsvc/assign"
	"slipway/bootsvc/authority"
	"slipway/bootsvc/enroll"
	"slipway/bootsvc/inventory"
	"slipway/bootsvc/snapshot"
	"slipway/bootsvc/store"
	configs "slipway/configs/enroll"
)

// maxText bounds one text of a stranger, in bytes.
const maxText = 200

// codes says with which code of the protocol an error is answered.
var codes = []struct {
	err  error
	code connect.Code
}{
	{store.ErrNotFound, connect.CodeNotFound},
	{errInstall, connect.CodeInvalidArgument},
	{store.ErrContended, connect.CodeAborted},
	{inventory.ErrFull, connect.CodeResourceExhausted},
	{enroll.ErrRequest, connect.CodeInvalidArgument},
	{enroll.ErrReplaced, connect.CodePermissionDenied},
	{enroll.ErrWords, connect.CodeFailedPrecondition},
	{assign.ErrReplaced, connect.CodePermissionDenied},
	{assign.ErrDelivered, connect.CodeFailedPrecondition},
	{assign.ErrFixed, connect.CodeFailedPrecondition},
	{assign.ErrQuorum, connect.CodeFailedPrecondition},
	{assign.ErrGrant, connect.CodeFailedPrecondition},
	{assign.ErrClaimed, connect.CodeFailedPrecondition},
	{inventory.ErrClaimed, connect.CodeFailedPrecondition},
	{assign.ErrNoEndpoint, connect.CodeFailedPrecondition},
	{assign.ErrWhich, connect.CodeFailedPrecondition},
	{assign.ErrExists, connect.CodeAlreadyExists},
	{assign.ErrDocument, connect.CodeInvalidArgument},
	{assign.ErrWhat, connect.CodeInvalidArgument},
	{assign.ErrExternalEtcd, connect.CodeFailedPrecondition},
	{assign.ErrNoMembers, connect.CodeFailedPrecondition},
	{assign.ErrOther, connect.CodeFailedPrecondition},
	{assign.ErrHealthy, connect.CodeFailedPrecondition},
	{assign.ErrNoSurvivor, connect.CodeFailedPrecondition},
	{assign.ErrPlan, connect.CodeAborted},
	{authority.ErrNoRotation, connect.CodeFailedPrecondition},
	{authority.ErrEarly, connect.CodeFailedPrecondition},
	{snapshot.ErrNotFound, connect.CodeNotFound},
	{snapshot.ErrBad, connect.CodeInvalidArgument},
	{snapshot.ErrFull, connect.CodeResourceExhausted},
	{snapshot.ErrNoMember, connect.CodeFailedPrecondition},
	{context.Canceled, connect.CodeCanceled},
	{context.DeadlineExceeded, connect.CodeDeadlineExceeded},
}

// failed turns an error into the protocol's, and records the refusal. An error
// that is nobody's mistake is logged; the caller is told only that it happened.
func (s *Server) failed(ctx context.Context, reason string, err error) error {
	c := callerOf(ctx)
	for _, known := range codes {
		if !errors.Is(err, known.err) {
			continue
		}
		if known.code != connect.CodeNotFound || len(c.roles) == 0 {
			s.Refusals.Refuse(service, c.address.String(), reason, "caller", c.name, "error", err)
		}
		return connect.NewError(known.code, err)
	}
	s.Log.Error(reason, "unit", service, "caller", c.name, "error", err)
	return connect.NewError(connect.CodeInternal, errors.New("the boot service failed: its log says why"))
}

// clean makes a stranger's text fit for a terminal and a log.
func clean(text string) string {
	text = strings.ToValidUTF8(text[:min(len(text), maxText)], "?")
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, text)
}

func factsFrom(f *bootv1.Facts) (configs.Facts, error) {
	if len(f.GetNics()) > configs.MaxNICs || len(f.GetDisks()) > configs.MaxDisks {
		return configs.Facts{}, fmt.Errorf("%d network cards and %d disks are more than %d and %d",
			len(f.GetNics()), len(f.GetDisks()), configs.MaxNICs, configs.MaxDisks)
	}
	facts := configs.Facts{
		UUID: clean(f.GetUuid()), Vendor: clean(f.GetVendor()), Product: clean(f.GetProduct()), Serial: clean(f.GetSerial()),
		Arch: clean(f.GetArch()), Firmware: clean(f.GetFirmware()), CPUs: int(f.GetCpus()), Memory: f.GetMemory(),
	}
	for _, n := range f.GetNics() {
		facts.NICs = append(facts.NICs, configs.NIC{Name: clean(n.GetName()), MAC: clean(n.GetMac()), Driver: clean(n.GetDriver()), Up: n.GetUp()})
	}
	for _, d := range f.GetDisks() {
		facts.Disks = append(facts.Disks, configs.Disk{
			Name: clean(d.GetName()), Size: d.GetSize(), Model: clean(d.GetModel()), Serial: clean(d.GetSerial()),
			WWN: clean(d.GetWwn()), Type: clean(d.GetType()), Removable: d.GetRemovable(), Rotational: d.GetRotational(),
		})
	}
	return facts, nil
}

func factsTo(f configs.Facts) *bootv1.Facts {
	facts := &bootv1.Facts{
		Uuid: f.UUID, Vendor: f.Vendor, Product: f.Product, Serial: f.Serial,
		Arch: f.Arch, Firmware: f.Firmware, Cpus: int32(f.CPUs), Memory: f.Memory,
	}
	for _, n := range f.NICs {
		facts.Nics = append(facts.Nics, &bootv1.NIC{Name: n.Name, Mac: n.MAC, Driver: n.Driver, Up: n.Up})
	}
	for _, d := range f.Disks {
		facts.Disks = append(facts.Disks, &bootv1.Disk{Name: d.Name, Size: d.Size, Model: d.Model, Serial: d.Serial, Wwn: d.WWN, Type: d.Type, Removable: d.Removable, Rotational: d.Rotational})
	}
	return facts
}

func machineTo(m inventory.Machine, now time.Time) *bootv1.Machine {
	machine := &bootv1.Machine{
		Id: m.ID, Phase: string(m.Phase), WaitingFor: m.Waits(now), Words: m.Words(), Facts: factsTo(m.Facts),
		Cluster: m.Cluster, Hostname: m.Hostname, Role: string(m.Role), Installation: installationTo(m), Late: m.Late(now),
	}
	if m.Address.IsValid() {
		machine.Address = m.Address.String()
	}
	if !m.LastSeen.IsZero() {
		machine.LastSeen = timestamppb.New(m.LastSeen)
	}
	if m.Etcd != (inventory.EtcdState{}) {
		machine.Etcd = &bootv1.EtcdState{
			MemberId: m.Etcd.MemberID, Generation: int32(m.Etcd.Generation), Voter: m.Etcd.Voter,
			Healthy: m.Etcd.Healthy, Leader: m.Etcd.Leader, Revision: m.Etcd.Revision,
		}
	}
	return machine
}

func eventsTo(entries []inventory.Entry) []*bootv1.Event {
	var events []*bootv1.Event
	for _, e := range entries {
		detail := e.Detail
		if e.Count > 1 {
			detail = fmt.Sprintf("%s (%d times)", detail, e.Count)
		}
		events = append(events, &bootv1.Event{Name: e.Name, Detail: detail, Time: timestamppb.New(e.At)})
	}
	return events
}

func clusterTo(c assign.Cluster, now time.Time) *bootv1.Cluster {
	cluster := &bootv1.Cluster{
		Name: c.Document.Name, Endpoint: c.Endpoint, Document: c.YAML,
		EtcdGeneration: int32(c.Etcd.Generation), EtcdSnapshot: c.Etcd.Grant.Snapshot,
	}
	leader := inventory.Leader(c.Machines, now)
	for _, m := range c.Machines {
		machine := machineTo(m, now)
		machine.Current = c.Current[m.ID]
		if machine.Etcd != nil {
			machine.Etcd.Leader = m.ID == leader
		}
		cluster.Machines = append(cluster.Machines, machine)
	}
	return cluster
}
