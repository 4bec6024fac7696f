package qemu

import (
	"bytes"
	"encoding/binary"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// request is a DHCP request in its frame, with these options behind the cookie.
func request(options ...byte) []byte {
	frame := make([]byte, 14+20+8+236)
	binary.BigEndian.PutUint16(frame[12:], 0x0800)
	frame = append(append(frame, 0x63, 0x82, 0x53, 0x63), options...)
	ip := frame[14:]
	ip[0], ip[9] = 0x45, 17
	binary.BigEndian.PutUint16(ip[2:], uint16(len(ip)))
	udp := ip[20:]
	binary.BigEndian.PutUint16(udp[2:], 67)
	binary.BigEndian.PutUint16(udp[6:], 0xbeef) // a checksum
	return frame
}

func TestMakePlain(t *testing.T) {
	mark := append([]byte{optionUserClass, byte(len(plainMark))}, plainMark...)
	other := append([]byte{optionUserClass, 4}, "iPXE"...)
	ipxe := []byte{optionIPXE, 3, 1, 1, 0}
	discover, arch := []byte{53, 1, 1}, []byte{93, 2, 0, 0}
	join := func(parts ...[]byte) []byte { return bytes.Join(parts, nil) }

	frame := request(join(discover, mark, ipxe, arch, []byte{optionEnd, 0, 0})...)
	makePlain(frame)
	want := request(join(discover, arch, []byte{optionEnd}, make([]byte, len(mark)+len(ipxe)+2))...)
	binary.BigEndian.PutUint16(want[14+20+6:], 0)
	if diff := cmp.Diff(want, frame); diff != "" {
		t.Errorf("a marked request (-want +got):\n%s", diff)
	}

	for name, frame := range map[string][]byte{
		"not marked":  request(join(discover, other, ipxe, arch, []byte{optionEnd})...),
		"cut short":   request(optionUserClass, 200, 'p'),
		"no options":  request(),
		"not IPv4":    {13: 6, 60: 0},
		"too short":   {1, 2, 3},
		"long header": append(request(join(mark)...)[:14], 0x4f, 0, 0xff, 0xff),
	} {
		was := bytes.Clone(frame)
		makePlain(frame)
		if !bytes.Equal(was, frame) {
			t.Errorf("%s: was changed", name)
		}
	}
}

// FuzzMakePlain: whatever a machine sends, the frame keeps its length and nothing panics.
func FuzzMakePlain(f *testing.F) {
	f.Add(request(optionUserClass, 1, 'p', optionEnd))
	f.Add(request(append(append([]byte{optionUserClass, byte(len(plainMark))}, plainMark...), optionIPXE, 1, 1, optionEnd)...))
	f.Fuzz(func(_ *testing.T, frame []byte) { makePlain(frame) })
}
