package qemu

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"time"
)

// tail returns at most size bytes from the end of a file, or why it cannot be read.
func tail(path string, size int64) string {
	file, err := os.Open(path)
	if err != nil {
		return err.Error()
	}
	defer file.Close()
	if info, err := file.Stat(); err == nil && info.Size() > size {
		_, _ = file.Seek(-size, io.SeekEnd)
	}
	data, err := io.ReadAll(file)
	if err != nil {
		return err.Error()
	}
	return string(data)
}

// escapes are the terminal commands (ECMA-48) and carriage returns that firmware writes.
var escapes = regexp.MustCompile(`\x1b\[[0-9;?=]*[A-Za-z]|\x1b[a-z]|\r`)

// PlainText removes from console output what only a terminal understands.
func PlainText(console string) string { return escapes.ReplaceAllString(console, "") }

// Follow copies a machine's console to out from its beginning and, when follow is set, goes
// on with what is added until ctx ends.
func (l *Lab) Follow(ctx context.Context, machine string, out io.Writer, follow bool) error {
	err := followFile(ctx, l.ConsolePath(machine), out, follow)
	if errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("open the console of %q: there is none: no such machine in lab %s, or never powered on", machine, l.Name())
	}
	if err != nil {
		return fmt.Errorf("copy the console of %s: %w", machine, err)
	}
	return nil
}

// FollowService is Follow for what the boot service prints.
func (l *Lab) FollowService(ctx context.Context, out io.Writer, follow bool) error {
	err := followFile(ctx, filepath.Join(l.dir, serviceLog), out, follow)
	if errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("open the log of the boot service: there is none: lab %s never started one", l.Name())
	}
	if err != nil {
		return fmt.Errorf("copy the log of the boot service: %w", err)
	}
	return nil
}

func followFile(ctx context.Context, path string, out io.Writer, follow bool) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	again := time.NewTicker(200 * time.Millisecond)
	defer again.Stop()
	for {
		if _, err := io.Copy(out, file); err != nil {
			return err
		}
		if !follow {
			return nil
		}
		select {
		case <-again.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// PlainWriter passes PlainText of what is written to it on to out. It holds a terminal
// command back that is not complete yet.
func PlainWriter(out io.Writer) io.Writer { return &plainWriter{out: out} }

type plainWriter struct {
	out  io.Writer
	rest []byte
}

// longestEscape is longer than the terminal commands that firmware and kernels write.
const longestEscape = 24

func (w *plainWriter) Write(p []byte) (int, error) {
	data := append(w.rest, p...)
	cut := len(data)
	if i := bytes.LastIndexByte(data, '\x1b'); i >= 0 && len(data)-i < longestEscape && !escapes.Match(data[i:]) {
		cut = i
	}
	w.rest = append([]byte(nil), data[cut:]...)
	if _, err := io.WriteString(w.out, PlainText(string(data[:cut]))); err != nil {
		return 0, err
	}
	return len(p), nil
}
