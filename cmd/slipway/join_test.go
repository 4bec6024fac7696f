package main

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"slipway/bootsvc/api/bootv1"
	"slipway/configs/cluster"
	"slipway/configs/machine"
)

func threePlanes(t *testing.T) *cluster.Cluster {
	t.Helper()
	doc, err := planFrom(cluster.Cluster{Name: "prod"}, rack("approved", "approved", "approved", "approved"), counts{controlPlanes: 3, workers: 1})
	if err != nil {
		t.Fatal(err)
	}
	return doc
}

func TestJoining(t *testing.T) {
	const blank, known = "52-54-00-00-00-09", "52-54-00-00-00-02"
	for name, test := range map[string]struct {
		id      string
		role    machine.Role
		replace string
		want    string // the changes, or the error
	}{
		"a worker":              {blank, "", "", "joins " + blank + " worker prod-worker-2"},
		"a control plane":       {blank, machine.ControlPlane, "", "joins " + blank + " control-plane prod-cp-4"},
		"in another's place":    {blank, "", "prod-cp-2", "joins " + blank + " control-plane prod-cp-2, leaves and is reset " + known + " control-plane prod-cp-2"},
		"by the other's ID":     {blank, "", known, "joins " + blank + " control-plane prod-cp-2, leaves and is reset " + known + " control-plane prod-cp-2"},
		"once more":             {known, machine.ControlPlane, "", ""},
		"in its own place":      {known, "", "prod-cp-2", ""},
		"with another role":     {known, machine.Worker, "", "is prod-cp-2 with the role control-plane already"},
		"in nobody's place":     {blank, "", "prod-cp-9", "no machine prod-cp-9 to replace"},
		"a worker for a plane":  {blank, machine.Worker, "prod-cp-1", "has the role control-plane"},
		"with no known role":    {blank, "boss", "", `"boss" is not a role`},
		"with a name that is -": {"nobody", "", "", "is not a machine ID"},
	} {
		old := threePlanes(t)
		doc, err := joined(old, test.id, test.role, test.replace)
		var got string
		if err != nil {
			got = err.Error()
		} else if changes, err := compare(old, doc); err != nil {
			t.Fatal(err)
		} else {
			got = strings.ReplaceAll(strings.Join(changes, ", "), "\t", " ")
		}
		if err == nil && got != test.want || err != nil && (test.want == "" || !strings.Contains(got, test.want)) {
			t.Errorf("%s: %q, want %q", name, got, test.want)
		}
	}
}

func TestChangesOfSettings(t *testing.T) {
	old, doc := threePlanes(t), threePlanes(t)
	doc.Machines[3].Labels = map[string]string{"rack": "7"}
	doc.Etcd.AllowSlowDisk = true
	got, err := compare(old, doc)
	if err != nil {
		t.Fatal(err)
	}
	for i := range got {
		got[i] = strings.Join(strings.Fields(got[i]), " ")
	}
	want := []string{"+ allowSlowDisk: true", "+ labels:", `+ rack: "7"`}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestMemberStates(t *testing.T) {
	for want, e := range map[string]*bootv1.EtcdState{
		"":          nil,
		"learner":   {MemberId: "1", Healthy: true},
		"voter":     {MemberId: "1", Voter: true, Healthy: true},
		"leader":    {MemberId: "1", Voter: true, Healthy: true, Leader: true},
		"unhealthy": {MemberId: "1", Voter: true, Leader: true},
	} {
		if got := memberState(e); got != want {
			t.Errorf("%s: %q, want %q", fmt.Sprint(e), got, want)
		}
	}
}
