package vm

import (
	_ "embed"
	"fmt"
	"strings"
	"testing"

	"slipway/test/vmtest"
)

// everything.yaml has a pod for each thing a pod may ask of its node.
//
//go:embed testdata/everything.yaml
var everything string

func podsGetWhatTheyAskFor(t *testing.T, lab *vmtest.Lab) {
	lab.Apply(t, everything)
	awaitPods(t, lab, "everything", 2, podPatience)
	sees := func(what, want string, command ...string) {
		t.Helper()
		out := lab.Kubectl(t, append([]string{"-n", "everything", "exec", "volumes", "-c", "main", "--", "busybox"}, command...)...)
		if !strings.Contains(out, want) {
			t.Errorf("%s: got %q, want %q", what, out, want)
		}
	}
	sees("init container and emptyDir", "left by init", "cat", "/disk/note")
	sees("emptyDir in memory", "tmpfs", "grep", " /memory ", "/proc/mounts")
	sees("configMap", "from a configMap", "cat", "/config/text")
	sees("secret", "from a secret", "cat", "/secret/text")
	sees("projected token", ".", "cat", "/projected/token")
	sees("projected downward API", "everything", "cat", "/projected/namespace")
	sees("hostPath", "Slipway", "cat", "/host/os-release")
	sees("memory limit", "33554432", "cat", "/sys/fs/cgroup/memory.max")
	sees("a shared network namespace", "beside", "wget", "-q", "-O", "-", "http://127.0.0.1:8081/")

	lab.Await(t, "a pod whose liveness probe fails is restarted", podPatience, func() error {
		out, err := lab.TryKubectl("-n", "harm", "get", "pod", "frail", "-o", "jsonpath={.status.containerStatuses[0].restartCount}")
		if err == nil && (out == "" || out == "0") {
			err = fmt.Errorf("restarts: %q", out)
		}
		return err
	})
	lab.Await(t, "a pod over its memory limit is killed", podPatience, func() error {
		out, err := lab.TryKubectl("-n", "harm", "get", "pod", "greedy", "-o", "jsonpath={.status.containerStatuses[0].state.terminated.reason}{.status.containerStatuses[0].lastState.terminated.reason}")
		if err == nil && !strings.Contains(out, "OOMKilled") {
			err = fmt.Errorf("ended by %q", out)
		}
		return err
	})
}

func podsCanBeReached(t *testing.T, lab *vmtest.Lab) {
	if out := lab.Kubectl(t, "-n", "everything", "logs", "volumes", "-c", "main"); !strings.Contains(out, "main has started") {
		t.Errorf("logs: %q", out)
	}
	forward := lab.Start(t, lab.KubectlCommand(t, "port-forward", "service/hello", "18080:80")...)
	defer forward.Stop(t)
	lab.Await(t, "the forwarded port answers", podPatience, func() error {
		out, err := lab.Try("curl", "-sS", "-m", "5", "http://127.0.0.1:18080/")
		if err == nil && !strings.Contains(out, "hello from the slipway") {
			err = fmt.Errorf("it answers %q", out)
		}
		return err
	})
}

func securityIsOn(t *testing.T, lab *vmtest.Lab) {
	privileged := `{"apiVersion":"v1","kind":"Pod","metadata":{"name":"privileged"},"spec":{"hostPID":true,"containers":[{"name":"x","image":"slipway.local/busybox:1","securityContext":{"privileged":true}}]}}`
	if _, err := lab.TryKubectlStdin(privileged, "apply", "-f", "-"); err == nil || !strings.Contains(err.Error(), "violates PodSecurity") {
		t.Errorf("a privileged pod in default: %v; want a refusal by Pod Security", err)
	}
	out, err := lab.Try("curl", "-sSk", "-m", "10", "-o", "/dev/null", "-w", "%{http_code}", "https://"+nodeAddress(t, lab)+":6443/api/v1/nodes")
	if err != nil || out != "401" && out != "403" {
		t.Errorf("nodes without a certificate: %s, %v; want a refusal", out, err)
	}
	if _, err := lab.Try("curl", "-sSk", "-m", "10", "https://"+nodeAddress(t, lab)+":2379/version"); err == nil {
		t.Error("etcd answers without a client certificate")
	}
	// A node may read its own secrets' pods only: kube-system's secrets are not its business.
	if out, err := lab.TryKubectl("auth", "can-i", "list", "secrets", "-A", "--as", "system:node:"+nodeName(t, lab), "--as-group", "system:nodes"); err == nil {
		t.Errorf("a node may list all secrets: %s", out)
	}
}

func nodeAddress(t *testing.T, lab *vmtest.Lab) string {
	t.Helper()
	return lab.Kubectl(t, "get", "nodes", "-o", `jsonpath={.items[0].status.addresses[?(@.type=="InternalIP")].address}`)
}

func nodeName(t *testing.T, lab *vmtest.Lab) string {
	t.Helper()
	return lab.Kubectl(t, "get", "nodes", "-o", "jsonpath={.items[0].metadata.name}")
}
