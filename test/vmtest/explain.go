package vmtest

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"slipway/qemu"
)

// tailLines is how much of a log is printed; all of it is kept in .build/consoles.
const tailLines = 60

// explain prints what a reader needs who was not there: each machine's last words and its
// timeline, and those of the boot service. The complete logs are kept in .build/consoles.
func (l *Lab) explain(ctx context.Context, t *testing.T) {
	status, err := l.Status(ctx)
	if err != nil {
		t.Logf("ask the lab: %v", err)
	}
	for _, m := range status.Machines {
		timeline, err := l.run(ctx, nil, l.bin, "machines", "timeline", machineID(m))
		if err != nil {
			timeline = err.Error()
		}
		t.Logf("machine %s: timeline:\n%s", m.Name, timeline)
		t.Logf("machine %s: end of the console:\n%s", m.Name, lastLines(l.ConsolePath(m.Name)))
	}
	if _, err := os.Stat(filepath.Join(l.Dir(), "kubeconfig")); err == nil { // the story had come that far
		pods, err := l.output(ctx, nil, []string{l.bin, "lab", "kubectl", "get", "nodes,pods,events", "-A", "--request-timeout=10s"})
		if err != nil {
			pods += err.Error()
		}
		t.Logf("cluster:\n%s", pods)
	}
	t.Logf("boot service: end of the log:\n%s", lastLines(filepath.Join(l.Dir(), "service.log")))
	kept := filepath.Join(l.kept, strings.ReplaceAll(t.Name(), "/", "-"))
	if err := l.keepLogs(kept); err != nil {
		t.Logf("keep the logs: %v", err)
	}
	t.Logf("complete logs: %s", kept)
}

func lastLines(path string) string {
	data, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	lines := strings.SplitAfter(qemu.PlainText(string(data)), "\n")
	return strings.Join(lines[max(0, len(lines)-tailLines):], "")
}

// keepLogs copies consoles and logs to dir.
func (l *Lab) keepLogs(dir string) error {
	errs := []error{os.MkdirAll(dir, 0o755)}
	for _, pattern := range []string{"*.console", "*.log"} {
		paths, err := filepath.Glob(filepath.Join(l.Dir(), pattern))
		errs = append(errs, err)
		for _, path := range paths {
			errs = append(errs, copyFile(filepath.Join(dir, filepath.Base(path)), path))
		}
	}
	return errors.Join(errs...)
}

func copyFile(to, from string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.Create(to)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}
