package assign

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"slipway/bootsvc/inventory"
	"slipway/configs/cluster"
	"slipway/nodeinit/api/nodev1"
)

func TestPlansOfRecovery(t *testing.T) {
	status := func(index uint64, change func(*nodev1.EtcdStatusResponse)) *nodev1.EtcdStatusResponse {
		s := &nodev1.EtcdStatusResponse{Running: true, MemberId: "a", Generation: 1, RaftTerm: 3, RaftIndex: index, Revision: int64(index) - 2}
		if change != nil {
			change(s)
		}
		return s
	}
	stopped := status(0, func(s *nodev1.EtcdStatusResponse) { s.Running = false })
	learner := status(99, func(s *nodev1.EtcdStatusResponse) { s.Learner = true })
	led := status(9, func(s *nodev1.EtcdStatusResponse) { s.LeaderId = "b" })
	ledLearner := status(9, func(s *nodev1.EtcdStatusResponse) { s.LeaderId, s.Learner = "b", true })
	dated := status(9, func(s *nodev1.EtcdStatusResponse) { s.LastLeader = timestamppb.New(noon.Add(-time.Hour)) })
	laterTerm := status(8, func(s *nodev1.EtcdStatusResponse) { s.RaftTerm = 7 })
	older := status(99, func(s *nodev1.EtcdStatusResponse) { s.Generation = 0 })
	for name, test := range map[string]struct {
		answers []*nodev1.EtcdStatusResponse // of prod-cp-1 and so on; nil: silent
		err     error
		order   string
		silent  string
		loss    []string
	}{
		"one of three": {
			[]*nodev1.EtcdStatusResponse{nil, dated, nil}, nil, "2", "prod-cp-1, prod-cp-3",
			[]string{"prod-cp-2 goes on at revision 7", "at 2026-06-01 11:00:00 UTC, 1h0m0s ago", "may be lost", "prod-cp-1, prod-cp-3", "power them off"},
		},
		"the freshest of two of five": {[]*nodev1.EtcdStatusResponse{status(8, nil), nil, status(9, nil), nil, nil}, nil, "3 1", "prod-cp-2, prod-cp-4, prod-cp-5",
			[]string{"prod-cp-3 goes on at revision 7", "it is not known when"}},
		"a later term knows less":           {[]*nodev1.EtcdStatusResponse{laterTerm, status(9, nil), nil}, nil, "2 1", "prod-cp-3", nil},
		"the same, and a leader later":      {[]*nodev1.EtcdStatusResponse{status(9, nil), dated, nil}, nil, "2 1", "prod-cp-3", []string{"1h0m0s ago"}},
		"an older generation":               {[]*nodev1.EtcdStatusResponse{older, status(9, nil), nil}, nil, "2 1", "prod-cp-3", nil},
		"a learner goes last":               {[]*nodev1.EtcdStatusResponse{learner, status(9, nil), nil}, nil, "2 1", "prod-cp-3", nil},
		"only one that does not run":        {[]*nodev1.EtcdStatusResponse{nil, stopped, nil}, nil, "2", "prod-cp-1, prod-cp-3", []string{"nobody knows how fresh"}},
		"two that answer, and hold no data": {[]*nodev1.EtcdStatusResponse{status(9, nil), {}, {}}, nil, "1", "prod-cp-2 (it answers, but holds no data), prod-cp-3 (it answers, but holds no data)", nil},
		"all hold data and have no leader":  {[]*nodev1.EtcdStatusResponse{status(9, nil), status(9, nil), status(9, nil)}, nil, "1 2 3", "", []string{"may be lost."}},
		"a leader":                          {[]*nodev1.EtcdStatusResponse{led, nil, nil}, ErrHealthy, "", "", nil},
		"a learner that saw a leader":       {[]*nodev1.EtcdStatusResponse{ledLearner, nil, nil}, nil, "1", "prod-cp-2, prod-cp-3", nil},
		"none":                              {[]*nodev1.EtcdStatusResponse{nil, {}, nil}, ErrNoSurvivor, "", "", nil},
	} {
		t.Run(name, func(t *testing.T) {
			var all []heard
			for i, answer := range test.answers {
				h := heard{machine: inventory.Machine{ID: id(i + 1), Hostname: "prod-cp-" + string(rune('1'+i))}, status: answer}
				if answer == nil {
					h.err = errors.New("no route")
				}
				all = append(all, h)
			}
			plan, err := planRecovery(Cluster{Document: &cluster.Cluster{Name: "prod"}, Etcd: Etcd{Generation: 1}}, all, noon)
			if !errors.Is(err, test.err) {
				t.Fatalf("%v, want %v", err, test.err)
			}
			var order []string
			for _, s := range plan.Survivors {
				order = append(order, strings.TrimPrefix(s.Machine.Hostname, "prod-cp-"))
			}
			if got := strings.Join(order, " "); got != test.order {
				t.Errorf("the order is %s, want %s", got, test.order)
			}
			if got := strings.Join(plan.Silent, ", "); got != test.silent {
				t.Errorf("silent are %s, want %s", got, test.silent)
			}
			for _, want := range test.loss {
				if !strings.Contains(plan.Loss, want) {
					t.Errorf("%q is not in %q", want, plan.Loss)
				}
			}
		})
	}
}

// survivors answers for machines by the last number of their address.
func survivors(answers map[byte]*nodev1.EtcdStatusResponse) AskStatus {
	return func(_ context.Context, node netip.Addr) (*nodev1.EtcdStatusResponse, error) {
		answer, found := answers[node.As4()[3]]
		if !found {
			return nil, errors.New("no route to host")
		}
		return answer, nil
	}
}

// threeOf makes prod of three control planes that have their configs.
func threeOf(t *testing.T) *Office {
	t.Helper()
	o := newOffice(t)
	text := "name: prod\nmachines:\n"
	for n := 1; n <= 3; n++ {
		approve(t, o, n, "key")
		text += "- {id: " + id(n) + ", role: control-plane}\n"
	}
	if _, err := o.Create(t.Context(), []byte(text)); err != nil {
		t.Fatal(err)
	}
	if config, err := fetch(t, o, 1, "key"); err != nil || config.Etcd.Bootstrap == nil {
		t.Fatalf("the first machine does not start etcd: %v", err)
	}
	return o
}

func TestARecoveryIsWhatWasAgreedTo(t *testing.T) {
	o := threeOf(t)
	two := &nodev1.EtcdStatusResponse{Running: true, MemberId: "b", Generation: 1, RaftIndex: 9, Revision: 7}
	ask := survivors(map[byte]*nodev1.EtcdStatusResponse{2: two})
	plan, err := o.PlanRecovery(t.Context(), "prod", ask)
	if err != nil {
		t.Fatal(err)
	}
	fresher := &nodev1.EtcdStatusResponse{Running: true, MemberId: "c", Generation: 1, RaftIndex: 10, Revision: 8}
	came := survivors(map[byte]*nodev1.EtcdStatusResponse{2: two, 3: fresher})
	if _, err := o.Recover(t.Context(), "prod", plan.Digest(), came); !errors.Is(err, ErrPlan) {
		t.Errorf("a fresher one came back: %v", err)
	}
	c, err := o.Recover(t.Context(), "prod", plan.Digest(), ask)
	if err != nil {
		t.Fatal(err)
	}
	if g := c.Etcd.Grant; c.Etcd.Generation != 2 || g.Machine != id(2) || g.KeyHash != "key" || !g.Recover || g.Token == "" {
		t.Errorf("etcd is %+v", c.Etcd)
	}
	if _, err := o.Recover(t.Context(), "prod", plan.Digest(), ask); !errors.Is(err, ErrPlan) {
		t.Errorf("the same plan twice: %v", err)
	}
	config, err := fetch(t, o, 2, "key")
	if err != nil || config.Etcd.Generation != 2 || config.Etcd.Bootstrap == nil || !config.Etcd.Bootstrap.Recover {
		t.Errorf("the config is %+v, %v", config.Etcd, err)
	}
	ready(t, o, 2, "key")
	if config, err := fetch(t, o, 1, "key"); err != nil || config.Etcd.Generation != 2 || config.Etcd.Bootstrap != nil {
		t.Errorf("the other one's config is %+v, %v", config.Etcd, err)
	}
}
