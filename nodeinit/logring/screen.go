package logring

import (
	"fmt"
	"io"
	"os"
	"syscall"
	"time"
)

// patience is how long one line may take to be shown. A serial line on which
// somebody typed Ctrl-S takes nothing any more: PID 1 must not wait for it.
const patience = 200 * time.Millisecond

// OpenScreen opens a terminal to write to. What it does not take in time is lost.
func OpenScreen(path string) (io.Writer, error) {
	file, err := os.OpenFile(path, os.O_WRONLY|syscall.O_NOCTTY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("open the console: %w", err)
	}
	return screen{file}, nil
}

type screen struct{ *os.File }

func (s screen) Write(b []byte) (int, error) {
	s.SetWriteDeadline(time.Now().Add(patience)) // a file that knows no deadlines does not block
	return s.File.Write(b)
}
