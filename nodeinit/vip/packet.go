package vip

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"time"
)

const (
	protocol = 112 // of IP (RFC 9568, 5.1.1.4)
	ttl      = 255 // what did not come from this network has less (5.1.1.3)
	version  = 3
	kind     = 1 // ADVERTISEMENT, the only one

	headerLen = 8
	centi     = 10 * time.Millisecond // the unit of intervals
)

// group is where routers tell each other (5.1.1.2).
var group = netip.AddrFrom4([4]byte{224, 0, 0, 18})

// Advert is an ADVERTISEMENT (RFC 9568, 5.2).
type Advert struct {
	VRID      uint8
	Priority  uint8         // 0: the sender gives up
	Interval  time.Duration // until the next, 10 ms to 40.95 s
	Addresses []netip.Addr  // IPv4
}

// marshal is the packet's IP payload, for a packet from src to the group.
func (a Advert) marshal(src netip.Addr) []byte {
	b := []byte{version<<4 | kind, a.VRID, a.Priority, uint8(len(a.Addresses))}
	b = binary.BigEndian.AppendUint16(b, uint16(a.Interval/centi)&0xfff)
	b = append(b, 0, 0)
	for _, addr := range a.Addresses {
		b = append(b, addr.AsSlice()...)
	}
	binary.BigEndian.PutUint16(b[6:], checksum(src, b))
	return b
}

// parse reads the payload of a packet from src to the group. Nothing of it is
// believed: what is not exactly an ADVERTISEMENT is an error.
func parse(src netip.Addr, b []byte) (a Advert, err error) {
	switch {
	case !src.Is4():
		return a, errors.New("the sender is not IPv4")
	case len(b) < headerLen:
		return a, fmt.Errorf("%d bytes are too few", len(b))
	case b[0] != version<<4|kind:
		return a, fmt.Errorf("version and type %#x, want %#x", b[0], version<<4|kind)
	case b[1] == 0:
		return a, errors.New("virtual router 0")
	case b[3] == 0 || len(b) != headerLen+4*int(b[3]):
		return a, fmt.Errorf("%d bytes with %d addresses", len(b), b[3])
	case checksum(src, b) != 0:
		return a, errors.New("wrong checksum")
	}
	a = Advert{VRID: b[1], Priority: b[2], Interval: time.Duration(binary.BigEndian.Uint16(b[4:])&0xfff) * centi}
	if a.Interval == 0 {
		return a, errors.New("no interval")
	}
	for rest := b[headerLen:]; len(rest) > 0; rest = rest[4:] {
		a.Addresses = append(a.Addresses, netip.AddrFrom4([4]byte(rest)))
	}
	return a, nil
}

// checksum is the Internet checksum (RFC 1071) of a payload and its
// pseudo-header (5.2.8). Of one that holds its own checksum it is 0.
func checksum(src netip.Addr, payload []byte) uint16 {
	to := group.As4()
	all := append(src.AsSlice(), to[:]...)
	all = binary.BigEndian.AppendUint32(all, uint32(len(payload)))
	all = append(all, 0, 0, 0, protocol)
	all = append(all, payload...) // of even length
	var sum uint32
	for ; len(all) >= 2; all = all[2:] {
		sum += uint32(binary.BigEndian.Uint16(all))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}
