package qemu

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
)

// plainScript makes an iPXE behave as a network card without one: it asks, forgets its user
// class before it hands over (it would pass it on), and runs the file it was told to fetch
// by TFTP. The user class is a mark for the cable, which takes it off.
const (
	plainScriptFile = "plain.ipxe"
	plainMark       = "plain-pxe"
	plainScript     = `#!ipxe
:again
set user-class ` + plainMark + `
dhcp net0 || goto again
clear user-class
chain tftp://${next-server}/${filename} || goto again
`
)

// cable is the network cable of a PlainPXE machine. Every frame the machine sends passes
// through it; from a DHCP request that bears plainMark it takes what only an iPXE says, so
// that the boot service sees the packet of an ordinary network card. What undionly.kpxe and
// the operating system send later passes as it is.
type cable struct {
	sent   net.Conn // frames from QEMU, each behind its length (4 bytes, big endian)
	passed net.Conn // frames to QEMU, the same way
}

// newCable returns a cable, and its ends for QEMU to inherit as cableSentFD, cablePassedFD.
func newCable() (*cable, []*os.File, error) {
	sent, theirSent, err := socketPair()
	if err != nil {
		return nil, nil, fmt.Errorf("make the cable: %w", err)
	}
	passed, theirPassed, err := socketPair()
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("make the cable: %w", err), sent.Close(), theirSent.Close())
	}
	return &cable{sent: sent, passed: passed}, []*os.File{theirSent, theirPassed}, nil
}

// carry passes frames until QEMU ends.
func (c *cable) carry() error {
	defer c.sent.Close()
	defer c.passed.Close()
	buffer := make([]byte, 4+1<<16)
	for {
		if _, err := io.ReadFull(c.sent, buffer[:4]); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return fmt.Errorf("take a frame from the cable: %w", err)
		}
		size := int(binary.BigEndian.Uint32(buffer))
		if size > len(buffer)-4 {
			return fmt.Errorf("take a frame from the cable: %d bytes are too many", size)
		}
		if _, err := io.ReadFull(c.sent, buffer[4:4+size]); err != nil {
			return fmt.Errorf("take a frame from the cable: %w", err)
		}
		makePlain(buffer[4 : 4+size])
		if _, err := c.passed.Write(buffer[:4+size]); err != nil {
			return fmt.Errorf("pass a frame on: %w", err)
		}
	}
}

// DHCP options (RFC 2132, RFC 3004); 175 is iPXE's own.
const (
	optionPad       = 0
	optionUserClass = 77
	optionIPXE      = 175
	optionEnd       = 255
)

// makePlain removes the user class and iPXE's option from a DHCP request with plainMark, in
// place. The packet keeps its length: padding follows the end of the options.
func makePlain(frame []byte) {
	udp, options := dhcpRequest(frame)
	if class, ok := option(options, optionUserClass); !ok || string(class) != plainMark {
		return
	}
	kept := options[:0]
	for rest := options; len(rest) > 0; {
		size := optionSize(rest)
		if rest[0] != optionUserClass && rest[0] != optionIPXE && rest[0] != optionPad {
			kept = append(kept, rest[:size]...)
		}
		rest = rest[size:]
	}
	clear(options[len(kept):])
	binary.BigEndian.PutUint16(udp[6:], 0) // RFC 768: no checksum
}

// dhcpRequest returns the UDP datagram and the options of a request to a DHCP server over
// untagged Ethernet and IPv4 (RFC 2131), and nothing for other frames.
func dhcpRequest(frame []byte) (udp, options []byte) {
	const ethernet, fixed, cookie = 14, 236, "\x63\x82\x53\x63"
	if len(frame) < ethernet+20 || binary.BigEndian.Uint16(frame[12:]) != 0x0800 || frame[ethernet+9] != 17 {
		return nil, nil
	}
	header := int(frame[ethernet]&0x0f) * 4
	total := int(binary.BigEndian.Uint16(frame[ethernet+2:]))
	if total > len(frame)-ethernet || total < header+8+fixed+len(cookie) {
		return nil, nil
	}
	udp = frame[ethernet+header : ethernet+total]
	options = udp[8+fixed:]
	if binary.BigEndian.Uint16(udp[2:]) != 67 || string(options[:len(cookie)]) != cookie {
		return nil, nil
	}
	return udp, options[len(cookie):]
}

// option returns the data of the first option with this code.
func option(options []byte, code byte) ([]byte, bool) {
	for rest := options; len(rest) > 0; {
		size := optionSize(rest)
		if rest[0] == code && size > 2 {
			return rest[2:size], true
		}
		rest = rest[size:]
	}
	return nil, false
}

// optionSize is the size of the option that options, which is not empty, begins with. One
// that is cut short takes all that is left.
func optionSize(options []byte) int {
	if options[0] == optionPad || options[0] == optionEnd || len(options) < 2 {
		return 1
	}
	return min(2+int(options[1]), len(options))
}
