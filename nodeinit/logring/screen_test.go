package logring

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

// TestScreenThatTakesNothing fills a pipe that nobody reads.
func TestScreenThatTakesNothing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "console")
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	reader, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	screen, err := OpenScreen(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := screen.Write([]byte("hello\n")); err != nil {
		t.Error(err)
	}
	if _, err := screen.Write(make([]byte, 1<<20)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("got %v", err)
	}
}
