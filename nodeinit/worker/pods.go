package worker

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"time"

	containerdclient "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/errdefs"

	"slipway/nodeinit/supervise"
)

const (
	podsName = "pods"

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
	return supervise.Unit{Name: podsName, After: []string{containerdName}, Service: supervise.Func(
		func(ctx context.Context, ready func()) error {
			ready()
			<-ctx.Done()
			return stopPods(context.WithoutCancel(ctx), containerdSocket)
		})}
}

// stopPods ends every container: SIGTERM, podGrace, SIGKILL. Pods' pause
// containers go last, and at once: they have nothing to save.
func stopPods(ctx context.Context, socket string) error {
	ctx, cancel := context.WithTimeout(namespaces.WithNamespace(ctx, criNamespace), podGrace+podKill)
	defer cancel()
	client, err := dial(socket)
	if err != nil {
		return err
	}
	defer client.Close()
	containers, err := client.Containers(ctx, `labels."io.cri-containerd.kind"==container`)
	if err != nil {
		return fmt.Errorf("list containers: %w", err)
	}
	grace, stop := context.WithTimeout(ctx, podGrace)
	defer stop()
	kill(grace, containers, syscall.SIGTERM) // what it leaves is killed below
	all, err := client.Containers(ctx)
	if err != nil {
		return fmt.Errorf("list pods: %w", err)
	}
	return kill(ctx, all, syscall.SIGKILL)
}

// kill signals the containers that run and waits until they have ended or ctx has.
func kill(ctx context.Context, containers []containerdclient.Container, signal syscall.Signal) error {
	var errs []error
	var exits []<-chan containerdclient.ExitStatus
	for _, c := range containers {
		exit, err := signalTask(ctx, c, signal)
		if err != nil && !errdefs.IsNotFound(err) {
			errs = append(errs, fmt.Errorf("stop container %s: %w", c.ID(), err))
		}
		if err == nil {
			exits = append(exits, exit)
		}
	}
	for _, exit := range exits {
		select {
		case <-exit:
		case <-ctx.Done():
			return errors.Join(append(errs, ctx.Err())...)
		}
	}
	return errors.Join(errs...)
}

func signalTask(ctx context.Context, c containerdclient.Container, signal syscall.Signal) (<-chan containerdclient.ExitStatus, error) {
	task, err := c.Task(ctx, nil)
	if err != nil {
		return nil, err
	}
	exit, err := task.Wait(ctx)
	if err != nil {
		return nil, err
	}
	return exit, task.Kill(ctx, signal)
}
