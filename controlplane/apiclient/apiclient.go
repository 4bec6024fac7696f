// Package apiclient is the smallest Kubernetes API client: requests with a
// client certificate, answers as JSON. It exists because PID 1 carries its
// callers, the units addons and node, and client-go would triple PID 1's size.
// It has no cache, no watch and no types.
package apiclient

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"time"
)

const (
	// timeout bounds one request.
	timeout = 15 * time.Second
	// maxAnswer bounds an answer, in bytes.
	maxAnswer = 4 << 20
)

// The content types of patches that the callers send.
const (
	Apply = "application/apply-patch+yaml" // server-side apply: an object with the fields that are to be
	Merge = "application/merge-patch+json" // RFC 7386
)

// Access says where the API is and where the caller's credentials lie (PEM files).
type Access struct {
	Server   string // https://host:port
	CAFile   string
	CertFile string
	KeyFile  string
}

// Client is a connection with the credentials read when it was opened. Open a
// new one now and then: certificates are renewed on disk.
type Client struct {
	server string
	http   http.Client
}

// Open reads the credentials. It does not connect yet.
func Open(a Access) (*Client, error) {
	ca, err := os.ReadFile(a.CAFile)
	if err != nil {
		return nil, fmt.Errorf("read CA: %w", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(ca) {
		return nil, fmt.Errorf("read CA: no certificate in %s", a.CAFile)
	}
	cert, err := tls.LoadX509KeyPair(a.CertFile, a.KeyFile)
	if err != nil {
		return nil, fmt.Errorf("read client certificate: %w", err)
	}
	return &Client{server: a.Server, http: http.Client{
		Timeout: timeout,
		Transport: &http.Transport{TLSClientConfig: &tls.Config{
			MinVersion:   tls.VersionTLS13,
			RootCAs:      roots,
			Certificates: []tls.Certificate{cert},
		}},
	}}, nil
}

// Close hangs up.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Get reads path into value.
func (c *Client) Get(ctx context.Context, path string, value any) error {
	return c.do(ctx, http.MethodGet, path, "", nil, value)
}

// Patch sends body to path. What the server answers is dropped.
func (c *Client) Patch(ctx context.Context, path, contentType string, body []byte) error {
	return c.do(ctx, http.MethodPatch, path, contentType, body, nil)
}

func (c *Client) do(ctx context.Context, method, path, contentType string, body []byte, value any) error {
	request, err := http.NewRequestWithContext(ctx, method, c.server+path, bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("%s %s: %w", method, path, err)
	}
	request.Header.Set("Accept", "application/json")
	if contentType != "" {
		request.Header.Set("Content-Type", contentType)
	}
	response, err := c.http.Do(request)
	if err != nil {
		return err // names method and URL itself
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer))
	if err != nil {
		return fmt.Errorf("%s %s: %w", method, path, err)
	}
	if response.StatusCode/100 != 2 {
		return fmt.Errorf("%s %s: %w", method, path, refusal(response.StatusCode, answer))
	}
	if value == nil {
		return nil
	}
	if err := json.Unmarshal(answer, value); err != nil {
		return fmt.Errorf("%s %s: read answer: %w", method, path, err)
	}
	return nil
}

// ErrNotFound is within the error when the object does not exist.
var ErrNotFound = errors.New("not found")

// refusal is what the server gave as its reason: a Status object, as a rule.
func refusal(code int, answer []byte) error {
	var status struct{ Message string }
	if json.Unmarshal(answer, &status) != nil || status.Message == "" {
		status.Message = http.StatusText(code)
	}
	if code == http.StatusNotFound {
		return fmt.Errorf("%w: %s", ErrNotFound, status.Message)
	}
	return fmt.Errorf("%d: %s", code, status.Message)
}
