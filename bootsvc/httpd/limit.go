package httpd

import (
	"net"
	"net/netip"
	"sync"
)

// limiter is a listener that closes the connections of an address that has too
// many open, so that one client cannot use up all there are.
type limiter struct {
	net.Listener
	server *Server

	mu    sync.Mutex
	total int
	open  map[netip.Addr]int
}

// Accept returns the next connection of a source that may have one more.
func (l *limiter) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		addr, err := netip.ParseAddrPort(conn.RemoteAddr().String())
		source := addr.Addr().Unmap()
		if err == nil && l.enter(source) {
			return &limited{TCPConn: conn.(*net.TCPConn), leave: sync.OnceFunc(func() { l.leave(source) })}, nil
		}
		l.server.Refusals.Refuse(service, source.String(), "too many connections")
		conn.Close()
	}
}

func (l *limiter) enter(source netip.Addr) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.total >= maxConnections || l.open[source] >= maxPerSource {
		return false
	}
	l.total++
	l.open[source]++
	return true
}

func (l *limiter) leave(source netip.Addr) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.total--
	if l.open[source]--; l.open[source] == 0 {
		delete(l.open, source)
	}
}

// limited is a counted connection. It embeds the TCP connection itself, whose
// ReadFrom is what net/http's sendfile needs.
type limited struct {
	*net.TCPConn
	leave func()
}

// Close also gives the connection's place back.
func (c *limited) Close() error {
	c.leave()
	return c.TCPConn.Close()
}
