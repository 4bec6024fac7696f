package host

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"syscall"
	"time"
)

// loading, in the environment, makes the test binary a crowd of DHCP clients;
// its value is a load in JSON, and it prints a result in JSON.
const loading = "SLIPWAY_TEST_LOAD"

// load is a crowd of clients, each of which asks for one lease.
type load struct {
	Clients int
	// Window is how many exchanges are under way at once.
	Window int
}

type result struct {
	Done, Lost int
	Seconds    float64
}

// exchange is one client's way from DISCOVER to ACK.
type exchange struct{ began time.Time }

// patience is how long a client waits for an answer; it asks once.
const patience = time.Second

// crowdOf runs the load on eth0 of its namespace.
func crowdOf(l load) (result, error) {
	config := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var set error
		err := c.Control(func(fd uintptr) {
			set = errors.Join(syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_BROADCAST, 1),
				syscall.BindToDevice(int(fd), "eth0"))
		})
		return errors.Join(err, set)
	}}
	conn, err := config.ListenPacket(context.Background(), "udp4", ":68")
	if err != nil {
		return result{}, err
	}
	defer conn.Close()
	udp := conn.(*net.UDPConn)
	_ = udp.SetReadBuffer(8 << 20)
	return l.run(udp)
}

func (l load) run(udp *net.UDPConn) (result, error) {
	everyone := netip.MustParseAddrPort("255.255.255.255:67")
	open := map[uint32]exchange{}
	var r result
	buffer := make([]byte, 1500)
	began := time.Now()
	for next := 0; r.Done+r.Lost < l.Clients; {
		for ; len(open) < l.Window && next < l.Clients; next++ {
			open[uint32(next)] = exchange{time.Now()}
			if _, err := udp.WriteToUDPAddrPort(message(uint32(next), hardwareOf(next), nil), everyone); err != nil {
				return r, err
			}
		}
		_ = udp.SetReadDeadline(time.Now().Add(patience))
		n, _, err := udp.ReadFromUDPAddrPort(buffer)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			r.Lost += len(open)
			clear(open)
			continue
		}
		if err != nil {
			return r, err
		}
		if l.answer(udp, everyone, open, buffer[:n]) {
			r.Done++
		}
	}
	r.Seconds = time.Since(began).Seconds()
	return r, nil
}

// answer takes an OFFER up, and says whether the packet was an awaited ACK.
func (l load) answer(udp *net.UDPConn, to netip.AddrPort, open map[uint32]exchange, b []byte) bool {
	if len(b) < 243 {
		return false
	}
	xid := binary.BigEndian.Uint32(b[4:])
	if _, waiting := open[xid]; !waiting {
		return false
	}
	options := parseOptions(b[240:])
	switch kind := options[53]; {
	case len(kind) == 1 && kind[0] == 2:
		request := message(xid, hardwareOf(int(xid)), map[byte][]byte{53: {3}, 50: b[16:20], 54: options[54]})
		_, err := udp.WriteToUDPAddrPort(request, to)
		return err != nil
	case len(kind) == 1 && kind[0] == 5:
		delete(open, xid)
		return true
	}
	return false
}

func hardwareOf(n int) [6]byte {
	return [6]byte{2, 7, byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)}
}

// message is a DISCOVER, or what the options make of it, with the broadcast flag.
func message(xid uint32, mac [6]byte, options map[byte][]byte) []byte {
	b := make([]byte, 240, 300)
	b[0], b[1], b[2] = 1, 1, 6
	binary.BigEndian.PutUint32(b[4:], xid)
	b[10] = 0x80
	copy(b[28:], mac[:])
	copy(b[236:], []byte{99, 130, 83, 99})
	if options == nil {
		options = map[byte][]byte{53: {1}}
	}
	for code, value := range options {
		b = append(append(b, code, byte(len(value))), value...)
	}
	b = append(b, 255)
	return b[:max(len(b), 300)]
}

func parseOptions(b []byte) map[byte][]byte {
	options := map[byte][]byte{}
	for len(b) >= 2 && b[0] != 255 {
		if b[0] == 0 {
			b = b[1:]
			continue
		}
		n := int(b[1])
		if len(b) < 2+n {
			break
		}
		options[b[0]] = b[2 : 2+n]
		b = b[2+n:]
	}
	return options
}

// role runs the test binary's other roles; false means that it is to test.
func role() (ran bool, err error) {
	if target := os.Getenv(flooding); target != "" {
		return true, flood(target)
	}
	text := os.Getenv(loading)
	if text == "" {
		return false, nil
	}
	var l load
	if err := json.Unmarshal([]byte(text), &l); err != nil {
		return true, err
	}
	r, err := crowdOf(l)
	if err != nil {
		return true, err
	}
	out, err := json.Marshal(r)
	fmt.Println(string(out))
	return true, err
}
