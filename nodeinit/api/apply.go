package api

import (
	"context"
	"fmt"
	"net/netip"
	"slices"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"

	"slipway/configs/machine"
	"slipway/nodeinit/api/nodev1"
	"slipway/nodeinit/proc"
	"slipway/nodeinit/supervise"
)

// Prerequisite is the unit that every unit of a config waits for which waits
// for no other: the kernel has its modules.
const Prerequisite = "modules"

// Apply makes the node be what the config says: units that are new or changed
// are started, those that are gone are stopped, and the others run on. The same
// request again is done already. A config that would make another node of this
// one is FAILED_PRECONDITION.
func (s *Server) Apply(ctx context.Context, request *connect.Request[nodev1.ApplyRequest]) (*connect.Response[nodev1.ApplyResponse], error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	done := connect.NewResponse(&nodev1.ApplyResponse{})
	if proto.Equal(s.applied, request.Msg) {
		return done, nil
	}
	config, identity, err := read(request.Msg)
	if err != nil {
		return nil, connect.NewError(connect.CodeInvalidArgument, err)
	}
	if s.config != nil {
		if err := s.config.CheckSuccessor(config); err != nil {
			return nil, connect.NewError(connect.CodeFailedPrecondition, err)
		}
	}
	if err := s.apply(ctx, config, identity); err != nil {
		return nil, connect.NewError(connect.CodeInternal, err)
	}
	s.applied, s.config = request.Msg, config
	return done, nil
}

func read(request *nodev1.ApplyRequest) (*machine.Config, machine.Identity, error) {
	var identity machine.Identity
	config, err := machine.Parse(request.Config, "config")
	if err != nil {
		return nil, identity, err
	}
	address, err := netip.ParseAddr(request.Address)
	if err != nil {
		return nil, identity, fmt.Errorf("read the node's address: %w", err)
	}
	identity = machine.Identity{Hostname: config.Hostname, Address: address, Link: request.Link}
	for _, text := range request.Nameservers {
		nameserver, err := netip.ParseAddr(text)
		if err != nil {
			return nil, identity, fmt.Errorf("read the network's nameservers: %w", err)
		}
		identity.Nameservers = append(identity.Nameservers, nameserver)
	}
	return config, identity, nil
}

// apply writes files before it starts what reads them. If it fails half way,
// what ran before runs on, and it may be tried again.
func (s *Server) apply(ctx context.Context, config *machine.Config, identity machine.Identity) error {
	files, planned, err := s.Plan(config, identity)
	if err != nil {
		return fmt.Errorf("plan the units of %s: %w", config.Hostname, err)
	}
	return s.run(ctx, files, planned)
}

// Prepare starts what every node runs. It runs on when the config comes. Once
// one did, this is done already.
func (s *Server) Prepare(ctx context.Context, _ *connect.Request[nodev1.PrepareRequest]) (*connect.Response[nodev1.PrepareResponse], error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	done := connect.NewResponse(&nodev1.PrepareResponse{})
	if s.config != nil {
		return done, nil
	}
	files, units, err := s.Common()
	if err == nil {
		err = s.run(ctx, files, units)
	}
	if err != nil {
		return nil, connect.NewError(connect.CodeInternal, err)
	}
	for _, u := range units {
		done.Msg.Units = append(done.Msg.Units, u.Name)
	}
	return done, nil
}

// run makes files and units what there is beside the base units.
func (s *Server) run(ctx context.Context, files []proc.File, planned []supervise.Unit) error {
	units := slices.Concat(s.Base, after(Prerequisite, planned))
	if err := supervise.Check(units); err != nil {
		return err
	}
	if err := proc.WriteFiles(files); err != nil {
		return err
	}
	s.Runner.Adopt(planned)
	return s.Units.Apply(ctx, units)
}

func after(name string, units []supervise.Unit) []supervise.Unit {
	units = slices.Clone(units)
	for i := range units {
		if len(units[i].After) == 0 {
			units[i].After = []string{name}
		}
	}
	return units
}
