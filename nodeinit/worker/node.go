package worker

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"slipway/configs/machine"
	"slipway/controlplane/apiclient"
	"slipway/nodeinit/proc"
	"slipway/nodeinit/supervise"
)

const (
	nodeName = "node"

	// joining is how often the node looks at its object until it is Ready,
	// joined how often afterwards.
	joining = 250 * time.Millisecond
	joined  = 10 * time.Second
)

// nodeObject is the unit that follows the node's own Node object. It is ready
// once the Node is Ready for the first time.
func nodeObject(cfg *machine.Config, id machine.Identity) supervise.Unit {
	return supervise.Unit{Name: nodeName, After: []string{kubeletName}, Service: &follower{
		Hostname:   id.Hostname,
		Access:     NodeAccess(cfg),
		Registered: Registered,
		Leaving:    Leaving,
		CNIDir:     cniDir,
		BootFile:   "/proc/sys/kernel/random/boot_id",
	}}
}

// NodeAccess is how a node reaches the API: as its kubelet, by way of the
// node's own balancer.
func NodeAccess(cfg *machine.Config) apiclient.Access {
	login := loginOf(cfg)
	return apiclient.Access{Server: apiServer, CAFile: caFile, CertFile: login.certFile, KeyFile: login.keyFile}
}

// follower looks at the Node and does what each look calls for: it marks the
// node as registered, configures the pod network for the pod subnet that the
// controller manager gave the node, and has the kubelet start anew when a Node
// that was registered is gone. It is level-triggered: each look stands for
// itself. Errors are looked over until the next; the API may be away.
type follower struct {
	Hostname   string
	Access     apiclient.Access
	Registered string // file to write, with the Node's UID
	Leaving    string // file; while it is there, the Node is left to go
	CNIDir     string
	BootFile   string // with the ID of this boot (random(4)); no such file: any boot's kubelet will do

	client  *apiclient.Client // nil: to be opened with the certificate of the day
	waiting atomic.Value      // string
}

// Equal reports whether other does the same.
func (f *follower) Equal(other supervise.Service) bool {
	o, ok := other.(*follower)
	return ok && f.Hostname == o.Hostname && f.Access == o.Access && f.Registered == o.Registered && f.Leaving == o.Leaving && f.CNIDir == o.CNIDir && f.BootFile == o.BootFile
}

// WaitingFor is what keeps the Node from being Ready.
func (f *follower) WaitingFor() string {
	text, _ := f.waiting.Load().(string)
	return text
}

// Run follows until ctx ends, the machine cannot be what the Node wants, or the
// Node is gone.
func (f *follower) Run(ctx context.Context, ready func()) error {
	defer f.hangUp()
	isReady := false
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
		}
		missing, err := f.look(ctx)
		f.waiting.Store(missing)
		if errors.Is(err, errHost) || errors.Is(err, errGone) {
			return err
		}
		if missing == "" && !isReady {
			isReady = true
			ready()
		}
		if isReady {
			timer.Reset(joined)
		} else {
			timer.Reset(joining)
		}
	}
}

// errHost is within errors of this machine, which no waiting cures.
var errHost = errors.New("set up the pod network")

// errGone is the end of a Node that was there: a snapshot was restored that does
// not know it, or somebody deleted it. The kubelet goes on without, for good: it
// registers once, when it starts (kubernetes, pkg/kubelet/kubelet_node_status.go,
// registrationCompleted).
var errGone = errors.New("its Node is gone; the kubelet registers it anew")

// look does one round and says what keeps the Node from being Ready; nothing
// once it is.
func (f *follower) look(ctx context.Context) (missing string, err error) {
	n, err := f.get(ctx)
	if err != nil {
		f.hangUp()
		return f.without(err)
	}
	if err := f.configure(n); err != nil {
		err = fmt.Errorf("%w: %w", errHost, err)
		return err.Error(), err
	}
	boot, _ := os.ReadFile(f.BootFile)
	return n.missing(strings.TrimSpace(string(boot))), nil
}

// without says what is missing when a look showed no Node. That the API says so
// of one that was registered has the kubelet start anew, once: the mark is
// removed, and comes back with the Node. If the registration fails, the kubelet
// repeats it itself. The Node of a machine that leaves the cluster stays deleted.
func (f *follower) without(err error) (string, error) {
	if !errors.Is(err, apiclient.ErrNotFound) || isThere(f.Leaving) || !isThere(f.Registered) {
		return err.Error(), err
	}
	if err := os.Remove(f.Registered); err != nil {
		return err.Error(), err
	}
	return errGone.Error(), &supervise.RestartError{Unit: kubeletName, Err: errGone}
}

func isThere(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

func (f *follower) get(ctx context.Context) (n node, err error) {
	if f.client == nil {
		if f.client, err = apiclient.Open(f.Access); err != nil {
			return n, fmt.Errorf("the node's client certificate: %w", err)
		}
	}
	err = f.client.Get(ctx, "/api/v1/nodes/"+url.PathEscape(f.Hostname), &n)
	return n, err
}

func (f *follower) hangUp() {
	if f.client != nil {
		f.client.Close()
		f.client = nil
	}
}

// configure does nothing on a machine that leaves: what the mark says of its
// Node stays, should another machine register one of the same name.
func (f *follower) configure(n node) error {
	if isThere(f.Leaving) {
		return nil
	}
	files := []proc.File{{Path: f.Registered, Mode: 0o644, Data: []byte(n.Metadata.UID + "\n")}}
	if n.Spec.PodCIDR.IsValid() {
		conf, err := cniFile(f.CNIDir, n.Spec.PodCIDR)
		if err != nil {
			return err
		}
		files = append(files, conf)
	}
	return proc.WriteFiles(files)
}

// node is what is read of a Node object.
type node struct {
	Metadata struct {
		UID string `json:"uid"`
	} `json:"metadata"`
	Spec struct {
		PodCIDR netip.Prefix `json:"podCIDR"`
	} `json:"spec"`
	Status struct {
		Conditions []struct{ Type, Status, Message string } `json:"conditions"`
		NodeInfo   struct {
			BootID string `json:"bootID"`
		} `json:"nodeInfo"`
	} `json:"status"`
}

// missing says what keeps the Node from being Ready. What a kubelet said before
// the machine restarted does not count; an empty boot ID is not compared.
func (n node) missing(boot string) string {
	if !n.Spec.PodCIDR.IsValid() {
		return "a pod subnet from the controller manager"
	}
	if told := n.Status.NodeInfo.BootID; boot != "" && told != "" && told != boot {
		return "the kubelet to report after the restart"
	}
	for _, c := range n.Status.Conditions {
		if c.Type == "Ready" && c.Status == "True" {
			return ""
		}
		if c.Type == "Ready" {
			return "the Node to be Ready: " + c.Message
		}
	}
	return "the Node to be Ready"
}
