package vip

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"time"

	"golang.org/x/net/ipv4"
	"golang.org/x/sys/unix"
)

// wire is the network as seen from a link.
type wire struct {
	link *net.Interface
	src  netip.Addr
	conn *ipv4.PacketConn
}

// openWire listens to advertisements on a link whose address is src.
func openWire(link string, src netip.Addr) (*wire, error) {
	dev, err := net.InterfaceByName(link)
	if err != nil {
		return nil, fmt.Errorf("find link %s: %w", link, err)
	}
	raw, err := net.ListenPacket("ip4:"+strconv.Itoa(protocol), "0.0.0.0")
	if err != nil {
		return nil, fmt.Errorf("open a VRRP socket: %w", err)
	}
	w := &wire{link: dev, src: src, conn: ipv4.NewPacketConn(raw)}
	if err := w.configure(); err != nil {
		w.close()
		return nil, fmt.Errorf("configure the VRRP socket on %s: %w", link, err)
	}
	return w, nil
}

func (w *wire) configure() error {
	if err := w.conn.JoinGroup(w.link, &net.IPAddr{IP: group.AsSlice()}); err != nil {
		return err
	}
	if err := w.conn.SetMulticastInterface(w.link); err != nil {
		return err
	}
	if err := w.conn.SetMulticastLoopback(false); err != nil {
		return err
	}
	if err := w.conn.SetMulticastTTL(ttl); err != nil {
		return err
	}
	return w.conn.SetControlMessage(ipv4.FlagTTL|ipv4.FlagDst|ipv4.FlagInterface, true)
}

// deafen ends receive; sending goes on.
func (w *wire) deafen() { _ = w.conn.SetReadDeadline(time.Unix(1, 0)) }

// receive waits for the next packet to the group on the link. It fails once the
// wire is deaf.
func (w *wire) receive() (from netip.Addr, hops int, payload []byte, err error) {
	buf := make([]byte, 2048)
	for {
		n, control, sender, err := w.conn.ReadFrom(buf)
		if err != nil {
			return from, 0, nil, err
		}
		addr, ok := sender.(*net.IPAddr)
		if !ok || control == nil || control.IfIndex != w.link.Index || !control.Dst.Equal(group.AsSlice()) {
			continue
		}
		from, _ := netip.AddrFromSlice(addr.IP)
		return from.Unmap(), control.TTL, buf[:n], nil
	}
}

// send sends an advertisement from the machine's own address.
func (w *wire) send(a Advert) error {
	control := &ipv4.ControlMessage{Src: w.src.AsSlice(), IfIndex: w.link.Index}
	_, err := w.conn.WriteTo(a.marshal(w.src), control, &net.IPAddr{IP: group.AsSlice()})
	return err
}

// announce sends a gratuitous ARP (RFC 5227, 3): addr is at this link.
func (w *wire) announce(addr netip.Addr) error {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0) // 0: receives nothing
	if err != nil {
		return fmt.Errorf("open a packet socket: %w", err)
	}
	defer unix.Close(fd)
	return unix.Sendto(fd, gratuitous(w.link.HardwareAddr, addr), 0, &unix.SockaddrLinklayer{Ifindex: w.link.Index})
}

// gratuitous is an Ethernet frame to all: an ARP request (RFC 826) in which addr
// asks for itself. Whoever knows addr learns where it is now.
func gratuitous(mac net.HardwareAddr, addr netip.Addr) []byte {
	const ethernet, ip4, request = 1, 0x0800, 1
	everybody := []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
	frame := append(everybody, mac...)
	frame = binary.BigEndian.AppendUint16(frame, unix.ETH_P_ARP)
	frame = binary.BigEndian.AppendUint16(frame, ethernet)
	frame = binary.BigEndian.AppendUint16(frame, ip4)
	frame = append(frame, 6, 4) // lengths of the addresses
	frame = binary.BigEndian.AppendUint16(frame, request)
	frame = append(append(frame, mac...), addr.AsSlice()...)
	return append(append(frame, 0, 0, 0, 0, 0, 0), addr.AsSlice()...)
}

func (w *wire) close() { _ = w.conn.Close() }
