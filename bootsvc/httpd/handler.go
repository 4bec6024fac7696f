package httpd

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"time"

	"slipway/bootsvc/timeline"
)

// ScriptPath is where iPXE asks for its script. "?mac=52-54-00-12-34-56" names
// the machine; without it, the machine is known by its lease.
const ScriptPath = "/boot.ipxe"

// request is one request and what is known of its sender.
type request struct {
	*http.Request
	client  netip.Addr
	machine net.HardwareAddr
}

// ServeHTTP answers GET and HEAD for the paths of the table.
func (s *Server) ServeHTTP(w http.ResponseWriter, hr *http.Request) {
	r := request{Request: hr, client: remote(hr)}
	r.machine = s.MAC(r.client)
	reply := &reply{ResponseWriter: w, status: http.StatusOK, now: s.Now}
	s.deadline(w, 0)
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.Header().Set("Cache-Control", "no-cache") // ask again; the ETag makes that cheap
	path := s.route(reply, r)
	s.requests.WithLabelValues(path, strconv.Itoa(reply.status)).Inc()
	s.sent.Add(float64(reply.bytes))
	if path != "other" && r.Method == http.MethodGet && reply.status < 300 {
		s.tell(r, reply.last, sent(path, r.Header.Get("Range"), reply))
	}
}

// route answers, and returns the path as counters name it.
func (s *Server) route(w *reply, r request) string {
	file, known := s.files[r.URL.Path]
	switch {
	case r.Method != http.MethodGet && r.Method != http.MethodHead:
		w.Header().Set("Allow", "GET, HEAD")
		s.refuse(w, r, http.StatusMethodNotAllowed, "method not allowed")
	case r.ContentLength != 0:
		// Reading it would be the only way to keep the connection.
		w.Header().Set("Connection", "close")
		s.refuse(w, r, http.StatusRequestEntityTooLarge, "request with a body")
	case r.URL.Path == ScriptPath:
		s.script(w, r)
		return ScriptPath
	case known:
		s.artifact(w, r, file)
		return r.URL.Path
	default:
		s.refuse(w, r, http.StatusNotFound, "no such path")
	}
	return "other"
}

func (s *Server) script(w *reply, r request) {
	if named := r.URL.Query().Get("mac"); named != "" {
		mac, err := net.ParseMAC(named)
		if err != nil || len(mac) != 6 {
			s.refuse(w, r, http.StatusBadRequest, "not a MAC address")
			return
		}
		r.machine = mac
	}
	script, err := s.Script(r.Context(), r.machine)
	if err != nil {
		s.refuse(w, r, http.StatusInternalServerError, "no script", "error", err)
		return
	}
	w.Header().Set("Content-Type", "text/plain; charset=us-ascii")
	http.ServeContent(w, r.Request, "", time.Time{}, bytes.NewReader(script))
}

// artifact sends a file, or the ranges of it that are asked for. The file is
// checked to be the one that the ETag belongs to.
func (s *Server) artifact(w *reply, r request, a artifact) {
	f, err := os.Open(a.Path)
	if err != nil {
		s.refuse(w, r, http.StatusServiceUnavailable, "artifact not readable", "error", err)
		return
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || info.Size() != a.info.Size() || !info.ModTime().Equal(a.info.ModTime()) {
		s.refuse(w, r, http.StatusServiceUnavailable, "artifact changed on disk, restart slipway serve", "file", a.Path)
		return
	}
	s.deadline(w, a.info.Size())
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("ETag", `"`+a.SHA256+`"`)
	w.first = func() { s.tell(r, s.Now(), r.URL.Path+" asked for") }
	http.ServeContent(w, r.Request, "", time.Time{}, f)
}

// deadline gives an answer of a size more time than any machine needs, and one
// that stopped reading an end. Connections are reused, so each answer sets its own.
func (s *Server) deadline(w http.ResponseWriter, size int64) {
	end := time.Now().Add(headerTimeout + time.Duration(size/slowest)*time.Second)
	if err := http.NewResponseController(w).SetWriteDeadline(end); err != nil {
		s.Log.Debug("no write deadline", "unit", service, "error", err)
	}
}

// refuse answers with a status and, for people, the reason.
func (s *Server) refuse(w *reply, r request, status int, reason string, attrs ...any) {
	attrs = append(attrs, "method", clip(r.Method), "path", clip(r.URL.Path))
	s.Refusals.Refuse(service, r.client.String(), reason, attrs...)
	http.Error(w, reason, status)
}

// event names a fetch: a hop of a boot, or one of a running system, which
// installs or upgrades itself. The node's own client is the one of Go.
func (r request) event() string {
	if strings.HasPrefix(r.UserAgent(), "Go-http-client/") {
		return "download"
	}
	return service
}

func (s *Server) tell(r request, at time.Time, detail string) {
	s.Observe(r.Context(), timeline.Event{MAC: r.machine, Name: r.event(), Detail: detail, At: at, Address: r.client})
}

// sent describes a finished answer, or one that ended before its last byte.
func sent(path, ranges string, w *reply) string {
	what := path
	if ranges != "" && w.status == http.StatusPartialContent {
		what += " " + clip(ranges)
	}
	took := w.last.Sub(w.began).Round(time.Millisecond)
	if length := w.Header().Get("Content-Length"); length != strconv.FormatInt(w.bytes, 10) {
		return fmt.Sprintf("%s broken off, %d of %s bytes in %s", what, w.bytes, length, took)
	}
	return fmt.Sprintf("%s sent, %d bytes in %s", what, w.bytes, took)
}

// reply notes when the first and the last byte were handed to the kernel. Its
// ReadFrom keeps the way to sendfile open.
type reply struct {
	http.ResponseWriter
	now         func() time.Time
	first       func() // called before the first byte; may be nil
	status      int
	bytes       int64
	began, last time.Time
}

// Unwrap is for http.ResponseController.
func (w *reply) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// WriteHeader notes the status.
func (w *reply) WriteHeader(status int) {
	w.status = status
	w.ResponseWriter.WriteHeader(status)
}

func (w *reply) begin() {
	if !w.began.IsZero() {
		return
	}
	w.began = w.now()
	if w.first != nil {
		w.first()
	}
}

// Write notes the times and the bytes.
func (w *reply) Write(b []byte) (int, error) {
	w.begin()
	n, err := w.ResponseWriter.Write(b)
	w.bytes, w.last = w.bytes+int64(n), w.now()
	return n, err
}

// ReadFrom notes the times and the bytes.
func (w *reply) ReadFrom(src io.Reader) (int64, error) {
	w.begin()
	n, err := io.Copy(w.ResponseWriter, src)
	w.bytes, w.last = w.bytes+n, w.now()
	return n, err
}

func remote(r *http.Request) netip.Addr {
	addr, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return netip.Addr{}
	}
	return addr.Addr().Unmap()
}

// clip keeps a client's own words short and printable for a log.
func clip(s string) string {
	return strings.Trim(strconv.QuoteToASCII(s[:min(len(s), 128)]), `"`)
}
