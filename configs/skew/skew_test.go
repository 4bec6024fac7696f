package skew_test

import (
	"errors"
	"strings"
	"testing"

	"slipway/configs/skew"
)

func TestCheck(t *testing.T) {
	for name, c := range map[string]struct {
		nodes  []skew.Node
		target string
		want   string // a part of the error; empty: allowed
	}{
		"the same":                    {[]skew.Node{plane("v1.37.1"), worker("v1.37.1")}, "v1.37.1", ""},
		"a patch":                     {[]skew.Node{plane("v1.37.1")}, "v1.37.4", ""},
		"a minor version":             {[]skew.Node{plane("v1.36.9"), worker("v1.36.9")}, "v1.37.0", ""},
		"the way goes on":             {[]skew.Node{plane("v1.36.9"), plane("v1.37.0"), worker("v1.36.9")}, "v1.37.0", ""},
		"two minor versions":          {[]skew.Node{plane("v1.35.0")}, "v1.37.0", "take an image with v1.36 first"},
		"one plane is left behind":    {[]skew.Node{plane("v1.37.0"), plane("v1.35.0")}, "v1.37.0", "cp-1 has v1.35.0"},
		"back by a patch":             {[]skew.Node{plane("v1.37.2")}, "v1.37.1", "go back"},
		"back by a minor version":     {[]skew.Node{worker("v1.38.0")}, "v1.37.1", "go back"},
		"a worker three behind":       {[]skew.Node{plane("v1.36.0"), worker("v1.34.0")}, "v1.37.0", ""},
		"a worker four behind":        {[]skew.Node{plane("v1.36.0"), worker("v1.33.0")}, "v1.37.0", "4 minor versions behind"},
		"one of three planes":         {[]skew.Node{plane("v1.36.0"), stays(plane("v1.36.0")), stays(worker("v1.36.0"))}, "v1.37.0", ""},
		"a worker before the planes":  {[]skew.Node{stays(plane("v1.36.0")), worker("v1.36.0")}, "v1.37.0", "upgrade the control planes first"},
		"a worker after the planes":   {[]skew.Node{stays(plane("v1.37.0")), worker("v1.36.0")}, "v1.37.0", ""},
		"a worker far behind stays":   {[]skew.Node{plane("v1.36.0"), stays(worker("v1.33.0"))}, "v1.37.0", "4 minor versions behind"},
		"a newer worker stays":        {[]skew.Node{plane("v1.35.0"), stays(worker("v1.37.0"))}, "v1.36.0", "newer than the API servers"},
		"a newer plane stays":         {[]skew.Node{plane("v1.36.0"), stays(plane("v1.38.0"))}, "v1.36.1", "one minor version apart"},
		"another worker's own affair": {[]skew.Node{worker("v1.36.0"), stays(worker("v1.30.0"))}, "v1.36.1", ""},
		"another major version":       {[]skew.Node{plane("v1.37.0")}, "v2.0.0", "another major version"},
		"a version with a suffix":     {[]skew.Node{plane("v1.37.0-rc.1+abc")}, "v1.37.1+slipway", ""},
		"a node that says nothing":    {[]skew.Node{worker("")}, "v1.37.0", `worker-1: "" is not a Kubernetes version`},
		"an image that says nonsense": {nil, "1.x", `"1.x" is not a Kubernetes version`},
		"a worker far too old":        {[]skew.Node{stays(plane("v1.37.0")), worker("v1.32.0")}, "v1.33.0", "4 minor versions behind this API server"},
	} {
		expect(t, name, skew.Check(c.nodes, c.target), c.want)
	}
}

func TestCheckBack(t *testing.T) {
	for name, c := range map[string]struct {
		nodes  []skew.Node
		target string
		want   string
	}{
		"a patch":                        {[]skew.Node{plane("v1.37.4"), stays(worker("v1.37.1"))}, "v1.37.1", ""},
		"the first of three planes":      {[]skew.Node{plane("v1.38.0"), stays(plane("v1.37.1")), stays(worker("v1.37.1"))}, "v1.37.1", ""},
		"the last of three planes":       {[]skew.Node{plane("v1.38.0"), stays(plane("v1.38.0")), stays(worker("v1.37.1"))}, "v1.37.1", ""},
		"a worker is newer already":      {[]skew.Node{plane("v1.38.0"), stays(worker("v1.38.0"))}, "v1.37.1", "worker-1 has v1.38.0, the image v1.37.1: its kubelet would be newer than the API servers: have it go back first"},
		"two minor versions":             {[]skew.Node{plane("v1.38.0"), stays(worker("v1.36.0"))}, "v1.36.0", "one minor version at most"},
		"away from another plane":        {[]skew.Node{plane("v1.37.0"), stays(plane("v1.38.0"))}, "v1.36.0", "one minor version apart"},
		"a worker":                       {[]skew.Node{worker("v1.38.0"), stays(plane("v1.38.0"))}, "v1.35.0", ""},
		"a worker, too far":              {[]skew.Node{worker("v1.38.0"), stays(plane("v1.38.0"))}, "v1.34.0", "4 minor versions behind this API server"},
		"the other slot is newer":        {[]skew.Node{plane("v1.37.0"), stays(worker("v1.36.0"))}, "v1.38.0", ""},
		"newer than the control planes":  {[]skew.Node{worker("v1.37.0"), stays(plane("v1.37.0"))}, "v1.38.0", "upgrade the control planes first"},
		"newer, by two":                  {[]skew.Node{plane("v1.36.0")}, "v1.38.0", "take an image with v1.37 first"},
		"another major version":          {[]skew.Node{plane("v2.0.0")}, "v1.37.0", "another major version"},
		"a version that is not recorded": {nil, "", `"" is not a Kubernetes version`},
	} {
		expect(t, name, skew.CheckBack(c.nodes, c.target), c.want)
	}
}

func plane(v string) skew.Node    { return skew.Node{Name: "cp-1", Version: v, ControlPlane: true} }
func worker(v string) skew.Node   { return skew.Node{Name: "worker-1", Version: v} }
func stays(n skew.Node) skew.Node { n.Stays = true; return n }

// expect wants a part of the error; nothing is wanted of what is allowed.
func expect(t *testing.T, name string, err error, want string) {
	t.Helper()
	if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
		t.Errorf("%s: %v, want %q", name, err, want)
	}
	if err != nil && !strings.Contains(want, "is not a") && !errors.Is(err, skew.ErrForbidden) {
		t.Errorf("%s: %v is not ErrForbidden", name, err)
	}
}
