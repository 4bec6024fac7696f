package debian

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
)

// Store holds downloaded packages by hash and fetches what is missing. Several
// builds may use one directory at the same time.
type Store struct {
	Dir     string
	Mirrors []string // archive roots, tried in order
	Client  *http.Client
}

// Mirrors returns the archive roots of the sources that carry one of the suites.
func Mirrors(sources []Source, suites []string) []string {
	var uris []string
	for _, s := range sources {
		if slices.Contains(suites, s.Suite) && !slices.Contains(uris, s.URI) {
			uris = append(uris, s.URI)
		}
	}
	return uris
}

// Fetch returns the path of a file with exactly the pinned bytes: from the
// cache, or from the first mirror that has it. The error names the package and
// the command that updates the lock.
func (s Store) Fetch(ctx context.Context, pin Pin) (string, error) {
	path := filepath.Join(s.Dir, pin.SHA256+".deb")
	switch err := verify(path, pin.Sum); {
	case err == nil:
		return path, nil
	case !errors.Is(err, os.ErrNotExist):
		// A damaged file: the download below replaces it.
	}
	if err := os.MkdirAll(s.Dir, 0o755); err != nil {
		return "", err
	}
	if len(s.Mirrors) == 0 {
		return "", fmt.Errorf("fetch package %s: it is not in the cache %s and no archive is known: name one with --mirror", pin, s.Dir)
	}
	var errs []error
	for _, mirror := range s.Mirrors {
		err := s.download(ctx, mirror+"/"+pin.Path, path, pin.Sum)
		if err == nil {
			return path, nil
		}
		errs = append(errs, err)
	}
	return "", fmt.Errorf("fetch package %s: %w\n%s", pin, explain(errs), updateHint)
}

// explain drops "not found here" of archives that simply carry other suites,
// unless that is all there is to say.
func explain(errs []error) error {
	other := slices.DeleteFunc(slices.Clone(errs), func(err error) bool {
		var status *statusError
		return errors.As(err, &status) && status.code == http.StatusNotFound
	})
	if len(other) == 0 {
		return fmt.Errorf("the archive no longer has this version:\n%w", errors.Join(errs...))
	}
	return errors.Join(other...)
}

// download writes url to path when its bytes are the wanted ones.
func (s Store) download(ctx context.Context, url, path string, want Sum) error {
	body, err := open(ctx, s.Client, url)
	if err != nil {
		return err
	}
	defer body.Close()
	tmp, err := os.CreateTemp(s.Dir, "download-*")
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name())
	_, err = io.Copy(tmp, io.LimitReader(body, want.Size+1))
	if err = errors.Join(err, tmp.Chmod(0o644), tmp.Close()); err != nil {
		return fmt.Errorf("download %s: %w", url, err)
	}
	if err := verify(tmp.Name(), want); err != nil {
		return fmt.Errorf("download %s: %w", url, err)
	}
	return os.Rename(tmp.Name(), path)
}

func verify(path string, want Sum) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	h := sha256.New()
	n, err := io.Copy(h, f)
	if err != nil {
		return err
	}
	if got := hex.EncodeToString(h.Sum(nil)); got != want.SHA256 {
		return fmt.Errorf("it has %d bytes with SHA-256 %s, the lock wants %d bytes with %s", n, got, want.Size, want.SHA256)
	}
	return nil
}
