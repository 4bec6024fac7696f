package api

import (
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/timestamppb"

	"slipway/nodeinit/api/nodev1"
	"slipway/nodeinit/supervise"
)

// Status tells of the machine and of each unit.
func (s *Server) Status(context.Context, *connect.Request[nodev1.StatusRequest]) (*connect.Response[nodev1.StatusResponse], error) {
	memory := s.System.memory()
	answer := &nodev1.StatusResponse{
		Version:         s.Version,
		Kernel:          s.System.kernel(),
		UptimeMs:        s.System.uptime().Milliseconds(),
		MemoryTotal:     memory["MemTotal"],
		MemoryAvailable: memory["MemAvailable"],
	}
	s.mu.Lock()
	if s.config != nil {
		answer.Hostname, answer.Role, answer.Cluster = s.config.Hostname, string(s.config.Role), s.config.Cluster.Name
	}
	s.mu.Unlock()
	for _, status := range s.Units.Status() {
		answer.Units = append(answer.Units, s.unit(status))
	}
	return connect.NewResponse(answer), nil
}

// WatchUnits sends every unit, then those that change. One that is no more is
// sent as stopped.
func (s *Server) WatchUnits(ctx context.Context, _ *connect.Request[nodev1.WatchUnitsRequest], stream *connect.ServerStream[nodev1.Unit]) error {
	sent := make(map[string]supervise.Status)
	err := s.Units.Watch(ctx, func(all []supervise.Status) error {
		for _, status := range append(all, gone(sent, all)...) {
			if sent[status.Name] == status {
				continue
			}
			sent[status.Name] = status
			if err := stream.Send(s.unit(status)); err != nil {
				return err
			}
		}
		return nil
	})
	return ended(err)
}

// gone are the units that were sent and are not there any more, as stopped now.
func gone(sent map[string]supervise.Status, all []supervise.Status) (list []supervise.Status) {
	for _, name := range slices.Sorted(maps.Keys(sent)) {
		still := func(s supervise.Status) bool { return s.Name == name }
		if sent[name].State != supervise.Stopped && !slices.ContainsFunc(all, still) {
			list = append(list, supervise.Status{Name: name, State: supervise.Stopped, Since: time.Now()})
		}
	}
	return list
}

// ended makes a stream that its reader gave up no error.
func ended(err error) error {
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// unit is a status as the API has it. Times are reckoned from now: the clock
// may have been set since.
func (s *Server) unit(status supervise.Status) *nodev1.Unit {
	age := time.Since(status.Since)
	return &nodev1.Unit{
		Name:        status.Name,
		State:       string(status.State),
		Since:       timestamppb.New(present(status.Since)),
		SinceBootMs: (s.System.uptime() - age).Milliseconds(),
		Restarts:    int32(status.Restarts),
		WaitingFor:  status.WaitingFor,
		LastError:   status.LastError,
		Pid:         int32(status.PID),
		Memory:      s.System.unitMemory(status.Name),
		CpuMs:       s.System.unitCPU(status.Name).Milliseconds(),
	}
}

// present is when t was, by the clock as it is set now.
func present(t time.Time) time.Time { return time.Now().Add(-time.Since(t)).Round(0) }
