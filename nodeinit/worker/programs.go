package worker

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"slipway/nodeinit/supervise"
)

// programs is the one-shot unit that reads the nodes' programs, which are one
// file, into memory: unpacking it takes a slow processor seconds, which a
// machine has while it waits for its config.
func programs() supervise.Unit {
	return supervise.Unit{Name: "programs", Service: reader{"/usr/bin/containerd"}, Restart: supervise.OnFailure}
}

// reader is a service that reads a file and ends.
type reader struct{ path string }

// Run reads until the file ends or ctx does.
func (r reader) Run(ctx context.Context, _ func()) error {
	file, err := os.Open(r.path)
	if err != nil {
		return fmt.Errorf("read the nodes' programs: %w", err)
	}
	defer file.Close()
	part := make([]byte, 256<<10)
	for err == nil && ctx.Err() == nil {
		_, err = file.Read(part)
	}
	if err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("read the nodes' programs: %w", err)
	}
	return nil
}
