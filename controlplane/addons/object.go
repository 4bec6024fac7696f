package addons

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"

	"github.com/goccy/go-yaml"

	"slipway/controlplane/apiclient"
)

// object is one document of a manifest: its text and what names it.
type object struct {
	text       []byte
	APIVersion string `yaml:"apiVersion"`
	Kind       string `yaml:"kind"`
	Metadata   struct {
		Name      string `yaml:"name"`
		Namespace string `yaml:"namespace"`
	} `yaml:"metadata"`
}

func (o object) String() string { return o.Kind + " " + o.Metadata.Name }

// split reads a manifest's documents. Empty ones, a leading comment for
// instance, are left out.
func split(text []byte) ([]object, error) {
	var objects []object
	for part := range bytes.SplitSeq(append([]byte("\n"), text...), []byte("\n---\n")) {
		part = bytes.TrimPrefix(part, []byte("\n"))
		o := object{text: part}
		if err := yaml.Unmarshal(part, &o); err != nil {
			return nil, err
		}
		if o.Kind == "" && o.APIVersion == "" {
			continue
		}
		if o.Kind == "" || o.APIVersion == "" || o.Metadata.Name == "" {
			return nil, errors.New("an object lacks apiVersion, kind or metadata.name")
		}
		objects = append(objects, o)
	}
	return objects, nil
}

// resource is how the server calls a kind in its paths.
type resource struct {
	Name       string `json:"name"`
	Kind       string `json:"kind"`
	Namespaced bool   `json:"namespaced"`
}

// resources asks the server once per API version which kinds it has.
type resources struct {
	client *apiclient.Client
	known  map[string][]resource // by apiVersion
}

func newResources(client *apiclient.Client) *resources {
	return &resources{client: client, known: map[string][]resource{}}
}

// apply is a server-side apply that takes over fields others have set: these
// objects are ours (kubernetes.io/docs/reference/using-api/server-side-apply).
func (r *resources) apply(ctx context.Context, o object) error {
	path, err := r.path(ctx, o)
	if err != nil {
		return err
	}
	return r.client.Patch(ctx, path+"?fieldManager=slipway&force=true", apiclient.Apply, o.text)
}

func (r *resources) path(ctx context.Context, o object) (string, error) {
	found, err := r.find(ctx, o)
	if err != nil {
		return "", err
	}
	path := root(o.APIVersion)
	if found.Namespaced {
		if o.Metadata.Namespace == "" {
			return "", errors.New("it lacks metadata.namespace")
		}
		path += "/namespaces/" + url.PathEscape(o.Metadata.Namespace)
	}
	return path + "/" + found.Name + "/" + url.PathEscape(o.Metadata.Name), nil
}

func (r *resources) find(ctx context.Context, o object) (resource, error) {
	if _, ok := r.known[o.APIVersion]; !ok {
		var list struct{ Resources []resource }
		if err := r.client.Get(ctx, root(o.APIVersion), &list); err != nil {
			return resource{}, err
		}
		r.known[o.APIVersion] = list.Resources
	}
	for _, candidate := range r.known[o.APIVersion] {
		if candidate.Kind == o.Kind && !strings.Contains(candidate.Name, "/") { // no subresource
			return candidate, nil
		}
	}
	return resource{}, fmt.Errorf("the API server has no kind %s in %s", o.Kind, o.APIVersion)
}

// root is the path of an API version: the core group's is special.
func root(apiVersion string) string {
	if !strings.Contains(apiVersion, "/") {
		return "/api/" + apiVersion
	}
	return "/apis/" + apiVersion
}
