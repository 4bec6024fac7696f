// Package tftp serves a fixed table of small files, the boot loaders, by TFTP
// (RFC 1350, 2347-2349). Reading is all it allows, and a name is a key of the
// table and never a path. Package bootsvc runs it.
package tftp

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"time"

	"github.com/pin/tftp/v3"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"slipway/bootsvc/refusal"
	"slipway/bootsvc/timeline"
)

// Seams are the server's ways to the rest of the boot service. All must be set.
type Seams struct {
	// MAC tells whose an address is; nil when it is nobody's.
	MAC      func(netip.Addr) net.HardwareAddr
	Observe  timeline.Observer
	Refusals *refusal.Recorder
	Metrics  prometheus.Registerer
	Log      *slog.Logger
	Now      func() time.Time
}

// Server serves the files of its table.
type Server struct {
	listen netip.AddrPort
	files  map[string][]byte
	Seams
	transfers *prometheus.CounterVec
	sent      prometheus.Counter
	slots     slots
}

const (
	service = "tftp"
	// Transfers under way at once, in all and from one address: each holds a
	// socket. A client that is refused asks again.
	maxTransfers = 512
	maxPerSource = 16
	// maxDuration of a transfer. A loader takes a second; a client that
	// acknowledges as slowly as it may does not keep its place.
	maxDuration = 2 * time.Minute
	// A block that is not acknowledged is sent again, so a client that went
	// away holds its slot for a few seconds only.
	blockTimeout = time.Second
	blockRetries = 5
	// maxBlock is what fits an Ethernet frame; the interface's MTU bounds it too.
	maxBlock = 1468
	maxName  = 128 // of what is logged of a client's own words
)

// New returns a server of files, by name, on an address: usually the
// interface's own, port 69, so that answers come from where the question went.
// Every transfer has a port of its own, as RFC 1350 has it: the library's
// single-port mode keeps state for each stray packet, and is slower.
func New(listen netip.AddrPort, files map[string][]byte, s Seams) *Server {
	server := &Server{
		listen: listen,
		files:  files,
		Seams:  s,
		transfers: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "slipway_tftp_transfers_total",
			Help: "TFTP reads that began, by result (done, failed).",
		}, []string{"result"}),
		sent: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "slipway_tftp_bytes_total",
			Help: "Bytes of files sent in finished TFTP transfers.",
		}),
		slots: slots{by: map[netip.Addr]int{}},
	}
	s.Metrics.MustRegister(server.transfers, server.sent)
	return server
}

// Run listens, calls ready, and serves until the context ends; transfers under
// way end with it, within a few seconds. It may be called again after it returned.
func (s *Server) Run(ctx context.Context, ready func()) error {
	conn, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(s.listen))
	if err != nil {
		return fmt.Errorf("listen for TFTP on %s: %w", s.listen, err)
	}
	group, ctx := errgroup.WithContext(ctx)
	read := func(name string, to io.ReaderFrom) error { return s.read(ctx, name, to) }
	server := tftp.NewServer(read, s.write)
	server.SetTimeout(blockTimeout)
	server.SetRetries(blockRetries)
	server.SetBackoff(func(int) time.Duration { return 0 })
	server.SetBlockSize(maxBlock)
	server.SetHook(hook{s})
	group.Go(func() error { return server.Serve(conn) })
	group.Go(func() error {
		<-ctx.Done()
		server.Shutdown()
		return nil
	})
	ready()
	return group.Wait()
}

// The refusals that a client is told; the texts are counter labels too.
var (
	errUnknown  = errors.New("no such file")
	errReadOnly = errors.New("this server is read-only")
	errBusy     = errors.New("too many transfers")
)

// read answers one read request. The library calls it in a goroutine of its
// own and sends the error that it returns.
func (s *Server) read(ctx context.Context, name string, to io.ReaderFrom) error {
	client := remote(to)
	data, err := s.find(name)
	if err != nil {
		return s.refuse(client, name, err)
	}
	if !s.slots.enter(client) {
		return s.refuse(client, name, errBusy)
	}
	defer s.slots.leave(client)
	ctx, cancel := context.WithTimeout(ctx, maxDuration)
	defer cancel()
	start := s.Now()
	s.tell(ctx, client, start, fmt.Sprintf("%s asked for", display(name)))
	n, err := to.ReadFrom(&file{bytes.NewReader(data), ctx})
	if err != nil {
		// UEFI opens a transfer only to learn the size, and aborts it.
		s.transfers.WithLabelValues("failed").Inc()
		s.Log.Debug("transfer ended early", "unit", service, "source", client, "file", display(name), "error", err)
		return err
	}
	s.transfers.WithLabelValues("done").Inc()
	s.sent.Add(float64(n))
	now := s.Now()
	s.tell(ctx, client, now, fmt.Sprintf("%s sent, %d bytes in %s", display(name), n, now.Sub(start).Round(time.Millisecond)))
	return nil
}

// find looks a name up in the table. Firmware writes names with a leading
// slash or backslash, and some adds the end mark of the options that came after it.
func (s *Server) find(name string) ([]byte, error) {
	name, _, _ = strings.Cut(name, "\xff")
	data, ok := s.files[strings.TrimLeft(name, `/\`)]
	if !ok {
		return nil, errUnknown
	}
	return data, nil
}

func (s *Server) write(name string, from io.WriterTo) error {
	return s.refuse(remote(from), name, errReadOnly)
}

func (s *Server) refuse(client netip.Addr, name string, err error) error {
	s.Refusals.Refuse(service, client.String(), err.Error(), "file", display(name))
	return err
}

func (s *Server) tell(ctx context.Context, client netip.Addr, at time.Time, detail string) {
	s.Observe(ctx, timeline.Event{MAC: s.MAC(client), Name: service, Detail: detail, At: at, Address: client})
}

// hook counts what the library refuses before a handler sees it.
type hook struct{ *Server }

func (h hook) OnSuccess(tftp.TransferStats) {}

func (h hook) OnFailure(stats tftp.TransferStats, err error) {
	if stats.RemoteAddr == nil && err != nil {
		h.Refusals.Refuse(service, "unknown", "malformed", "error", err)
	}
}

// remote is the client's address; both of the library's transfers know it.
func remote(transfer any) netip.Addr {
	t, ok := transfer.(interface{ RemoteAddr() net.UDPAddr })
	if !ok {
		return netip.Addr{}
	}
	addr := t.RemoteAddr()
	return addr.AddrPort().Addr().Unmap()
}

// display is a client's own words, fit for a log.
func display(name string) string {
	if len(name) > maxName {
		name = name[:maxName]
	}
	return fmt.Sprintf("%q", name)
}
