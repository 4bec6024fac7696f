package main

import (
	"bytes"
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"text/tabwriter"
	"time"

	"connectrpc.com/connect"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/types/known/timestamppb"

	"slipway/bootsvc/api/bootv1"
	"slipway/bootsvc/api/bootv1/bootv1connect"
	"slipway/bootsvc/api/client"
)

// phases is a boot service whose CA is in one state after the other.
type phases struct {
	bootv1connect.AuthorityServiceClient
	shown []*bootv1.Authority // the last stays
}

func (p *phases) GetAuthority(context.Context, *connect.Request[bootv1.GetAuthorityRequest]) (*connect.Response[bootv1.GetAuthorityResponse], error) {
	now := p.shown[0]
	if len(p.shown) > 1 {
		p.shown = p.shown[1:]
	}
	return connect.NewResponse(&bootv1.GetAuthorityResponse{Authority: now}), nil
}

var bobIsMissing = &bootv1.Authority{Phase: "use", Waiting: []*bootv1.Holder{{
	Name: "bob (reader)", WaitingFor: "any command with this context", Missing: true, After: "the context is refused",
}}}

func TestWaitingForTheCA(t *testing.T) {
	for name, test := range map[string]struct {
		shown    []*bootv1.Authority
		out, err string
	}{
		"to its end": {
			[]*bootv1.Authority{{Phase: "trust"}, bobIsMissing, bobIsMissing, {Phase: "retire"}, {}},
			"   0.0s  ca  trust\n   1.0s  ca  use, waits for bob (reader): any command with this context\n   3.0s  ca  retire\n   4.0s  ca  done\n", "",
		},
		"not in time": {
			[]*bootv1.Authority{bobIsMissing}, "   0.0s  ca  use, waits for bob (reader): any command with this context\n",
			"not in time: after 1m0s, the CA is in phase use and waits for bob (reader): any command with this context; it goes on by itself, see slipway ca status",
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				var out bytes.Buffer
				w := waiting{
					Client: &client.Client{Authority: &phases{shown: test.shown}}, command: t.Context(), timeout: time.Minute,
					out: &out, start: time.Now(), last: map[string]string{},
				}
				if got := errorText(w.forCA(ctx)); got != test.err {
					t.Errorf("the error is %q", got)
				}
				if diff := cmp.Diff(test.out, out.String()); diff != "" {
					t.Error(diff)
				}
			})
		})
	}
}

func TestAuthorityTable(t *testing.T) {
	now := time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)
	quiet := &bootv1.Authority{Hash: "9f86d081884c7d659a2feaa0", Until: timestamppb.New(now)}
	rotating := &bootv1.Authority{
		Hash: quiet.Hash, Until: quiet.Until, Phase: "use", Since: timestamppb.New(now.Add(-time.Minute)), Waiting: bobIsMissing.Waiting,
	}
	for want, ca := range map[string]*bootv1.Authority{
		"CA                UNTIL       ROTATION  SINCE\n9f86d081884c7d65  2026-06-01  -         -\n": quiet,
		"CA                UNTIL       ROTATION  SINCE\n9f86d081884c7d65  2026-06-01  use       1m0s ago\n" +
			"\nWHO           WAITED FOR                     OTHERWISE\nbob (reader)  any command with this context  the context is refused\n" +
			"\nslipway ca retire goes on without them.\n": rotating,
	} {
		var out bytes.Buffer
		w := tabwriter.NewWriter(&out, 0, 4, 2, ' ', 0)
		authorityTable(w, ca, now)
		if err := w.Flush(); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, out.String()); diff != "" {
			t.Error(diff)
		}
	}
	var out bytes.Buffer
	explainCARotation(&out)
	for _, part := range []string{"no machine restarts", "by its machine key", "admin.yaml"} {
		if !strings.Contains(out.String(), part) {
			t.Errorf("%q is not in\n%s", part, out.String())
		}
	}
}
