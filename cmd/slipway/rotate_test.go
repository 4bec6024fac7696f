package main

import (
	"bytes"
	"context"
	"io"
	"net/http"
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

// course is a cluster that shows one list of rotations after the other.
type course struct {
	bootv1connect.ClusterServiceClient
	shown [][]*bootv1.Rotation // the last stays
	err   error
}

func (c *course) GetCluster(context.Context, *connect.Request[bootv1.GetClusterRequest]) (*connect.Response[bootv1.GetClusterResponse], error) {
	if c.err != nil {
		return nil, c.err
	}
	now := c.shown[0]
	if len(c.shown) > 1 {
		c.shown = c.shown[1:]
	}
	return connect.NewResponse(&bootv1.GetClusterResponse{Cluster: &bootv1.Cluster{Name: "prod", Rotations: now}}), nil
}

func rotation(what, phase, waits string) *bootv1.Rotation {
	return &bootv1.Rotation{What: what, Phase: phase, WaitingFor: waits}
}

func TestWaitingForRotations(t *testing.T) {
	ca, other := "kubernetes-ca", rotation("encryption-key", "trust", "")
	behind := rotation(ca, "trust", "prod-cp-2 (52-54-00-00-00-02) to take its config")
	for name, test := range map[string]struct {
		course course
		out    string
		err    string
	}{
		"to its end": {
			course{shown: [][]*bootv1.Rotation{{behind, other}, {behind}, {rotation(ca, "use", "")}, {rotation(ca, "retire", "")}, {other}}},
			"   0.0s  kubernetes-ca  trust, waits for prod-cp-2 (52-54-00-00-00-02) to take its config\n   2.0s  kubernetes-ca  use\n   3.0s  kubernetes-ca  retire\n   4.0s  kubernetes-ca  done\n", "",
		},
		"over before it was looked at": {course{shown: [][]*bootv1.Rotation{nil}}, "   0.0s  kubernetes-ca  done\n", ""},
		"not in time": {
			course{shown: [][]*bootv1.Rotation{{behind}}}, "   0.0s  kubernetes-ca  trust, waits for prod-cp-2 (52-54-00-00-00-02) to take its config\n",
			"not in time: after 1m0s, kubernetes-ca is in phase trust and waits for prod-cp-2 (52-54-00-00-00-02) to take its config; it goes on by itself, see slipway cluster status prod",
		},
		"refused": {course{err: errTooFew}, "", errTooFew.Error()},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				var out bytes.Buffer
				w := waiting{
					Client: &client.Client{Clusters: &test.course}, command: t.Context(), timeout: time.Minute,
					out: &out, start: time.Now(), last: map[string]string{},
				}
				err := w.forRotations(ctx, "prod", []string{ca})
				if got := errorText(err); got != test.err {
					t.Errorf("the error is %q", got)
				}
				if diff := cmp.Diff(test.out, out.String()); diff != "" {
					t.Error(diff)
				}
			})
		})
	}
}

func errorText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func TestRotationsAreExplained(t *testing.T) {
	for what, want := range map[string][]string{
		"kubernetes-ca":          {"another kubernetes-ca, in three phases", "slipway cluster kubeconfig prod", "restart them in phase trust"},
		"etcd-ca front-proxy-ca": {"another etcd-ca, front-proxy-ca, in", "makes its certificates anew"},
		"service-account-key":    {"another service-account-key, in", "accepts tokens of both", "within 24 hours", "kubernetes.io/service-account-token"},
		"encryption-key":         {"all Secrets are written anew", "for snapshots taken before"},
	} {
		var out bytes.Buffer
		explainRotation(&out, "prod", strings.Fields(what))
		for _, part := range want {
			if !strings.Contains(out.String(), part) {
				t.Errorf("%s: %q is not in\n%s", what, part, out.String())
			}
		}
		if strings.Contains(out.String(), "kubeconfig") != strings.Contains(what, "kubernetes") {
			t.Errorf("%s: kubeconfigs are mentioned wrongly in\n%s", what, out.String())
		}
	}
}

func TestRotateUsage(t *testing.T) {
	for _, args := range []string{"rotate-ca prod", "rotate-ca prod --ca machine", "rotate-ca --ca etcd", "rotate-encryption-key", "rotate-service-account-key"} {
		code := run(t.Context(), append([]string{"cluster"}, strings.Fields(args)...), http.NoBody, io.Discard, io.Discard)
		if code != exitUsage {
			t.Errorf("slipway cluster %s ends with %d", args, code)
		}
	}
}

func TestRotationTable(t *testing.T) {
	now := time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)
	r := rotation("etcd-ca", "use", "prod-cp-2")
	r.Since = timestamppb.New(now.Add(-90 * time.Second))
	for want, c := range map[string]*bootv1.Cluster{
		"": {},
		"\nROTATION  PHASE  SINCE      WAITING FOR\netcd-ca   use    1m30s ago  prod-cp-2\n": {Rotations: []*bootv1.Rotation{r}},
	} {
		var out bytes.Buffer
		w := tabwriter.NewWriter(&out, 0, 4, 2, ' ', 0)
		rotationTable(w, c, now)
		if err := w.Flush(); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, out.String()); diff != "" {
			t.Error(diff)
		}
	}
}
