package atrest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"

	"slipway/controlplane/apiclient"
)

const (
	// page is how many Secrets are listed at once.
	page = 20
	// attempts is how often one is written that others change at the same time.
	attempts = 10
)

// rewriter writes every Secret as it is. The API server encrypts it anew if
// another key than the first one was used.
type rewriter struct {
	client *apiclient.Client
	told   func(done int)
}

type list struct {
	Metadata struct {
		Continue string `json:"continue"`
	} `json:"metadata"`
	Items []struct {
		Metadata struct {
			Namespace string `json:"namespace"`
			Name      string `json:"name"`
		} `json:"metadata"`
	} `json:"items"`
}

// all goes through the list once. A Secret that is made meanwhile is encrypted
// with the first key already. A list that took so long that the server can no
// longer continue it is begun again.
func (r rewriter) all(ctx context.Context) error {
	done, next := 0, ""
	for {
		var secrets list
		query := url.Values{"limit": {fmt.Sprint(page)}, "continue": {next}}
		err := r.client.Metadata(ctx, "/api/v1/secrets?"+query.Encode(), &secrets)
		if errors.Is(err, apiclient.ErrGone) && next != "" {
			next = ""
			continue
		}
		if err != nil {
			return err
		}
		for _, item := range secrets.Items {
			if err := r.one(ctx, item.Metadata.Namespace, item.Metadata.Name); err != nil {
				return err
			}
			done++
			r.told(done)
		}
		if next = secrets.Metadata.Continue; next == "" {
			return nil
		}
	}
}

// one reads a Secret and writes what was read; resourceVersion, which is part
// of it, keeps it from undoing what another has changed since.
func (r rewriter) one(ctx context.Context, namespace, name string) error {
	path := "/api/v1/namespaces/" + url.PathEscape(namespace) + "/secrets/" + url.PathEscape(name)
	for range attempts {
		var object json.RawMessage
		err := r.client.Get(ctx, path, &object)
		if err == nil {
			err = r.client.Put(ctx, path, object)
		}
		switch {
		case err == nil, errors.Is(err, apiclient.ErrNotFound): // or it is gone
			return nil
		case !errors.Is(err, apiclient.ErrConflict):
			return err
		}
	}
	return fmt.Errorf("rewrite Secret %s/%s: %w", namespace, name, errMoved)
}
