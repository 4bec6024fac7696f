// Package snapshot keeps snapshots of the clusters' etcd: files below the boot
// service's data folder, each checked before it is kept. A Taker pulls them
// from the clusters' members over the node API, a Schedule has that done by the
// clock.
//
// It restores nothing: a member fetches its snapshot from here and does that
// itself. The calls come from bootsvc/api; package bootsvc runs the Schedule.
package snapshot

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"
)

// MaxSize is how many bytes a snapshot may have: the most that etcd advises as
// its quota (etcd.io/docs, "Storage size limit"), 8 GiB, and the hash.
const MaxSize = 8<<30 + 32

// ErrNotFound says that no snapshot is kept under an ID or hash.
var ErrNotFound = errors.New("no such snapshot is kept")

// unit is what log lines of this package are about.
const unit = "snapshot"

// Snapshot is a snapshot that is kept.
type Snapshot struct {
	ID      string    `json:"id"` // CLUSTER-YYYYMMDDThhmmssZ
	Cluster string    `json:"cluster"`
	Taken   time.Time `json:"taken"`
	By      string    `json:"by"` // schedule, upload, or a person's name
	// Scheduled ones are removed when enough newer ones are there.
	Scheduled bool `json:"scheduled,omitempty"`
	Contents
}

// Origin is where a snapshot comes from.
type Origin struct {
	Cluster   string
	By        string
	Scheduled bool
	Size      int64 // bytes that are expected; 0: not known
}

// Store is a folder of snapshots. Its methods may be called concurrently.
type Store struct {
	dir  string
	log  *slog.Logger
	now  func() time.Time
	free func(dir string) (int64, error) // bytes
}

// Open opens the folder, which is made when missing, and removes what an
// earlier process left half-written.
func Open(dir string, log *slog.Logger, now func() time.Time) (*Store, error) {
	s := &Store{dir: dir, log: log, now: now, free: freeSpace}
	if err := os.MkdirAll(dir, 0o700); err != nil { // they hold the clusters' secrets
		return nil, fmt.Errorf("make folder of snapshots: %w", err)
	}
	return s, s.tidy()
}

// A snapshot is two files, ID.json and ID.db. The first one reserves the ID,
// the second completes it; without the other neither is listed. What is being
// written has a name with this prefix.
const part = ".part-"

// idForm is what IDs look like; no other text becomes a file name.
var idForm = regexp.MustCompile(`^([a-z0-9]([a-z0-9-]*[a-z0-9])?)-[0-9]{8}T[0-9]{6}Z$`)

const idTime = "20060102T150405Z"

func (s *Store) path(id, ending string) string {
	return filepath.Join(s.dir, clusterOf(id), id+ending)
}

func clusterOf(id string) string { return id[:strings.LastIndexByte(id, '-')] }

// List returns a cluster's snapshots, or all with an empty name: oldest first.
func (s *Store) List(cluster string) ([]Snapshot, error) {
	if cluster == "" {
		cluster = "*"
	}
	files, err := filepath.Glob(filepath.Join(s.dir, cluster, "*.json"))
	if err != nil {
		return nil, fmt.Errorf("list snapshots: %w", err)
	}
	var all []Snapshot
	for _, file := range files {
		one, err := s.Get(strings.TrimSuffix(filepath.Base(file), ".json"))
		if errors.Is(err, ErrNotFound) {
			continue // it is being written or removed now
		}
		if err != nil {
			return nil, err
		}
		all = append(all, one)
	}
	slices.SortFunc(all, func(a, b Snapshot) int {
		if order := a.Taken.Compare(b.Taken); order != 0 {
			return order
		}
		return strings.Compare(a.ID, b.ID)
	})
	return all, nil
}

// Get returns one snapshot, or ErrNotFound.
func (s *Store) Get(id string) (Snapshot, error) {
	missing := fmt.Errorf("snapshot %.80q: %w: see slipway cluster snapshots", id, ErrNotFound)
	if !idForm.MatchString(id) {
		return Snapshot{}, missing
	}
	text, err := os.ReadFile(s.path(id, ".json"))
	if errors.Is(err, fs.ErrNotExist) {
		return Snapshot{}, missing
	}
	if err != nil {
		return Snapshot{}, fmt.Errorf("read snapshot: %w", err)
	}
	var one Snapshot
	if err := json.Unmarshal(text, &one); err != nil {
		return Snapshot{}, fmt.Errorf("read snapshot: %s: %w", s.path(id, ".json"), err)
	}
	info, err := os.Stat(s.path(id, ".db"))
	if err != nil || info.Size() != one.Size || one.ID != id {
		return Snapshot{}, missing
	}
	return one, nil
}

// Find returns a snapshot by the SHA-256 of its file, hex, or ErrNotFound.
func (s *Store) Find(sha256 string) (Snapshot, error) {
	all, err := s.List("")
	if err != nil {
		return Snapshot{}, err
	}
	at := slices.IndexFunc(all, func(one Snapshot) bool { return one.SHA256 == sha256 })
	if at < 0 {
		return Snapshot{}, fmt.Errorf("snapshot with SHA-256 %.64q: %w", sha256, ErrNotFound)
	}
	return all[at], nil
}

// Read opens a snapshot's file, or returns ErrNotFound. The caller closes it.
func (s *Store) Read(id string) (io.ReadCloser, error) {
	if _, err := s.Get(id); err != nil {
		return nil, err
	}
	file, err := os.Open(s.path(id, ".db"))
	if err != nil {
		return nil, fmt.Errorf("read snapshot: %w", err)
	}
	return file, nil
}

// Keep reads a snapshot to its end, checks it and keeps it. It blocks as long
// as the reader does. Nothing of one that fails stays: it is ErrBad, ErrFull or
// the reader's own error.
func (s *Store) Keep(o Origin, from io.Reader) (Snapshot, error) {
	folder := filepath.Join(s.dir, o.Cluster)
	if !idForm.MatchString(o.Cluster + "-" + s.now().UTC().Format(idTime)) {
		return Snapshot{}, fmt.Errorf("keep snapshot: %.80q is not a cluster's name", o.Cluster)
	}
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return Snapshot{}, fmt.Errorf("keep snapshot: %w", s.explain(err, o.Size))
	}
	if err := s.room(o.Size); err != nil {
		return Snapshot{}, fmt.Errorf("keep snapshot: %w", err)
	}
	file := filepath.Join(folder, part+rand.Text())
	defer os.Remove(file)
	if err := s.write(file, from); err != nil {
		return Snapshot{}, fmt.Errorf("keep snapshot: %w", s.explain(err, o.Size))
	}
	contents, err := Check(file)
	if err != nil {
		return Snapshot{}, err
	}
	one := Snapshot{Cluster: o.Cluster, By: o.By, Scheduled: o.Scheduled, Contents: contents}
	if one, err = s.commit(one, file); err != nil {
		return Snapshot{}, fmt.Errorf("keep snapshot: %w", s.explain(err, o.Size))
	}
	s.log.Info("snapshot kept", "unit", unit, "cluster", one.Cluster, "snapshot", one.ID, "bytes", one.Size, "revision", one.Revision, "by", one.By)
	return one, nil
}

// commit gives a checked file its place. Its ID is the present second's, or the
// next one's that is free.
func (s *Store) commit(one Snapshot, file string) (Snapshot, error) {
	for at := s.now().UTC().Truncate(time.Second); ; at = at.Add(time.Second) {
		one.Taken, one.ID = at, one.Cluster+"-"+at.Format(idTime)
		err := s.describe(one, os.Link)
		if errors.Is(err, fs.ErrExist) {
			continue
		}
		if err == nil {
			err = os.Rename(file, s.path(one.ID, ".db"))
		}
		if err != nil {
			os.Remove(s.path(one.ID, ".json"))
			return Snapshot{}, err
		}
		return one, syncFolder(filepath.Join(s.dir, one.Cluster))
	}
}

// describe writes a snapshot's ID.json; place puts the written file there.
func (s *Store) describe(one Snapshot, place func(from, to string) error) error {
	text, err := json.MarshalIndent(one, "", "  ")
	if err != nil {
		return fmt.Errorf("describe snapshot: %w", err)
	}
	temp := filepath.Join(s.dir, one.Cluster, part+rand.Text())
	defer os.Remove(temp)
	if err := writeSynced(temp, strings.NewReader(string(text)+"\n")); err != nil {
		return err
	}
	return place(temp, s.path(one.ID, ".json"))
}

// Pin keeps a scheduled snapshot for good: a cluster is restored from it.
func (s *Store) Pin(id string) error {
	one, err := s.Get(id)
	if err != nil || !one.Scheduled {
		return err
	}
	one.Scheduled = false
	if err := s.describe(one, os.Rename); err != nil {
		return fmt.Errorf("pin snapshot %s: %w", id, err)
	}
	return nil
}

// Prune removes a cluster's scheduled snapshots, but for the newest keep.
func (s *Store) Prune(cluster string, keep int) error {
	all, err := s.List(cluster)
	if err != nil {
		return err
	}
	all = slices.DeleteFunc(all, func(one Snapshot) bool { return !one.Scheduled })
	for _, one := range all[:max(0, len(all)-keep)] {
		// The description goes last: without its file it is removed at the next start.
		if err := errors.Join(os.Remove(s.path(one.ID, ".db")), os.Remove(s.path(one.ID, ".json"))); err != nil {
			return fmt.Errorf("remove snapshot %s: %w", one.ID, err)
		}
		s.log.Info("snapshot removed, since newer ones are kept", "unit", unit, "cluster", cluster, "snapshot", one.ID, "keep", keep)
	}
	return nil
}
