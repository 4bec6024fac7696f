package debian

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp"
	debversion "github.com/knqyf263/go-deb-version"
	"github.com/ulikunitz/xz"
)

const (
	updateHint = "run `slipway image lock` to pin what the archive has now"
	maxIndex   = 64 << 20 // bytes of one downloaded index
)

// Request says what to pin and from where.
type Request struct {
	Sources []Source
	Suites  []string // code names; sources of other suites are ignored
	Arch    string
	Names   []string
	Keys    openpgp.KeyRing
	Now     time.Time
	Client  *http.Client
}

// Update reads the archive's signed indexes and pins the newest version of
// every package named in the request. It needs the network.
func Update(ctx context.Context, req Request) (Lock, error) {
	newest := map[string]Pin{}
	seen := map[string]bool{}
	for _, src := range req.Sources {
		key := src.URI + " " + src.Suite + " " + strings.Join(src.Components, " ")
		if seen[key] || !slices.Contains(req.Suites, src.Suite) {
			continue
		}
		seen[key] = true
		if err := req.scan(ctx, src, newest); err != nil {
			return nil, fmt.Errorf("read archive %s suite %s: %w", src.URI, src.Suite, err)
		}
	}
	if len(seen) == 0 {
		return nil, fmt.Errorf("no apt source of this computer has suite %s: name an archive with --mirror", strings.Join(req.Suites, ", "))
	}
	return req.collect(newest)
}

func (req Request) collect(newest map[string]Pin) (Lock, error) {
	var lock Lock
	var errs []error
	for _, name := range req.Names {
		p, ok := newest[name]
		if !ok {
			errs = append(errs, fmt.Errorf("package %s (%s) is in none of the suites %s", name, req.Arch, strings.Join(req.Suites, ", ")))
			continue
		}
		lock = append(lock, p)
	}
	return lock, errors.Join(errs...)
}

// scan puts the wanted packages of one source into newest.
func (req Request) scan(ctx context.Context, src Source, newest map[string]Pin) error {
	dist := src.URI + "/dists/" + src.Suite + "/"
	signed, err := get(ctx, req.Client, dist+"InRelease", maxIndex)
	if err != nil {
		return err
	}
	rel, err := VerifyRelease(signed, req.Keys, req.Now)
	if err != nil {
		return fmt.Errorf("InRelease: %w", err)
	}
	if rel.Codename != src.Suite {
		return fmt.Errorf("InRelease is of %q", rel.Codename)
	}
	for _, component := range src.Components {
		name := component + "/binary-" + req.Arch + "/Packages.xz"
		sum, ok := rel.Files[name]
		if !ok {
			continue
		}
		index, err := get(ctx, req.Client, dist+name, maxIndex)
		if err != nil {
			return err
		}
		if err := checkSum(index, sum); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		if err := req.pick(index, newest); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

// pick reads a compressed Packages index.
func (req Request) pick(index []byte, newest map[string]Pin) error {
	text, err := xz.NewReader(bytes.NewReader(index))
	if err != nil {
		return err
	}
	for p, err := range Paragraphs(text) {
		if err != nil {
			return err
		}
		if !slices.Contains(req.Names, p["package"]) {
			continue
		}
		pin, err := pinOf(p)
		if err != nil {
			return fmt.Errorf("package %s: %w", p["package"], err)
		}
		newer, err := isNewer(pin, newest)
		if err != nil {
			return fmt.Errorf("package %s: %w", pin.Name, err)
		}
		if newer {
			newest[pin.Name] = pin
		}
	}
	return nil
}

func pinOf(p Paragraph) (Pin, error) {
	size, err := strconv.ParseInt(p["size"], 10, 64)
	if err != nil || size < 0 {
		return Pin{}, fmt.Errorf("bad Size %q", p["size"])
	}
	if !isSHA256(p["sha256"]) {
		return Pin{}, fmt.Errorf("bad SHA256 %q", p["sha256"])
	}
	if err := checkPath(p["filename"]); err != nil {
		return Pin{}, fmt.Errorf("bad Filename: %w", err)
	}
	return Pin{Name: p["package"], Version: p["version"], Arch: p["architecture"], Path: p["filename"],
		Sum: Sum{Size: size, SHA256: p["sha256"]}}, nil
}

func isNewer(pin Pin, newest map[string]Pin) (bool, error) {
	have, ok := newest[pin.Name]
	v, err := debversion.NewVersion(pin.Version)
	if err != nil || !ok {
		return err == nil, err
	}
	old, err := debversion.NewVersion(have.Version)
	return err == nil && v.GreaterThan(old), err
}

func checkSum(data []byte, want Sum) error {
	got := sha256.Sum256(data)
	if hex.EncodeToString(got[:]) != want.SHA256 {
		return fmt.Errorf("SHA-256 is %x, want %s", got, want.SHA256)
	}
	return nil
}

// get downloads at most limit bytes.
func get(ctx context.Context, client *http.Client, url string, limit int64) ([]byte, error) {
	body, err := open(ctx, client, url)
	if err != nil {
		return nil, err
	}
	defer body.Close()
	data, err := io.ReadAll(io.LimitReader(body, limit+1))
	if err != nil {
		return nil, fmt.Errorf("download %s: %w", url, err)
	}
	if int64(len(data)) > limit {
		return nil, fmt.Errorf("download %s: it is larger than %d bytes", url, limit)
	}
	return data, nil
}

func open(ctx context.Context, client *http.Client, url string) (io.ReadCloser, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		resp.Body.Close()
		return nil, &statusError{url: url, code: resp.StatusCode, status: resp.Status}
	}
	return resp.Body, nil
}

type statusError struct {
	url    string
	code   int
	status string
}

func (e *statusError) Error() string { return "download " + e.url + ": " + e.status }
