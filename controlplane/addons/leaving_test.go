package addons

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"slipway/controlplane/apiclient"
	"slipway/controlplane/apiclient/apitest"
)

// TestDeleteLeaving: Nodes that are labelled are deleted, also when another
// control plane was faster; not one that is another by now.
func TestDeleteLeaving(t *testing.T) {
	var got []string
	access := apitest.Serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var options struct{ Preconditions struct{ UID string } }
		_ = json.NewDecoder(r.Body).Decode(&options)
		got = append(got, strings.TrimSpace(r.Method+" "+r.URL.RequestURI()+" "+options.Preconditions.UID))
		switch {
		case r.Method == http.MethodGet:
			fmt.Fprint(w, `{"items":[{"metadata":{"name":"old-1","uid":"u1"}},{"metadata":{"name":"old-2","uid":"u2"}},{"metadata":{"name":"new-3","uid":"u3"}}]}`)
		case r.URL.Path == "/api/v1/nodes/old-1":
			http.Error(w, `{"message":"nodes \"old-1\" not found"}`, http.StatusNotFound)
		case r.URL.Path == "/api/v1/nodes/new-3":
			http.Error(w, `{"message":"Precondition failed: UID in precondition: u3, UID in object meta: u4"}`, http.StatusConflict)
		}
	}))
	client, err := apiclient.Open(apiclient.Access(access))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	if err := deleteLeaving(t.Context(), client); err != nil {
		t.Error(err)
	}
	want := []string{
		"GET /api/v1/nodes?labelSelector=slipway.internal%2Fleaving&resourceVersion=0",
		"DELETE /api/v1/nodes/old-1 u1", "DELETE /api/v1/nodes/old-2 u2", "DELETE /api/v1/nodes/new-3 u3",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %q", got)
	}
}
