package install

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"net/http"
	"strings"
	"time"
)

// Source is where an image's files are fetched from: the boot service.
type Source struct {
	Base   string // URL of the folder with manifest.json
	Client *http.Client
	Stall  time.Duration // a download from which nothing comes for so long is given up
}

var errStalled = errors.New("nothing more came")

// open begins a download.
func (s Source) open(ctx context.Context, name string) (io.ReadCloser, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	timer := time.AfterFunc(s.Stall, func() { cancel(errStalled) })
	stop := func() { timer.Stop(); cancel(nil) }
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimSuffix(s.Base, "/")+"/"+name, nil)
	if err != nil {
		stop()
		return nil, err
	}
	response, err := s.Client.Do(request)
	if err != nil {
		stop()
		return nil, cause(ctx, err)
	}
	if response.StatusCode != http.StatusOK {
		response.Body.Close()
		stop()
		return nil, fmt.Errorf("the boot service answered %s", response.Status)
	}
	timer.Stop()
	return &download{ctx, response.Body, timer, s.Stall, stop}, nil
}

// cause says what ended a download, where the error only says that it was ended.
func cause(ctx context.Context, err error) error {
	if why := context.Cause(ctx); errors.Is(why, errStalled) {
		return why
	}
	return err
}

// download is a response that must not stand still.
type download struct {
	ctx   context.Context
	body  io.ReadCloser
	timer *time.Timer
	stall time.Duration
	stop  func()
}

func (d *download) Read(p []byte) (int, error) {
	d.timer.Reset(d.stall) // it runs only here: a disk may take longer to write
	n, err := d.body.Read(p)
	d.timer.Stop()
	if err != nil && err != io.EOF {
		err = cause(d.ctx, err)
	}
	return n, err
}

func (d *download) Close() error {
	d.stop()
	return d.body.Close()
}

// fetch streams an artifact to use, which must read it to its end: only there
// is it known to be what the manifest says.
func (s Source) fetch(ctx context.Context, a Artifact, use func(io.Reader) error) error {
	body, err := s.open(ctx, a.Name)
	if err != nil {
		return fmt.Errorf("fetch %s: %w", a.Name, err)
	}
	defer body.Close()
	c := &checked{from: bufio.NewReaderSize(body, 1<<20), sum: sha256.New(), want: a}
	if err := use(c); err != nil {
		return fmt.Errorf("fetch %s: %w", a.Name, err)
	}
	if _, err := c.Read(make([]byte, 1)); err != io.EOF {
		return fmt.Errorf("fetch %s: %w", a.Name, err)
	}
	return nil
}

// checked reads an artifact. Its end is an error if it comes too early, too late,
// or after other bytes than those that the manifest has the hash of.
type checked struct {
	from io.Reader
	sum  hash.Hash
	read int64
	want Artifact
}

func (c *checked) Read(p []byte) (int, error) {
	n, err := c.from.Read(p)
	c.sum.Write(p[:n])
	c.read += int64(n)
	switch {
	case c.read > c.want.Size:
		return 0, fmt.Errorf("%w: it is longer than %d bytes", ErrHash, c.want.Size)
	case err == nil || err == io.EOF && n > 0:
		return n, nil
	case c.read < c.want.Size && (err == io.EOF || errors.Is(err, io.ErrUnexpectedEOF)):
		return n, fmt.Errorf("%w: after %d of %d bytes", ErrTruncated, c.read, c.want.Size)
	case err != io.EOF:
		return n, fmt.Errorf("after %d of %d bytes: %w", c.read, c.want.Size, err)
	}
	if got := hex.EncodeToString(c.sum.Sum(nil)); got != c.want.SHA256 {
		return n, fmt.Errorf("%w: its SHA-256 is %s, not %s", ErrHash, got, c.want.SHA256)
	}
	return n, io.EOF
}

// Machine types in the header of Windows programs, which UEFI's programs and
// Linux kernels with an EFI stub are ("PE Format", Microsoft).
var peMachines = map[uint16]string{0x8664: "amd64", 0xaa64: "arm64"}

// program passes on a kernel or a unified kernel image, and refuses one of
// another architecture, whatever the manifest says of it.
func program(from io.Reader, architecture string) (io.Reader, error) {
	r := bufio.NewReaderSize(from, 4096)
	head, err := r.Peek(4096)
	if err != nil && err != io.EOF {
		return nil, err
	}
	if len(head) < 64 || string(head[:2]) != "MZ" {
		return nil, fmt.Errorf("%w: it is no program that this machine's firmware knows", ErrArchitecture)
	}
	at := int64(binary.LittleEndian.Uint32(head[60:]))
	if at+6 > int64(len(head)) || string(head[at:at+4]) != "PE\x00\x00" {
		return nil, fmt.Errorf("%w: it is no program that this machine's firmware knows", ErrArchitecture)
	}
	if has := peMachines[binary.LittleEndian.Uint16(head[at+4:])]; has != architecture {
		return nil, fmt.Errorf("%w: its header says %q, this is %s", ErrArchitecture, has, architecture)
	}
	return r, nil
}
