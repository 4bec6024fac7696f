package host

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"slipway/test/netns"
)

// flooding, in the environment, makes the test binary attack the servers
// instead of testing them: sockets of ours, in a client's namespace.
const flooding = "SLIPWAY_TEST_FLOOD"

// TestHostile: after a flood from one host, another gets its lease, its loader
// and its kernel, and the log is still short.
func TestHostile(t *testing.T) {
	netns.Require(t, "udhcpc", "curl")
	// Some nonsense is a good DISCOVER of a machine that there is not, and
	// holds an address for a minute: nothing helps against that but room.
	s := start(t, wide, map[string][]byte{"snponly.efi": noise(1000)}, map[string][]byte{"/image/kernel": noise(1000)}, nil)
	attacker := s.client("02:00:00:00:00:66", "10.99.0.66")
	attack := again(t, attacker, flooding, server.String())
	var said bytes.Buffer
	attack.Stdout, attack.Stderr = &said, &said
	if err := attack.Start(); err != nil {
		t.Fatal(err)
	}
	s.honest(t) // meanwhile
	if err := attack.Wait(); err != nil {
		t.Fatalf("the flood: %v\n%s", err, &said)
	}
	for _, want := range [][2]string{
		{"dhcp", "malformed"}, {"dhcp", "not a request"}, {"dhcp", "hardware type not Ethernet"},
		{"tftp", "malformed"}, {"tftp", "no such file"}, {"tftp", "this server is read-only"},
		{"http", "too many connections"},
	} {
		if n := s.counter(t, "slipway_refusals_total", "service", want[0], "reason", want[1]); n == 0 {
			t.Errorf("%s: nothing is counted as %q", want[0], want[1])
		}
	}
	s.mu.Lock()
	lines := strings.Count(s.log.String(), "\n")
	s.mu.Unlock()
	if lines > 200 {
		t.Errorf("the log has %d lines", lines)
	}
}

// honest is a good client's whole way.
func (s *service) honest(t *testing.T) {
	t.Helper()
	h := s.Host(machine)
	script, log := hooked(t)
	h.Run("udhcpc", "-i", "eth0", "-s", script, "-q", "-n", "-t", "10", "-T", "1")
	if got := address(t, log); !subnet.Contains(got) {
		t.Errorf("it has %s", got)
	}
	for _, url := range []string{"tftp://10.99.0.1/snponly.efi", "http://10.99.0.1/image/kernel"} {
		if out, err := h.Command(t.Context(), "curl", "-sS", "--retry", "5", url).Output(); err != nil || !bytes.Equal(out, noise(1000)) {
			t.Errorf("%s: %d bytes, %v", url, len(out), err)
		}
	}
}

// flood sends nonsense to a server's three ports.
func flood(server string) error {
	seed := rand.New(rand.NewPCG(1, 2))
	dhcp, err := net.Dial("udp4", server+":67")
	if err != nil {
		return err
	}
	tftp, err := net.Dial("udp4", server+":69")
	if err != nil {
		return err
	}
	discover := message(1, [6]byte{2, 9, 9, 9, 9, 9}, nil)
	for i := range 20_000 {
		b := nonsense(seed, discover)
		if _, err := dhcp.Write(b); err != nil {
			return fmt.Errorf("DHCP packet %d: %w", i, err)
		}
		if i%20 == 0 {
			// Writing may report the refusal of an earlier datagram; that is the point.
			_, _ = tftp.Write(request(seed))
		}
	}
	return crowd(server)
}

// nonsense is random bytes, or a good packet with some bytes changed.
func nonsense(seed *rand.Rand, good []byte) []byte {
	b := bytes.Clone(good)
	if seed.IntN(4) == 0 {
		b = make([]byte, seed.IntN(1400))
	}
	for range 1 + seed.IntN(20) {
		if len(b) > 0 {
			b[seed.IntN(len(b))] = byte(seed.Uint32())
		}
	}
	if len(b) > 0 {
		b[0] = byte(seed.IntN(3)) // request, reply, neither
	}
	return b
}

// request is a TFTP packet that nobody should send.
func request(seed *rand.Rand) []byte {
	names := []string{"../../etc/shadow", strings.Repeat("/", 400), "", "\x1b[2J", "snponly.efi"}
	name := names[seed.IntN(len(names))]
	b := []byte{0, byte(seed.IntN(8))}
	b = append(b, name...)
	if seed.IntN(3) > 0 {
		b = append(b, "\x00octet\x00blksize\x0099999999999\x00tsize\x00-1\x00"...)
	}
	return b
}

// crowd opens more connections than one host may, and says little on each.
func crowd(server string) error {
	for i := range 100 {
		conn, err := net.DialTimeout("tcp4", server+":80", 5*time.Second)
		if err != nil {
			return fmt.Errorf("connection %d: %w", i, err)
		}
		defer conn.Close()
		// A refused connection resets; the rest of the crowd goes on.
		_, _ = conn.Write([]byte("GET /image/kernel HTTP/1.1\r\nX: "))
	}
	return nil
}

// again is the test binary in another role, in a host's namespace.
func again(t testing.TB, h *netns.Host, role, value string) *exec.Cmd {
	t.Helper()
	cmd := h.Command(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), role+"="+value)
	return cmd
}
