package agent

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"slipway/nodeinit/api/nodev1"
)

// TestRolesCoverTheAPI walks the API's own description: every procedure of
// NodeService and EtcdService has the roles that its comment names, every other
// none.
func TestRolesCoverTheAPI(t *testing.T) {
	want := map[string][]string{
		"/slipway.node.v1.NodeService/Upgrade":    {operator, admin},
		"/slipway.node.v1.NodeService/Rollback":   {operator, admin},
		"/slipway.node.v1.NodeService/Status":     {reader, operator, admin},
		"/slipway.node.v1.NodeService/Logs":       {reader, operator, admin},
		"/slipway.node.v1.NodeService/Dmesg":      {reader, operator, admin},
		"/slipway.node.v1.NodeService/Reboot":     {operator, admin},
		"/slipway.node.v1.NodeService/Reset":      {operator, admin},
		"/slipway.node.v1.NodeService/CheckReset": {operator, admin},

		"/slipway.node.v1.EtcdService/Status":            {reader, backup, operator, admin},
		"/slipway.node.v1.EtcdService/Members":           {reader, backup, operator, admin},
		"/slipway.node.v1.EtcdService/Snapshot":          {backup, operator, admin},
		"/slipway.node.v1.EtcdService/Remove":            {operator, admin},
		"/slipway.node.v1.EtcdService/Promote":           {operator, admin},
		"/slipway.node.v1.EtcdService/Defrag":            {operator, admin},
		"/slipway.node.v1.EtcdService/ForfeitLeadership": {operator, admin},
		"/slipway.node.v1.EtcdService/Leave":             {operator, admin},

		"/slipway.node.v1.InitService/Apply":      nil,
		"/slipway.node.v1.InitService/Prepare":    nil,
		"/slipway.node.v1.InitService/WatchUnits": nil,
	}
	got := map[string][]string{}
	services := nodev1.File_nodeinit_api_nodev1_node_proto.Services()
	for i := range services.Len() {
		methods := services.Get(i).Methods()
		for j := range methods.Len() {
			procedure := fmt.Sprintf("/%s/%s", services.Get(i).FullName(), methods.Get(j).Name())
			got[procedure] = rolesFor(procedure)
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("a procedure has no place in rolesFor, or in this test (-want +got):\n%s", diff)
	}
}
