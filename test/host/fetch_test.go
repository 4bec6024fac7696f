package host

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"slipway/test/netns"
)

// noise is a file's worth of bytes, the same in every run.
func noise(size int) []byte {
	b := make([]byte, size)
	rand.NewChaCha8([32]byte{1}).Read(b)
	return b
}

func digest(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// client is a host with an address of its own.
func (s *service) client(mac, address string) *netns.Host {
	h := s.Host(mac)
	h.Run("ip", "addr", "add", address+"/16", "dev", "eth0")
	return h
}

func TestTFTP(t *testing.T) {
	netns.Require(t, "curl", "busybox")
	loaders := map[string][]byte{
		"undionly.kpxe": noise(74_123),
		"snponly.efi":   noise(174 << 10), // a multiple of every usual block size: ends with an empty block
		"block":         noise(1468),
		"empty":         {},
		"large":         noise(66 << 20), // over 65,535 blocks of 512 bytes: the counter wraps
	}
	s := start(t, nil, loaders, nil, nil)
	h := s.client("02:00:00:00:00:01", "10.99.0.50")
	dir := t.TempDir()
	out := filepath.Join(dir, "out")
	clients := map[string]func(name string) []string{
		"curl": func(n string) []string { return []string{"curl", "-sS", "-o", out, "tftp://10.99.0.1/" + n} },
		"curl 1468": func(n string) []string {
			return []string{"curl", "-sS", "--tftp-blksize", "1468", "-o", out, "tftp://10.99.0.1/" + n}
		},
		"curl 65464": func(n string) []string {
			return []string{"curl", "-sS", "--tftp-blksize", "65464", "-o", out, "tftp://10.99.0.1/" + n}
		},
		"curl, no options": func(n string) []string {
			return []string{"curl", "-sS", "--tftp-no-options", "-o", out, "tftp://10.99.0.1/" + n}
		},
		"busybox": func(n string) []string { return []string{"busybox", "tftp", "-g", "-r", n, "-l", out, "10.99.0.1"} },
		"busybox 1400": func(n string) []string {
			return []string{"busybox", "tftp", "-b", "1400", "-g", "-r", n, "-l", out, "10.99.0.1"}
		},
		"tftp-hpa": func(n string) []string { return []string{"tftp", "-m", "binary", "10.99.0.1", "-c", "get", n, out} },
		"atftp": func(n string) []string {
			return []string{"atftp", "--option", "tsize", "--option", "blksize 1024", "-g", "-r", n, "-l", out, "10.99.0.1"}
		},
	}
	for program, command := range clients {
		for name, want := range loaders {
			if name == "large" && program != "curl" && program != "curl 1468" {
				continue
			}
			if name == "empty" && strings.HasPrefix(program, "curl") {
				continue // curl writes no file when there is nothing to write
			}
			t.Run(program+"/"+name, func(t *testing.T) {
				argv := command(name)
				netns.Require(t, argv[0])
				os.Remove(out)
				h.Run(argv[0], argv[1:]...)
				got, err := os.ReadFile(out)
				if err != nil || !bytes.Equal(got, want) {
					t.Errorf("got %d bytes, %v; want %d bytes", len(got), err, len(want))
				}
			})
		}
	}
}

// tftpNotFound is curl's exit status for TFTP's error 1.
const tftpNotFound = 68

func exitCode(err error) int {
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		return -1
	}
	return exit.ExitCode()
}

func TestTFTPRefuses(t *testing.T) {
	netns.Require(t, "curl", "busybox")
	s := start(t, nil, map[string][]byte{"snponly.efi": noise(1000)}, nil, nil)
	h := s.client("02:00:00:00:00:01", "10.99.0.50")
	for _, name := range []string{"nothing", "../../etc/passwd", "/etc/passwd", "%2e%2e/snponly.efi", strings.Repeat("x", 400), "snponly.efi/", "."} {
		if out, err := h.Try("curl", "-sS", "--path-as-is", "-m", "5", "tftp://10.99.0.1/"+name); exitCode(err) != tftpNotFound {
			t.Errorf("%q: curl says %q, %v; want TFTP's own refusal", name, out, err)
		}
	}
	if n := s.counter(t, "slipway_refusals_total", "service", "tftp", "reason", "no such file"); n != 7 {
		t.Errorf("%v unknown names counted, want 7", n)
	}
	local := filepath.Join(t.TempDir(), "local")
	if err := os.WriteFile(local, noise(10), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := h.Try("busybox", "tftp", "-p", "-l", local, "-r", "snponly.efi", "10.99.0.1"); err == nil || !strings.Contains(out, "error") {
		t.Errorf("a write: busybox says %q, %v; want a refusal", out, err)
	}
	if n := s.counter(t, "slipway_refusals_total", "service", "tftp", "reason", "this server is read-only"); n != 1 {
		t.Errorf("%v writes counted, want 1", n)
	}
	if out := h.Run("curl", "-sS", "tftp://10.99.0.1/snponly.efi"); len(out) != 1000 {
		t.Errorf("after all that, a good request gives %d bytes, want 1000", len(out))
	}
}

func TestHTTP(t *testing.T) {
	netns.Require(t, "curl", "busybox")
	kernel := noise(12 << 20)
	s := start(t, nil, nil, map[string][]byte{"/image/kernel": kernel, "/loaders/snponly.efi": noise(1000)}, nil)
	h := s.client("02:00:00:00:00:01", "10.99.0.50")
	etag := `"` + digest(kernel) + `"`
	cases := []struct {
		name   string
		args   []string
		status string
		body   []byte
	}{
		{"whole", nil, "200", kernel},
		{"first bytes", []string{"-r", "0-99"}, "206", kernel[:100]},
		{"middle", []string{"-r", "5000000-5999999"}, "206", kernel[5_000_000:6_000_000]},
		{"last bytes", []string{"-r", "-10"}, "206", kernel[len(kernel)-10:]},
		{"beyond the end", []string{"-r", "99999999-"}, "416", nil},
		{"resume, unchanged", []string{"-r", "100-199", "-H", "If-Range: " + etag}, "206", kernel[100:200]},
		{"resume, changed", []string{"-r", "100-199", "-H", `If-Range: "other"`}, "200", kernel},
		{"unchanged", []string{"-H", "If-None-Match: " + etag}, "304", nil},
		{"changed", []string{"-H", `If-None-Match: "other"`}, "200", kernel},
		{"only if it is another", []string{"-H", `If-Match: "other"`}, "412", nil},
	}
	out := filepath.Join(t.TempDir(), "out")
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			os.Remove(out)
			status := h.Run("curl", append(c.args, "-sS", "-o", out, "-w", "%{http_code}", "http://10.99.0.1/image/kernel")...)
			got, _ := os.ReadFile(out)
			if status != c.status || c.body != nil && !bytes.Equal(got, c.body) {
				t.Errorf("status %s and %d bytes, want %s and %d", status, len(got), c.status, len(c.body))
			}
		})
	}
	if head := h.Run("curl", "-sSI", "http://10.99.0.1/image/kernel"); !strings.Contains(head, "Content-Length: 12582912") || !strings.Contains(head, "Accept-Ranges: bytes") || !strings.Contains(head, etag) {
		t.Errorf("HEAD gives\n%s", head)
	}
	h.Run("busybox", "wget", "-q", "-O", out, "http://10.99.0.1/image/kernel")
	if got, err := os.ReadFile(out); err != nil || !bytes.Equal(got, kernel) {
		t.Errorf("busybox wget got %d bytes, %v", len(got), err)
	}
	if script := h.Run("curl", "-sS", "http://10.99.0.1/boot.ipxe?mac=52-54-00-12-34-56"); !strings.HasPrefix(script, "#!ipxe\n") || !strings.Contains(script, "slipway.machine=52:54:00:12:34:56") {
		t.Errorf("script is %q", script)
	}
}

func TestHTTPRefuses(t *testing.T) {
	netns.Require(t, "curl")
	s := start(t, nil, nil, map[string][]byte{"/image/kernel": noise(1000)}, nil)
	h := s.client("02:00:00:00:00:01", "10.99.0.50")
	big := filepath.Join(t.TempDir(), "big")
	if err := os.WriteFile(big, make([]byte, 32<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	cases := []struct {
		name, status string
		args         []string
	}{
		{"unknown path", "404", []string{"http://10.99.0.1/image/nothing"}},
		{"directory", "404", []string{"http://10.99.0.1/image/"}},
		{"root", "404", []string{"http://10.99.0.1/"}},
		{"traversal", "404", []string{"--path-as-is", "http://10.99.0.1/image/../../../../etc/passwd"}},
		{"hidden traversal", "404", []string{"http://10.99.0.1/image/%2e%2e/%2e%2e/etc/passwd"}},
		{"POST", "405", []string{"-d", "x", "http://10.99.0.1/image/kernel"}},
		{"DELETE", "405", []string{"-X", "DELETE", "http://10.99.0.1/image/kernel"}},
		{"huge body", "405", []string{"-T", big, "http://10.99.0.1/image/kernel"}},
		{"GET with a body", "413", []string{"-X", "GET", "-d", "x", "http://10.99.0.1/image/kernel"}},
		{"huge header", "431", []string{"-H", "X: " + strings.Repeat("x", 60_000), "http://10.99.0.1/image/kernel"}},
		{"not a MAC", "400", []string{"http://10.99.0.1/boot.ipxe?mac=x"}},
		{"many ranges", "416", []string{"-r", strings.Repeat("5000-,", 200) + "5000-", "http://10.99.0.1/image/kernel"}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			// curl fails when the server closes before a whole body was sent; the status counts.
			out, _ := h.Command(t.Context(), "curl", append(c.args, "-s", "-m", "10", "-o", os.DevNull, "-w", "%{http_code}")...).Output()
			if string(out) != c.status {
				t.Errorf("status %s, want %s", out, c.status)
			}
		})
	}
	if n := s.counter(t, "slipway_refusals_total", "service", "http"); n < 10 {
		t.Errorf("%v refusals counted, want 10 at least", n)
	}
	if out := h.Run("curl", "-sS", "http://10.99.0.1/image/kernel"); len(out) != 1000 {
		t.Errorf("after all that, a good request gives %d bytes, want 1000", len(out))
	}
}
