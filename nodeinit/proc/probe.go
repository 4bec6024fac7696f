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
)

// Probe asks a process whether others may rely on it. A nil error is yes.
// String names what is asked, for "what is it waiting for".
type Probe interface {
	Probe(ctx context.Context) error
	String() string
}

// HTTPProbe succeeds when a GET of URL answers 200.
type HTTPProbe struct{ URL string }

// HTTPSProbe is HTTPProbe over TLS. The server is checked against CAFile;
// CertFile and KeyFile, both or neither, are the client's. The files are read
// at each probe: they may be made by the process itself. All are PEM.
type HTTPSProbe struct{ URL, CAFile, CertFile, KeyFile string }

// UnixProbe succeeds when something accepts connections on a Unix socket.
type UnixProbe struct{ Path string }

// FileProbe succeeds when a file exists.
type FileProbe struct{ Path string }

func (p HTTPProbe) String() string  { return p.URL }
func (p HTTPSProbe) String() string { return p.URL }
func (p UnixProbe) String() string  { return "socket " + p.Path }
func (p FileProbe) String() string  { return "file " + p.Path }

// Probe sends the request.
func (p HTTPProbe) Probe(ctx context.Context) error {
	return get(ctx, p.URL, &http.Transport{DisableKeepAlives: true})
}

// Probe reads the files and sends the request.
func (p HTTPSProbe) Probe(ctx context.Context) error {
	config, err := p.tls()
	if err != nil {
		return err
	}
	return get(ctx, p.URL, &http.Transport{DisableKeepAlives: true, TLSClientConfig: config})
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

// get never follows a proxy: a probe asks this machine.
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
	if answer.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(answer.Body, 200))
		return fmt.Errorf("%s: %q", answer.Status, text)
	}
	return nil
}

// short drops the address that the probe's name already says.
func short(err error) error {
	var op *net.OpError
	if errors.As(err, &op) {
		return op.Err
	}
	return err
}

// Probe connects and hangs up.
func (p UnixProbe) Probe(ctx context.Context) error {
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "unix", p.Path)
	if err != nil {
		return short(err)
	}
	return conn.Close()
}

// Probe looks.
func (p FileProbe) Probe(context.Context) error {
	_, err := os.Stat(p.Path)
	if errors.Is(err, os.ErrNotExist) {
		return os.ErrNotExist
	}
	return err
}
