package apiproxy

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"syscall"
	"time"
)

// answerWithin is how long an API server may take to say that it is ready.
// takenWithin is how long its machine may take to acknowledge the question: with
// dialWithin and toDead it says how soon one that lost its power is given up.
const (
	answerWithin = 5 * time.Second
	takenWithin  = 2 * time.Second
)

// ReadyPath is where an API server says whether it is ready. Without exclude it puts
// the same question to etcd twice, once for its health and once for its readiness.
const ReadyPath = "/readyz?exclude=etcd"

// Prober makes the question to one upstream, which is then asked again and again,
// and what ends it.
type Prober func(addr string) (ask func(context.Context) Result, end func())

// NewProber returns the Prober that asks API servers for a path which anybody
// may ask for (controlplane/kube, authentication.yaml). They are checked against
// caFile, which is read each time: the CA may change.
func NewProber(caFile, path string, within time.Duration) Prober {
	return func(addr string) (func(context.Context) Result, func()) {
		s := &session{url: "https://" + addr + path, caFile: caFile, within: within}
		return s.ask, s.hangUp
	}
}

// session keeps its connection for as long as it is answered: an API server has
// better things to do than a handshake a second for each node.
type session struct {
	url, caFile string
	within      time.Duration

	ca        []byte
	transport *http.Transport // nil: connect anew
}

func (s *session) ask(ctx context.Context) Result {
	ctx, cancel := context.WithTimeout(ctx, s.within)
	defer cancel()
	status, err := s.get(ctx)
	switch {
	case err == nil && status == http.StatusOK:
		return OK
	case err == nil:
		return NotReady
	}
	s.hangUp()
	var op *net.OpError
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		return Refused
	case errors.As(err, &op) && op.Op == "dial":
		return Silent
	case errors.Is(err, context.DeadlineExceeded):
		return Slow
	}
	return Silent
}

func (s *session) get(ctx context.Context) (status int, err error) {
	if err := s.connect(); err != nil {
		return 0, err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, s.url, nil)
	if err != nil {
		return 0, err
	}
	answer, err := s.transport.RoundTrip(request)
	if err != nil {
		return 0, err
	}
	defer answer.Body.Close()
	_, err = io.Copy(io.Discard, io.LimitReader(answer.Body, 64<<10))
	return answer.StatusCode, err
}

// connect makes a transport, unless there is one and the CA is still the same.
func (s *session) connect() error {
	ca, err := os.ReadFile(s.caFile)
	if err != nil {
		return err
	}
	if s.transport != nil && bytes.Equal(ca, s.ca) {
		return nil
	}
	s.hangUp()
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(ca) {
		return fmt.Errorf("no certificate in %s", s.caFile)
	}
	s.ca = ca
	s.transport = &http.Transport{
		DialContext:     dialer(takenWithin).DialContext,
		TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: pool},
	}
	return nil
}

func (s *session) hangUp() {
	if s.transport != nil {
		s.transport.CloseIdleConnections()
		s.transport = nil
	}
}
