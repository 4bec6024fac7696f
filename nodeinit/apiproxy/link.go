package apiproxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A machine that lost its power sends nothing, not even a reset. silence is how
// long a connection to it lives: TCP_USER_TIMEOUT ends one with data under way
// (RFC 5482), keepalive one that is idle. dialWithin is for a new one.
const (
	dialWithin = 2 * time.Second
	silence    = 9 * time.Second
)

var keepAlive = net.KeepAliveConfig{Enable: true, Idle: 3 * time.Second, Interval: 2 * time.Second, Count: 3}

// dialer makes connections that end when what they sent is not acknowledged
// within some time.
func dialer(within time.Duration) *net.Dialer {
	return &net.Dialer{Timeout: dialWithin, KeepAliveConfig: keepAlive, Control: func(_, _ string, conn syscall.RawConn) (err error) {
		ctlErr := conn.Control(func(fd uintptr) {
			err = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(within.Milliseconds()))
		})
		return errors.Join(ctlErr, err)
	}}
}

// dial connects to an upstream.
func dial(ctx context.Context, addr string) (*net.TCPConn, error) {
	conn, err := dialer(silence).DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	tcp, ok := conn.(*net.TCPConn)
	if !ok {
		return nil, fmt.Errorf("connect to %s: not TCP", addr)
	}
	return tcp, nil
}

// link is a client's connection and the one to its upstream.
type link struct{ client, server *net.TCPConn }

// carry copies both ways until both have ended. The end of one way is passed on
// and leaves the other way open; an error ends both.
func (l *link) carry() {
	defer l.close()
	var up sync.WaitGroup
	up.Go(func() { l.copy(l.server, l.client) })
	l.copy(l.client, l.server)
	up.Wait()
}

func (l *link) copy(to, from *net.TCPConn) {
	_, err := io.Copy(to, from)
	if err == nil {
		err = to.CloseWrite()
	}
	if err != nil {
		l.close()
	}
}

// close ends both connections. It may be repeated.
func (l *link) close() {
	_ = l.client.Close()
	_ = l.server.Close()
}
