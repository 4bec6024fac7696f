package addons

import (
	"fmt"
	"net/http"
	"slices"
	"testing"

	"slipway/controlplane/apiclient"
	"slipway/controlplane/apiclient/apitest"
)

// TestDeleteLeaving: Nodes that are labelled are deleted, also when another
// control plane was faster.
func TestDeleteLeaving(t *testing.T) {
	var got []string
	access := apitest.Serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got = append(got, r.Method+" "+r.URL.RequestURI())
		switch {
		case r.Method == http.MethodGet:
			fmt.Fprint(w, `{"items":[{"metadata":{"name":"old-1"}},{"metadata":{"name":"old-2"}}]}`)
		case r.URL.Path == "/api/v1/nodes/old-1":
			http.Error(w, `{"message":"nodes \"old-1\" not found"}`, http.StatusNotFound)
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
		"DELETE /api/v1/nodes/old-1", "DELETE /api/v1/nodes/old-2",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %q", got)
	}
}
