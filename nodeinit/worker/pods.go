package worker

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	containerdclient "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/errdefs"
	"golang.org/x/sync/errgroup"

	"slipway/nodeinit/supervise"
)

const (
	podsName = "pods"
	// podCgroup is above the cgroups of all pods: the kubelet's choice.
	podCgroup = "/sys/fs/cgroup/kubepods"

	// podGrace is how long containers have to end when the node goes down.
	podGrace = 10 * time.Second
	// podKill bounds what comes after: killing what is left.
	podKill = 5 * time.Second
)

// runningPods is the unit that owns the end of all pods. Containers outlive
// containerd and the kubelet on purpose, so when the node goes down, somebody
// must end them: it stops after the kubelet, which would start them again, and
// before containerd, which it asks.
func runningPods() supervise.Unit {
	return supervise.Unit{Name: podsName, After: []string{containerdName}, Service: podStopper{}}
}

// podStopper is a service that does nothing until it is stopped.
type podStopper struct{}

// Run waits for ctx to end, then ends every container: SIGTERM to each,
// podGrace, SIGKILL to all.
func (podStopper) Run(ctx context.Context, ready func()) error {
	ready()
	<-ctx.Done()
	ctx = context.WithoutCancel(ctx)
	grace, cancel := context.WithTimeout(ctx, podGrace)
	defer cancel()
	err := terminate(grace, containerdSocket)
	kill, cancel := context.WithTimeout(ctx, podKill)
	defer cancel()
	return errors.Join(err, killCgroup(kill, podCgroup))
}

// terminate sends SIGTERM to every container of a pod, and returns when all
// have ended or ctx has. Pause containers have nothing to save and get none.
func terminate(ctx context.Context, socket string) error {
	client, err := dial(socket)
	if err != nil {
		return err
	}
	defer client.Close()
	ctx = namespaces.WithNamespace(ctx, criNamespace)
	containers, err := client.Containers(ctx, `labels."io.cri-containerd.kind"==container`)
	if err != nil {
		return fmt.Errorf("list containers: %w", err)
	}
	var group errgroup.Group
	for _, c := range containers {
		group.Go(func() error { return terminateOne(ctx, c) })
	}
	return group.Wait()
}

func terminateOne(ctx context.Context, c containerdclient.Container) error {
	exit, err := signal(ctx, c, syscall.SIGTERM)
	switch {
	case errdefs.IsNotFound(err), errors.Is(err, context.DeadlineExceeded):
		return nil // it has ended already, or will be killed
	case err != nil:
		return fmt.Errorf("stop container %s: %w", c.ID(), err)
	}
	select {
	case <-exit:
	case <-ctx.Done():
	}
	return nil
}

// signal returns what tells of the container's end.
func signal(ctx context.Context, c containerdclient.Container, s syscall.Signal) (<-chan containerdclient.ExitStatus, error) {
	task, err := c.Task(ctx, nil)
	if err != nil {
		return nil, err
	}
	exit, err := task.Wait(ctx)
	if err != nil {
		return nil, err
	}
	return exit, task.Kill(ctx, s)
}

// killCgroup kills all that is in a cgroup and below (cgroup.kill) and waits
// until it is empty. No cgroup is no pod.
func killCgroup(ctx context.Context, dir string) error {
	err := os.WriteFile(filepath.Join(dir, "cgroup.kill"), []byte("1"), 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("kill pods: %w", err)
	}
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		events, err := os.ReadFile(filepath.Join(dir, "cgroup.events"))
		if err != nil || strings.Contains(string(events), "populated 0") {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for killed pods: %w", ctx.Err())
		case <-tick.C:
		}
	}
}
