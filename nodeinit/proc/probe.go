package proc

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"time"
)

// Probe asks a process whether others may rely on it. A nil error is yes.
// String names what is asked, for "what is it waiting for".
type Probe interface {
	Probe(ctx context.Context) error
	String() string
}

// Rest is how long who was asked is left alone before the next question: until the interval
// is over, and for nineteen times as long as the last answer took, up to 5 s: it spends a twentieth
// of its time on the answers. One that takes its time is busy, several ask it, and the questions
// must not be what keeps it so.
func Rest(interval, took time.Duration) time.Duration {
	return max(interval-took, min(19*took, maxRest))
}

// maxRest is how late a change may be seen because of a slow answer before it.
const maxRest = 5 * time.Second

// repeatedly is a probe that is to be asked many times, and what ends that.
func repeatedly(p Probe) (probe func(context.Context) error, end func()) {
	if s, ok := p.(HTTPSProbe); ok {
		return s.session()
	}
	return p.Probe, func() {}
}

// HTTPProbe succeeds when a GET of URL answers 200.
type HTTPProbe struct{ URL string }

// HTTPSProbe is HTTPProbe over TLS. The server is checked against CAFile;
// CertFile and KeyFile, both or neither, are the client's. The files are read
// at each probe: they may be made by the process itself. All are PEM.
type HTTPSProbe struct{ URL, CAFile, CertFile, KeyFile string }

// UnixProbe succeeds when something accepts connections on a Unix socket.
type UnixProbe struct{ Path string }

// TCPProbe succeeds when something accepts connections on a TCP address, host:port.
type TCPProbe struct{ Address string }

// SocketProbe succeeds when a GET of URL, a path, over the Unix socket at Path
// answers 200. Another answer's text is the error: it is written for people.
type SocketProbe struct{ Path, URL string }

// FileProbe succeeds when a file exists.
type FileProbe struct{ Path string }

func (p HTTPProbe) String() string  { return p.URL }
func (p HTTPSProbe) String() string { return p.URL }
func (p UnixProbe) String() string  { return "socket " + p.Path }
func (p TCPProbe) String() string   { return "tcp " + p.Address }
func (p FileProbe) String() string  { return "file " + p.Path }

// String is short: the answers say more.
func (p SocketProbe) String() string { return p.Path }

// Probe sends the request.
func (p HTTPProbe) Probe(ctx context.Context) error {
	return get(ctx, p.URL, &http.Transport{DisableKeepAlives: true})
}

// Probe reads the files and sends the request.
func (p HTTPSProbe) Probe(ctx context.Context) error {
	probe, end := p.session()
	defer end()
	return probe(ctx)
}

// session is Probe for many times: as long as the server answers, whatever it
// answers, the connection stays. A program that is starting on a small machine
// has better things to do than ten handshakes a second.
func (p HTTPSProbe) session() (probe func(context.Context) error, end func()) {
	var transport *http.Transport // nil: read the files, connect
	end = func() {
		if transport != nil {
			transport.CloseIdleConnections()
			transport = nil
		}
	}
	probe = func(ctx context.Context) error {
		if transport == nil {
			config, err := p.tls()
			if err != nil {
				return err
			}
			transport = &http.Transport{TLSClientConfig: config}
		}
		err := get(ctx, p.URL, transport)
		var answer answerError
		if err != nil && !errors.As(err, &answer) {
			end()
		}
		return err
	}
	return probe, end
}

func (p HTTPSProbe) tls() (*tls.Config, error) {
	ca, err := os.ReadFile(p.CAFile)
	if err != nil {
		return nil, fmt.Errorf("read CA: %w", err)
	}
	config := &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: x509.NewCertPool()}
	if !config.RootCAs.AppendCertsFromPEM(ca) {
		return nil, fmt.Errorf("no certificate in %s", p.CAFile)
	}
	if p.CertFile == "" {
		return config, nil
	}
	cert, err := tls.LoadX509KeyPair(p.CertFile, p.KeyFile)
	if err != nil {
		return nil, fmt.Errorf("load client certificate: %w", err)
	}
	config.Certificates = []tls.Certificate{cert}
	return config, nil
}

// get never follows a proxy: a probe asks this machine. An answer that is not
// 200 is an answerError.
func get(ctx context.Context, url string, transport *http.Transport) error {
	transport.Proxy = nil
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	answer, err := transport.RoundTrip(request)
	if err != nil {
		return short(err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(io.LimitReader(answer.Body, 64<<10))
	switch {
	case err != nil:
		return fmt.Errorf("read the answer: %w", err)
	case answer.StatusCode != http.StatusOK:
		return answerError{answer.Status, text[:min(len(text), 500)]}
	}
	return nil
}

// answerError is an answer of a server that is there, and not ready.
type answerError struct {
	status string
	text   []byte
}

func (e answerError) Error() string { return fmt.Sprintf("%s: %q", e.status, e.text) }

// short drops the address that the probe's name already says.
func short(err error) error {
	var op *net.OpError
	if errors.As(err, &op) {
		return op.Err
	}
	return err
}

// Probe connects and hangs up.
func (p UnixProbe) Probe(ctx context.Context) error { return connect(ctx, "unix", p.Path) }

// Probe connects and hangs up.
func (p TCPProbe) Probe(ctx context.Context) error { return connect(ctx, "tcp", p.Address) }

func connect(ctx context.Context, network, address string) error {
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, network, address)
	if err != nil {
		return short(err)
	}
	return conn.Close()
}

// Probe sends the request.
func (p SocketProbe) Probe(ctx context.Context) error {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		var dialer net.Dialer
		return dialer.DialContext(ctx, "unix", p.Path)
	}
	err := get(ctx, "http://socket"+p.URL, &http.Transport{DialContext: dial, DisableKeepAlives: true})
	var answer answerError
	if errors.As(err, &answer) && len(answer.text) > 0 {
		return errors.New(strings.TrimSpace(string(answer.text)))
	}
	return err
}

// Probe looks.
func (p FileProbe) Probe(context.Context) error {
	_, err := os.Stat(p.Path)
	if errors.Is(err, os.ErrNotExist) {
		return os.ErrNotExist
	}
	return err
}
