package dhcp

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"

	"golang.org/x/sys/unix"
)

// socket sends and receives on one interface: UDP port 67, and frames to
// clients that have no address yet.
type socket struct {
	udp   *net.UDPConn
	index int // of the interface
	raw   int // AF_PACKET descriptor, or -1 where they are not permitted
}

// receiveBuffer holds the burst of a rack that powers on at once.
const receiveBuffer = 4 << 20

func listen(ctx context.Context, device string) (*socket, error) {
	iface, err := net.InterfaceByName(device)
	if err != nil {
		return nil, fmt.Errorf("find interface %s: %w", device, err)
	}
	config := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var bound error
		err := c.Control(func(fd uintptr) { bound = bind(int(fd), device) })
		return errors.Join(err, bound)
	}}
	conn, err := config.ListenPacket(ctx, "udp4", fmt.Sprintf(":%d", serverPort))
	if err != nil {
		return nil, fmt.Errorf("listen for DHCP on %s: %w", device, err)
	}
	udp := conn.(*net.UDPConn)
	// A kernel may grant less; that only shortens the burst.
	_ = udp.SetReadBuffer(receiveBuffer)
	raw, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		raw = -1
	}
	return &socket{udp: udp, index: iface.Index, raw: raw}, nil
}

// bind keeps the socket to one interface: several servers, each on its own,
// share the port, and a broadcast leaves by the right one.
func bind(fd int, device string) error {
	return errors.Join(
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1),
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_BROADCAST, 1),
		unix.BindToDevice(fd, device))
}

func (s *socket) close() {
	s.udp.Close()
	if s.raw >= 0 {
		unix.Close(s.raw)
	}
}

// send sends a reply. Where frames are not permitted, it broadcasts what
// should go to a MAC, as RFC 2131, section 4.1, allows.
func (s *socket) send(b []byte, from netip.Addr, mac net.HardwareAddr, d destination) error {
	if d.hardware && s.raw >= 0 {
		to := &unix.SockaddrLinklayer{Protocol: bigEndian(unix.ETH_P_IP), Ifindex: s.index, Halen: 6}
		copy(to.Addr[:], mac)
		return unix.Sendto(s.raw, datagram(b, from, d.to.Addr()), 0, to)
	}
	if d.hardware {
		d.to = netip.AddrPortFrom(netip.AddrFrom4([4]byte{255, 255, 255, 255}), clientPort)
	}
	_, err := s.udp.WriteToUDPAddrPort(b, d.to)
	return err
}

// datagram puts IPv4 and UDP headers before a reply from port 67 to port 68.
// The UDP checksum is left out, as IPv4 allows.
func datagram(b []byte, from, to netip.Addr) []byte {
	const ip, udp = 20, 8
	d := make([]byte, ip+udp, ip+udp+len(b))
	src, dst := from.As4(), to.As4()
	d[0] = 4<<4 | ip/4
	binary.BigEndian.PutUint16(d[2:], uint16(ip+udp+len(b)))
	d[8] = 64 // hops
	d[9] = unix.IPPROTO_UDP
	copy(d[12:], src[:])
	copy(d[16:], dst[:])
	binary.BigEndian.PutUint16(d[10:], checksum(d[:ip]))
	binary.BigEndian.PutUint16(d[ip:], serverPort)
	binary.BigEndian.PutUint16(d[ip+2:], clientPort)
	binary.BigEndian.PutUint16(d[ip+4:], uint16(udp+len(b)))
	return append(d, b...)
}

// checksum is RFC 791's, of a header whose checksum is still zero.
func checksum(header []byte) uint16 {
	var sum uint32
	for i := 0; i < len(header); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(header[i:]))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}

func bigEndian(n uint16) uint16 { return n>>8 | n<<8 }
