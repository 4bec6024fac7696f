package leaf

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"slipway/controlplane/pki"
)

var noon = time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)

const lifetime = 90 * time.Hour

func newCA(t *testing.T, validity time.Duration) pki.CA {
	t.Helper()
	ca, err := pki.NewCA("test", noon, validity)
	if err != nil {
		t.Fatal(err)
	}
	return ca
}

func TestDue(t *testing.T) {
	ca, other, short := newCA(t, 10000*time.Hour), newCA(t, 10000*time.Hour), newCA(t, 20*time.Hour)
	both := pki.CA{CertPEM: append(append([]byte(nil), ca.CertPEM...), other.CertPEM...), KeyPEM: ca.KeyPEM}
	rotated := both
	rotated.KeyPEM = other.KeyPEM
	request := pki.Request{CommonName: "x", Organizations: []string{"g"}, DNSNames: []string{"a", "b"}, IPs: IPs(netip.MustParseAddr("192.0.2.1")), Client: true}
	with := func(change func(*pki.Request)) pki.Request {
		r := request
		change(&r)
		return r
	}
	for _, test := range []struct {
		name     string
		made     pki.CA
		ca       pki.CA
		request  pki.Request
		now      time.Time
		lifetime time.Duration
		want     string
	}{
		{"new", ca, ca, request, noon, lifetime, ""},
		{"more than a third left", ca, ca, request, noon.Add(59 * time.Hour), lifetime, ""},
		{"a third left at the next look but one", ca, ca, request, noon.Add(60*time.Hour - Look - time.Second), lifetime, ""},
		{"a third left at the next look", ca, ca, request, noon.Add(60*time.Hour - Look), lifetime, "30h1m0s are left"},
		{"a third left", ca, ca, request, noon.Add(60 * time.Hour), lifetime, "30h0m0s are left"},
		{"ended", ca, ca, request, noon.Add(100 * time.Hour), lifetime, "-10h0m0s are left"},
		{"the other CA is trusted too", ca, both, request, noon, lifetime, ""},
		{"the other CA signs", ca, rotated, request, noon, lifetime, "another CA signs now"},
		{"a CA of the same name", ca, other, request, noon, lifetime, "another CA signs now"},
		{"its CA ends soon", short, short, request, noon.Add(time.Hour), lifetime, ""},
		{"its CA ended", short, short, request, noon.Add(21 * time.Hour), lifetime, "-1h0m0s are left"},
		{"a shorter life is wanted", ca, ca, request, noon, time.Hour, "it lasts too long"},
		{"a longer life is wanted", ca, ca, request, noon, 1000 * time.Hour, "90h0m0s are left"},
		{"the clock was ahead", ca, ca, request, noon.Add(-time.Hour), lifetime, "it is not valid yet"},
		{"the clock was set back a little", ca, ca, request, noon.Add(-4 * time.Minute), lifetime, ""},
		{"another name", ca, ca, with(func(r *pki.Request) { r.CommonName = "y" }), noon, lifetime, "its names or uses are others now"},
		{"another group", ca, ca, with(func(r *pki.Request) { r.Organizations = nil }), noon, lifetime, "its names or uses are others now"},
		{"another host", ca, ca, with(func(r *pki.Request) { r.DNSNames = []string{"a"} }), noon, lifetime, "its names or uses are others now"},
		{"another address", ca, ca, with(func(r *pki.Request) { r.IPs = append(r.IPs, r.IPs[0]) }), noon, lifetime, "its names or uses are others now"},
		{"another use", ca, ca, with(func(r *pki.Request) { r.Server = true }), noon, lifetime, "its names or uses are others now"},
	} {
		t.Run(test.name, func(t *testing.T) {
			cert, key, err := Leaf{Path: "p", CA: test.made, Request: request}.Mint(noon, lifetime)
			if err != nil {
				t.Fatal(err)
			}
			got, err := Leaf{Path: "p", CA: test.ca, Request: test.request}.Due(cert.Data, key.Data, test.now, test.lifetime)
			if err != nil || got != test.want {
				t.Errorf("Due = %q, %v, want %q", got, err, test.want)
			}
		})
	}
}

func TestDueOfBadFiles(t *testing.T) {
	l := Leaf{Path: "p", CA: newCA(t, 1000*time.Hour), Request: pki.Request{CommonName: "x", Client: true}}
	cert, key, err := l.Mint(noon, lifetime)
	if err != nil {
		t.Fatal(err)
	}
	_, otherKey, err := l.Mint(noon, lifetime)
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name      string
		cert, key []byte
		want      string
	}{
		{"nothing there", nil, nil, "there is none"},
		{"no key", cert.Data, nil, "there is none"},
		{"another's key", cert.Data, otherKey.Data, "does not match"},
		{"half a file", cert.Data[:100], key.Data, "failed to find"},
		{"empty", []byte{}, []byte{}, "failed to find"},
	} {
		got, err := l.Due(test.cert, test.key, noon, lifetime)
		if err != nil || !strings.Contains(got, test.want) {
			t.Errorf("%s: Due = %q, %v, want %q", test.name, got, err, test.want)
		}
	}
	l.CA.KeyPEM = newCA(t, time.Hour).KeyPEM
	if _, err := l.Due(cert.Data, key.Data, noon, lifetime); err == nil || !strings.Contains(err.Error(), "belongs to none") {
		t.Errorf("with a key of another CA: %v", err)
	}
}

func TestMargin(t *testing.T) {
	for lifetime, want := range map[time.Duration]time.Duration{
		365 * 24 * time.Hour: 365*8*time.Hour + Look, time.Hour: 21 * time.Minute, 18 * time.Minute: 7 * time.Minute,
		10 * time.Minute: 6 * time.Minute, 3 * time.Minute: 2 * time.Minute, time.Minute: 40 * time.Second,
	} {
		if got := margin(lifetime); got != want {
			t.Errorf("margin(%s) = %s, want %s", lifetime, got, want)
		}
	}
}
