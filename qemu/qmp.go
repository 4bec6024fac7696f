package qemu

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
)

// qmpPatience bounds one command: QEMU answers from its main loop, which a busy emulator
// may hold for a while.
const qmpPatience = 20 * time.Second

// monitor is a QMP connection (QEMU's docs/interop/qmp-spec).
type monitor struct {
	mu   sync.Mutex
	conn net.Conn
	in   *bufio.Reader
}

// newMonitor returns a monitor and the other end of its connection, for QEMU to inherit.
func newMonitor() (*monitor, *os.File, error) {
	conn, theirs, err := socketPair()
	if err != nil {
		return nil, nil, fmt.Errorf("make the QMP connection: %w", err)
	}
	return &monitor{conn: conn, in: bufio.NewReader(conn)}, theirs, nil
}

// socketPair returns a connected stream: this process's end and one to inherit.
func socketPair() (net.Conn, *os.File, error) {
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, os.NewSyscallError("socketpair", err)
	}
	ours, theirs := os.NewFile(uintptr(fds[0]), "ours"), os.NewFile(uintptr(fds[1]), "theirs")
	conn, err := net.FileConn(ours)
	if err = errors.Join(err, ours.Close()); err != nil {
		return nil, nil, errors.Join(err, theirs.Close())
	}
	return conn, theirs, nil
}

// open reads QEMU's greeting and leaves the negotiation mode.
func (m *monitor) open() error {
	m.mu.Lock()
	_ = m.conn.SetDeadline(time.Now().Add(qmpPatience))
	_, err := m.in.ReadBytes('\n')
	m.mu.Unlock()
	if err != nil {
		return fmt.Errorf("wait for QEMU's greeting: %w", err)
	}
	return m.execute("qmp_capabilities", nil)
}

// execute runs one command and waits for its answer; events in between are passed over.
func (m *monitor) execute(command string, arguments any) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	_ = m.conn.SetDeadline(time.Now().Add(qmpPatience))
	request := struct {
		Execute   string `json:"execute"`
		Arguments any    `json:"arguments,omitempty"`
	}{command, arguments}
	if err := json.NewEncoder(m.conn).Encode(request); err != nil {
		return fmt.Errorf("send %s to QEMU: %w", command, err)
	}
	for {
		line, err := m.in.ReadBytes('\n')
		if err != nil {
			return fmt.Errorf("wait for QEMU's answer to %s: %w", command, err)
		}
		var answer struct {
			Return json.RawMessage `json:"return"`
			Error  *struct {
				Desc string `json:"desc"`
			} `json:"error"`
		}
		if err := json.Unmarshal(line, &answer); err != nil {
			return fmt.Errorf("read QEMU's answer to %s: %w", command, err)
		}
		switch {
		case answer.Error != nil:
			return fmt.Errorf("run %s in QEMU: %s", command, answer.Error.Desc)
		case answer.Return != nil:
			return nil
		}
	}
}

func (m *monitor) close() error { return m.conn.Close() }
