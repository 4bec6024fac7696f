// Package uki joins a kernel, an initramfs and a command line to one program
// that UEFI starts and that can be signed as a whole: a unified kernel image
// (UAPI group, specification UKI). The parts become sections of systemd's stub.
package uki

import (
	"bytes"
	"debug/pe"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
)

// Section is one part of the image. The stub finds it by name.
type Section struct {
	Name string // .linux, at most 8 bytes
	Data []byte
}

// commandLine is the section of the kernel's command line; joined are the names
// of all sections that images of ours have beside the stub's.
const commandLine = ".cmdline"

var joined = []string{".osrel", ".uname", commandLine, ".initrd", ".linux"}

const (
	pageSize      = 4096
	sectionHeader = 40
	// Initialised data that is read and nothing else (PE specification,
	// section flags).
	readOnlyData = 0x40000040
	// offsets in the optional header of PE32+, from its begin
	sizeOfInitializedData, sizeOfImage, sizeOfHeaders, checkSum = 8, 56, 60, 64
	fileAlignment                                               = 36
	certificates                                                = 144 // a data directory: where signatures are
	// offsets in the COFF header, from the PE signature
	numberOfSections, symbolTable, symbolCount, coffEnd = 6, 12, 16, 24
)

// Join appends sections to the stub, in the given order, behind what the stub
// has in memory; put the kernel last. The symbols of the stub, which nothing
// needs at run time, are left out. The same input gives the same bytes.
func Join(stub []byte, sections ...Section) ([]byte, error) {
	file, err := pe.NewFile(bytes.NewReader(stub))
	if err != nil {
		return nil, fmt.Errorf("read the stub: %w", err)
	}
	defer file.Close()
	if _, ok := file.OptionalHeader.(*pe.OptionalHeader64); !ok {
		return nil, errors.New("read the stub: it is not a 64-bit program")
	}
	j, err := newJoin(stub, file)
	if err != nil {
		return nil, fmt.Errorf("read the stub: %w", err)
	}
	for _, s := range sections {
		if err := j.add(s); err != nil {
			return nil, fmt.Errorf("add section %s: %w", s.Name, err)
		}
	}
	return j.finish(), nil
}

// WithCommandLine is an image that Join made, with another command line. A
// signature is not kept: it would be of something else.
func WithCommandLine(image []byte, line string) ([]byte, error) {
	stub, sections, err := split(image)
	if err != nil {
		return nil, fmt.Errorf("read the image: %w", err)
	}
	at := slices.IndexFunc(sections, func(s Section) bool { return s.Name == commandLine })
	if at < 0 {
		return nil, fmt.Errorf("read the image: it has no section %s", commandLine)
	}
	sections[at].Data = []byte(line)
	return Join(stub, sections...)
}

// split undoes Join: what systemd's stub has itself ends where its own sections end.
func split(image []byte) (stub []byte, added []Section, err error) {
	file, err := pe.NewFile(bytes.NewReader(image))
	if err != nil {
		return nil, nil, err
	}
	defer file.Close()
	own, size := 0, uint32(0)
	for _, s := range file.Sections {
		if !slices.Contains(joined, s.Name) {
			own++
			continue
		}
		data, err := s.Data()
		if err != nil {
			return nil, nil, fmt.Errorf("section %s: %w", s.Name, err)
		}
		added = append(added, Section{s.Name, data[:min(uint32(len(data)), s.VirtualSize)]})
		size += s.Size
	}
	if own == len(file.Sections) || file.Sections[own].Name != added[0].Name {
		return nil, nil, errors.New("it has no sections of ours behind a stub's")
	}
	return withoutSections(slices.Clone(image[:file.Sections[own].Offset]), own, size), added, nil
}

// withoutSections corrects the headers of a stub whose further sections, with
// so many bytes, were cut off.
func withoutSections(stub []byte, own int, size uint32) []byte {
	le := binary.LittleEndian
	signature := le.Uint32(stub[0x3c:])
	le.PutUint16(stub[signature+numberOfSections:], uint16(own))
	optional := signature + coffEnd
	data := stub[optional+sizeOfInitializedData:]
	le.PutUint32(data, le.Uint32(data)-size)
	clear(stub[optional+certificates:][:8])
	return stub
}

// join is an image being made.
type join struct {
	out []byte
	signature,
	optional uint32 // offsets of the PE signature and of the optional header
	names   []string
	next    uint32 // offset of the next section header
	room    uint32 // where the headers must end
	align   uint32 // of sections in the file
	address uint32 // behind the last section in memory
	added   uint32 // bytes of data
}

func newJoin(stub []byte, file *pe.File) (*join, error) {
	word := binary.LittleEndian.Uint32
	j := &join{signature: word(stub[0x3c:])}
	j.optional = j.signature + coffEnd
	j.next = j.optional + uint32(file.SizeOfOptionalHeader) + uint32(len(file.Sections))*sectionHeader
	j.room = word(stub[j.optional+sizeOfHeaders:])
	j.align = word(stub[j.optional+fileAlignment:])
	end := j.room
	for _, s := range file.Sections {
		j.names = append(j.names, s.Name)
		end = max(end, s.Offset+s.Size)
		j.address = max(j.address, s.VirtualAddress+s.VirtualSize)
	}
	if j.next > j.room || int(end) > len(stub) || j.align == 0 {
		return nil, errors.New("its headers are damaged")
	}
	j.out = slices.Clone(stub[:end])
	return j, nil
}

func (j *join) add(s Section) error {
	switch {
	case len(s.Name) > 8:
		return errors.New("a name has at most 8 bytes")
	case slices.Contains(j.names, s.Name):
		return errors.New("the stub has it already, or it was added twice")
	case len(s.Data) == 0:
		return errors.New("it is empty")
	case j.next+sectionHeader > j.room:
		return errors.New("the stub's headers have no room for another section")
	}
	j.out = pad(j.out, j.align)
	address, offset := roundUp(j.address, pageSize), uint32(len(j.out))
	j.out = pad(append(j.out, s.Data...), j.align)
	h := pe.SectionHeader32{VirtualSize: uint32(len(s.Data)), VirtualAddress: address,
		SizeOfRawData: uint32(len(j.out)) - offset, PointerToRawData: offset, Characteristics: readOnlyData}
	copy(h.Name[:], s.Name)
	if _, err := binary.Encode(j.out[j.next:], binary.LittleEndian, h); err != nil {
		return err
	}
	j.names = append(j.names, s.Name)
	j.next += sectionHeader
	j.address = address + h.VirtualSize
	j.added += h.SizeOfRawData
	return nil
}

// finish corrects the headers. The checksum, which firmware does not check, is
// zero as linkers leave it.
func (j *join) finish() []byte {
	le := binary.LittleEndian
	le.PutUint16(j.out[j.signature+numberOfSections:], uint16(len(j.names)))
	le.PutUint32(j.out[j.signature+symbolTable:], 0)
	le.PutUint32(j.out[j.signature+symbolCount:], 0)
	size := j.out[j.optional+sizeOfInitializedData:]
	le.PutUint32(size, le.Uint32(size)+j.added)
	le.PutUint32(j.out[j.optional+sizeOfImage:], roundUp(j.address, pageSize))
	le.PutUint32(j.out[j.optional+checkSum:], 0)
	return j.out
}

func pad(data []byte, align uint32) []byte {
	return append(data, make([]byte, roundUp(uint32(len(data)), align)-uint32(len(data)))...)
}

func roundUp(n, align uint32) uint32 { return (n + align - 1) / align * align }
