// Package apiclient is the smallest Kubernetes API client: requests with a
// client certificate or a token, answers as JSON. It exists because PID 1 carries
// its callers, the units addons, secrets, node and a worker's certificates, and
// client-go would triple PID 1's size.
// It has no cache, no watch and no types.
package apiclient

import (
	"bufio"
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

	"slipway/configs/secret"
)

const (
	// timeout bounds one request.
	timeout = 15 * time.Second
	// maxAnswer bounds an answer, in bytes.
	maxAnswer = 8 << 20
)

// The content types of patches that the callers send.
const (
	Apply = "application/apply-patch+yaml" // server-side apply: an object with the fields that are to be
	Merge = "application/merge-patch+json" // RFC 7386
)

// Leaving is the label by which a node says that it has left the cluster and
// its Node is to be deleted: it may not delete that itself.
const Leaving = "slipway.internal/leaving"

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
	token  secret.String // zero: none
	http   http.Client
}

// Open reads the credentials. It does not connect yet.
func Open(a Access) (*Client, error) {
	ca, err := os.ReadFile(a.CAFile)
	if err != nil {
		return nil, fmt.Errorf("read CA: %w", err)
	}
	cert, err := tls.LoadX509KeyPair(a.CertFile, a.KeyFile)
	if err != nil {
		return nil, fmt.Errorf("read client certificate: %w", err)
	}
	c, err := New(a.Server, ca, cert)
	if err != nil {
		return nil, fmt.Errorf("%w in %s", err, a.CAFile)
	}
	return c, nil
}

// New is a client of a server, with the CA (PEM) that it is checked against. It
// does not connect yet.
func New(server string, ca []byte, cert tls.Certificate) (*Client, error) {
	return newClient(server, ca, []tls.Certificate{cert}, secret.String{})
}

// NewBearer is New of a caller that has a token instead of a certificate (RFC 6750).
func NewBearer(server string, ca []byte, token secret.String) (*Client, error) {
	return newClient(server, ca, nil, token)
}

func newClient(server string, ca []byte, certs []tls.Certificate, token secret.String) (*Client, error) {
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(ca) {
		return nil, errors.New("read CA: no certificate")
	}
	return &Client{server: server, token: token, http: http.Client{
		Timeout: timeout,
		Transport: &http.Transport{TLSClientConfig: &tls.Config{
			MinVersion:   tls.VersionTLS13,
			RootCAs:      roots,
			Certificates: certs,
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

// Post creates body, JSON, at path. What the server answers is dropped. ErrBusy
// is within the error when it asks to try again later.
func (c *Client) Post(ctx context.Context, path string, body []byte) error {
	return c.do(ctx, http.MethodPost, path, asJSON, body, nil)
}

// Put replaces what is at path by body, JSON. What the server answers is
// dropped. ErrConflict is within the error if body's resourceVersion is old.
func (c *Client) Put(ctx context.Context, path string, body []byte) error {
	return c.do(ctx, http.MethodPut, path, asJSON, body, nil)
}

// Metadata reads a list of objects into value, of each its metadata only.
func (c *Client) Metadata(ctx context.Context, path string, value any) error {
	return c.ask(ctx, request{http.MethodGet, path, asMetadata, "", nil}, func(answer io.Reader) error {
		return json.NewDecoder(io.LimitReader(answer, maxAnswer)).Decode(value)
	})
}

// Find reads text from path, of any length, until a line contains part, and
// says whether one does.
func (c *Client) Find(ctx context.Context, path, part string) (found bool, err error) {
	err = c.ask(ctx, request{http.MethodGet, path, "", "", nil}, func(answer io.Reader) error {
		lines := bufio.NewScanner(answer)
		for !found && lines.Scan() {
			found = bytes.Contains(lines.Bytes(), []byte(part))
		}
		return lines.Err()
	})
	return found, err
}

const (
	asJSON = "application/json"
	// asMetadata: kubernetes.io/docs/reference/using-api/api-concepts, metadata-only fetches.
	asMetadata = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io"
)

type request struct {
	method, path        string
	accept, contentType string
	body                []byte
}

// Delete deletes what is at path if it has that UID. ErrConflict is within the
// error if it is another object by now.
func (c *Client) Delete(ctx context.Context, path, uid string) error {
	options := fmt.Sprintf(`{"kind":"DeleteOptions","apiVersion":"v1","preconditions":{"uid":%q}}`, uid)
	return c.do(ctx, http.MethodDelete, path, asJSON, []byte(options), nil)
}

func (c *Client) do(ctx context.Context, method, path, contentType string, body []byte, value any) error {
	return c.ask(ctx, request{method, path, asJSON, contentType, body}, func(answer io.Reader) error {
		if value == nil {
			_, err := io.Copy(io.Discard, io.LimitReader(answer, maxAnswer))
			return err
		}
		return json.NewDecoder(io.LimitReader(answer, maxAnswer)).Decode(value)
	})
}

// ask sends a request and has read take the answer, if it is a good one.
func (c *Client) ask(ctx context.Context, r request, read func(io.Reader) error) error {
	fail := func(err error) error { return fmt.Errorf("%s %s: %w", r.method, r.path, err) }
	request, err := http.NewRequestWithContext(ctx, r.method, c.server+r.path, bytes.NewReader(r.body))
	if err != nil {
		return fail(err)
	}
	if r.accept != "" {
		request.Header.Set("Accept", r.accept)
	}
	if !c.token.IsZero() {
		request.Header.Set("Authorization", "Bearer "+c.token.Reveal())
	}
	if r.contentType != "" {
		request.Header.Set("Content-Type", r.contentType)
	}
	response, err := c.http.Do(request)
	if err != nil {
		return err // names method and URL itself
	}
	defer response.Body.Close()
	if response.StatusCode/100 == 2 {
		if err := read(response.Body); err != nil {
			return fail(fmt.Errorf("read answer: %w", err))
		}
		return nil
	}
	answer, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer))
	if err != nil {
		return fail(err)
	}
	return fail(refusal(response.StatusCode, answer))
}

// What a caller may have to tell apart.
var (
	// ErrNotFound is within the error when the object does not exist.
	ErrNotFound = errors.New("not found")
	// ErrConflict is within it when the object has changed meanwhile.
	ErrConflict = errors.New("changed meanwhile")
	// ErrGone is within it when a list can no longer be continued.
	ErrGone = errors.New("gone")
	// ErrBusy is within it when the same request may succeed later: an eviction
	// that a disruption budget does not allow now.
	ErrBusy = errors.New("not now")
)

// refusal is what the server gave as its reason: a Status object, as a rule.
func refusal(code int, answer []byte) error {
	var status struct{ Message string }
	if json.Unmarshal(answer, &status) != nil || status.Message == "" {
		status.Message = http.StatusText(code)
	}
	switch code {
	case http.StatusNotFound:
		return fmt.Errorf("%w: %s", ErrNotFound, status.Message)
	case http.StatusConflict:
		return fmt.Errorf("%w: %s", ErrConflict, status.Message)
	case http.StatusTooManyRequests:
		return fmt.Errorf("%w: %s", ErrBusy, status.Message)
	case http.StatusGone:
		return fmt.Errorf("%w: %s", ErrGone, status.Message)
	}
	return fmt.Errorf("%d: %s", code, status.Message)
}
