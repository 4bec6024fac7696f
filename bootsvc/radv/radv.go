// Package radv answers the router solicitations of boot loaders. iPXE, as
// network cards and Debian's loaders carry it, configures IPv4 and IPv6 at the
// same time and goes on when both are done; where no router answers, it waits
// 19 seconds for one. The answer here says that there is a node but no router:
// lifetime 0, no prefix, no flags (RFC 4861, sections 4.2 and 6.2.3), so the
// loader stops waiting and gets no route.
//
// It is not a router advertisement daemon. It speaks to nobody who did not
// ask, to one machine at a time, and only to one that has just asked for an
// IPv4 address as firmware or a loader. Package bootsvc runs it.
//
// There is no library in it beyond x/net's sockets: a message is 16 bytes.
package radv

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv6"

	"slipway/bootsvc/timeline"
)

// Server answers on one interface.
type Server struct {
	link    string
	now     func() time.Time
	log     *slog.Logger
	answers prometheus.Counter

	mu    sync.Mutex
	asked map[string]time.Time // by MAC address, when it asked for an address
}

const (
	// patience is longer than a loader waits for a router.
	patience = time.Minute
	// maxAsked bounds what is remembered; machines beyond it only wait.
	maxAsked = 4096
)

// New returns a server for an interface; it registers its counter.
func New(link string, metrics prometheus.Registerer, log *slog.Logger, now func() time.Time) *Server {
	s := &Server{link: link, now: now, log: log, asked: map[string]time.Time{}, answers: prometheus.NewCounter(prometheus.CounterOpts{
		Name: "slipway_router_solicitations_answered_total",
		Help: "Boot loaders told that there is no IPv6 router to wait for.",
	})}
	metrics.MustRegister(s.answers)
	return s
}

// Observe is a timeline.Observer: it remembers which machines ask for addresses
// before they run an operating system.
func (s *Server) Observe(_ context.Context, e timeline.Event) {
	if e.Asker == timeline.System {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.now()
	maps.DeleteFunc(s.asked, func(_ string, at time.Time) bool { return now.Sub(at) > patience })
	if len(s.asked) < maxAsked {
		s.asked[e.MAC.String()] = now
	}
}

// booting tells whether a MAC address is a machine's that asked for an IPv4
// address a moment ago, and runs no operating system yet.
func (s *Server) booting(mac net.HardwareAddr) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	at, ok := s.asked[mac.String()]
	return ok && s.now().Sub(at) <= patience
}

// The constants of RFC 4861 that matter here.
const (
	hopLimit       = 255 // section 6.1.1: anything less has crossed a router
	sourceLinkAddr = 1   // option type, section 4.6.1
	solicitHeader  = 4   // reserved bytes before a solicitation's options
)

var allRouters = &net.UDPAddr{IP: net.ParseIP("ff02::2")}

// noRouter is an advertisement's body: hop limit unspecified, no flags,
// router lifetime 0, reachable time and retransmission timer unspecified.
var noRouter = make([]byte, 12)

// Run answers until ctx ends. Without IPv6 on this computer it answers nobody,
// which only costs loaders their wait.
func (s *Server) Run(ctx context.Context, ready func()) error {
	link, err := net.InterfaceByName(s.link)
	if err != nil {
		return fmt.Errorf("find interface %s: %w", s.link, err)
	}
	conn, err := listen(link)
	if err != nil {
		s.log.Warn("no IPv6 here: boot loaders will wait for a router", "unit", "radv", "err", err)
		ready()
		<-ctx.Done()
		return nil
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() }) // ends the read below
	defer stop()
	ready()
	return s.serve(ctx, conn, link)
}

// listen opens a socket that receives router solicitations only.
func listen(link *net.Interface) (*ipv6.PacketConn, error) {
	socket, err := icmp.ListenPacket("ip6:ipv6-icmp", "::")
	if err != nil {
		return nil, fmt.Errorf("open ICMPv6 socket: %w", err)
	}
	conn := socket.IPv6PacketConn()
	var filter ipv6.ICMPFilter
	filter.SetAll(true)
	filter.Accept(ipv6.ICMPTypeRouterSolicitation)
	err = errors.Join(
		conn.SetICMPFilter(&filter),
		conn.SetControlMessage(ipv6.FlagHopLimit|ipv6.FlagInterface, true),
		conn.JoinGroup(link, allRouters),
	)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("listen for router solicitations on %s: %w", link.Name, err), socket.Close())
	}
	return conn, nil
}

func (s *Server) serve(ctx context.Context, conn *ipv6.PacketConn, link *net.Interface) error {
	buf := make([]byte, 1500)
	for {
		n, control, from, err := conn.ReadFrom(buf)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read router solicitation: %w", err)
		}
		asker := solicitor(buf[:n])
		if control == nil || control.IfIndex != link.Index || control.HopLimit != hopLimit || asker == nil || !s.booting(asker) {
			continue
		}
		if err := answer(conn, link, from); err != nil {
			s.log.Debug("answer router solicitation", "unit", "radv", "source", asker, "err", err)
			continue
		}
		s.answers.Inc()
	}
}

// answer tells one machine that nobody here is a router. It is repeatable: the
// machine asks again when an answer is lost.
func answer(conn *ipv6.PacketConn, link *net.Interface, to net.Addr) error {
	message := icmp.Message{Type: ipv6.ICMPTypeRouterAdvertisement, Body: &icmp.RawBody{Data: noRouter}}
	packet, err := message.Marshal(nil) // the kernel fills in the checksum
	if err != nil {
		return fmt.Errorf("encode: %w", err)
	}
	_, err = conn.WriteTo(packet, &ipv6.ControlMessage{HopLimit: hopLimit, IfIndex: link.Index}, to)
	return err
}

// solicitor reads the Ethernet address that a solicitation names as its
// source; nil when the packet is not one, is malformed or names none.
func solicitor(packet []byte) net.HardwareAddr {
	message, err := icmp.ParseMessage(ipv6.ICMPTypeRouterSolicitation.Protocol(), packet)
	if err != nil || message.Type != ipv6.ICMPTypeRouterSolicitation || message.Code != 0 {
		return nil
	}
	body, ok := message.Body.(*icmp.RawBody)
	if !ok || len(body.Data) < solicitHeader {
		return nil
	}
	for options := body.Data[solicitHeader:]; len(options) >= 8; {
		size := 8 * int(options[1]) // in units of eight bytes, section 4.6
		if size == 0 || size > len(options) {
			return nil
		}
		if options[0] == sourceLinkAddr && size == 8 {
			return net.HardwareAddr(options[2:8])
		}
		options = options[size:]
	}
	return nil
}
