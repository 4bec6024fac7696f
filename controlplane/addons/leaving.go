package addons

import (
	"context"
	"errors"
	"net/url"

	"slipway/controlplane/apiclient"
)

// leavingNodes are as the API server remembers them: an exact answer would cost
// etcd a question to a quorum, every few seconds.
var leavingNodes = "/api/v1/nodes?labelSelector=" + url.QueryEscape(apiclient.Leaving) + "&resourceVersion=0"

// deleteLeaving deletes the Nodes that say they have left the cluster: a node
// may not delete its own. One control plane is enough for it, and several
// at once do no harm. What is remembered may be old: a machine may have taken
// the name since, and its Node stays.
func deleteLeaving(ctx context.Context, client *apiclient.Client) error {
	var nodes struct {
		Items []struct {
			Metadata struct{ Name, UID string } `json:"metadata"`
		} `json:"items"`
	}
	if err := client.Get(ctx, leavingNodes, &nodes); err != nil {
		return err
	}
	var errs []error
	for _, n := range nodes.Items {
		err := client.Delete(ctx, "/api/v1/nodes/"+url.PathEscape(n.Metadata.Name), n.Metadata.UID)
		if !errors.Is(err, apiclient.ErrNotFound) && !errors.Is(err, apiclient.ErrConflict) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
