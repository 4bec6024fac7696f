package snapshot

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
	"go.uber.org/zap"
)

var noon = time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)

// clock is a time that tests move.
type clock struct{ time.Time }

func (c *clock) now() time.Time { return c.Time }

func openStore(t *testing.T, dir string) (*Store, *clock) {
	t.Helper()
	c := &clock{noon}
	s, err := Open(dir, slog.New(slog.NewTextHandler(t.Output(), nil)), c.now)
	if err != nil {
		t.Fatal(err)
	}
	s.free = func(string) (int64, error) { return 1 << 40, nil }
	return s, c
}

// etcd runs an etcd on a socket.
func etcd(t *testing.T) *clientv3.Client {
	t.Helper()
	dir, err := os.MkdirTemp("", "etcd") // sockets have short names
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	at := url.URL{Scheme: "unix", Path: filepath.Join(dir, "client")}
	config := embed.NewConfig()
	config.Dir = filepath.Join(dir, "data")
	config.ListenPeerUrls = nil
	config.ListenClientUrls, config.AdvertiseClientUrls = []url.URL{at}, []url.URL{at}
	config.TickMs, config.ElectionMs = 10, 50
	config.ZapLoggerBuilder = embed.NewZapLoggerBuilder(zap.NewNop())
	member, err := embed.StartEtcd(config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(member.Close)
	<-member.Server.ReadyNotify()
	client, err := clientv3.New(clientv3.Config{Endpoints: []string{at.String()}, Logger: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	return client
}

func save(t *testing.T, client *clientv3.Client) []byte {
	t.Helper()
	stream, err := client.Snapshot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()
	data, err := io.ReadAll(stream)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// genuine returns a snapshot of a real etcd whose identity was written twice,
// and the revision that etcd was at.
func genuine(t *testing.T) (data []byte, revision int64) {
	t.Helper()
	client := etcd(t)
	put := func(key, value string) {
		answer, err := client.Put(t.Context(), key, value)
		if err != nil {
			t.Fatal(err)
		}
		revision = answer.Header.GetRevision()
	}
	put(identityKey, `{"name":"old","id":"00"}`)
	put(identityKey, `{"name":"prod","id":"ab12"}`)
	for n := range 500 {
		put(fmt.Sprintf("/registry/%d", n%50), strings.Repeat("x", n))
	}
	put(identityKey+"s", `{"name":"another key","id":"ff"}`)
	return save(t, client), revision
}

func file(t *testing.T, data []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "snapshot.db")
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// sealed ends data with its hash, as etcd does.
func sealed(data []byte) []byte {
	sum := sha256.Sum256(data)
	return append(slices.Clone(data), sum[:]...)
}

func TestWhatASnapshotHolds(t *testing.T) {
	data, revision := genuine(t)
	got, err := Check(file(t, data))
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(data)
	want := Contents{Size: int64(len(data)), SHA256: hex.EncodeToString(sum[:]), Revision: revision, Of: Identity{"prod", "ab12"}}
	if got != want {
		t.Errorf("it holds %+v, want %+v", got, want)
	}
}

func TestSnapshotsOfOddClusters(t *testing.T) {
	client := etcd(t)
	if got, err := Check(file(t, save(t, client))); err != nil || got.Of != (Identity{}) {
		t.Errorf("an empty etcd: %+v, %v", got, err)
	}
	if _, err := client.Put(t.Context(), identityKey, `{"name":"prod","id":"ab12"}`); err != nil {
		t.Fatal(err)
	}
	gone, err := client.Delete(t.Context(), identityKey)
	if err != nil {
		t.Fatal(err)
	}
	revision := gone.Header.GetRevision()
	if got, err := Check(file(t, save(t, client))); err != nil || got.Of != (Identity{}) || got.Revision != revision {
		t.Errorf("without its identity: %+v, %v", got, err)
	}
	if _, err := client.Compact(t.Context(), revision, clientv3.WithCompactPhysical()); err != nil {
		t.Fatal(err)
	}
	if got, err := Check(file(t, save(t, client))); err != nil || got.Revision != revision {
		t.Errorf("all compacted: %+v, %v; want revision %d", got, err, revision)
	}
	if _, err := client.Put(t.Context(), identityKey, `no JSON`); err != nil {
		t.Fatal(err)
	}
	if _, err := Check(file(t, save(t, client))); !errors.Is(err, ErrBad) {
		t.Errorf("an identity that cannot be read: %v", err)
	}
}

func TestBadSnapshotsAreNotKept(t *testing.T) {
	data, _ := genuine(t)
	flipped := slices.Clone(data)
	flipped[len(data)/2] ^= 4
	database := data[:len(data)-sha256.Size]
	for name, test := range map[string]struct {
		data []byte
		want string
	}{
		"nothing":                     {nil, "cut off"},
		"cut off":                     {data[:len(data)-4096-7], "cut off"},
		"cut off between pages":       {data[:len(data)-4096], "does not match"},
		"a flipped bit":               {flipped, "damaged"},
		"etcd's own file":             {database, "no hash"},
		"not a snapshot":              {[]byte("apiVersion: v1\n"), "something else"},
		"not a snapshot, but sealed":  {sealed(bytes.Repeat([]byte("not etcd"), 1024)), "invalid database"},
		"another database":            {sealed(otherDatabase(t)), "none of etcd"},
		"a sealed half of a database": {sealed(database[:len(database)/8192*4096]), ""},
		"sealed rubbish in the pages": {sealed(scribbled(database)), ""},
	} {
		t.Run(name, func(t *testing.T) {
			s, _ := openStore(t, t.TempDir())
			_, err := s.Keep(Origin{Cluster: "prod", By: "upload"}, bytes.NewReader(test.data))
			if !errors.Is(err, ErrBad) || !strings.Contains(err.Error(), test.want) {
				t.Errorf("%v; want ErrBad with %q", err, test.want)
			}
			empty(t, s)
		})
	}
}

func otherDatabase(t *testing.T) []byte {
	t.Helper()
	path := filepath.Join(t.TempDir(), "other.db")
	db, err := bolt.Open(path, 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	db.Close()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// scribbled leaves the first pages of a database and ruins the others.
func scribbled(database []byte) []byte {
	database = slices.Clone(database)
	for i := 3 * 4096; i < len(database); i++ {
		database[i] = byte(i * 7)
	}
	return database
}

// empty wants no file below the store's folder.
func empty(t *testing.T, s *Store) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(s.dir, "*", "*"))
	if err != nil || len(files) > 0 {
		t.Errorf("left behind: %v, %v", files, err)
	}
}

func keep(t *testing.T, s *Store, o Origin, data []byte) Snapshot {
	t.Helper()
	one, err := s.Keep(o, bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	return one
}

func ids(t *testing.T, s *Store, cluster string) string {
	t.Helper()
	all, err := s.List(cluster)
	if err != nil {
		t.Fatal(err)
	}
	var text []string
	for _, one := range all {
		text = append(text, one.ID)
	}
	return strings.Join(text, " ")
}

func TestKeptSnapshotsAreFound(t *testing.T) {
	data, revision := genuine(t)
	dir := t.TempDir()
	s, _ := openStore(t, dir)
	first := keep(t, s, Origin{Cluster: "prod", By: "ann"}, data)
	keep(t, s, Origin{Cluster: "prod", By: "schedule", Scheduled: true}, data) // in the same second
	keep(t, s, Origin{Cluster: "prod-2", By: "upload"}, data)
	s, _ = openStore(t, dir)
	if got := ids(t, s, "prod"); got != "prod-20260601T120000Z prod-20260601T120001Z" {
		t.Errorf("prod has %s", got)
	}
	if got := ids(t, s, ""); got != "prod-2-20260601T120000Z prod-20260601T120000Z prod-20260601T120001Z" {
		t.Errorf("all are %s", got)
	}
	got, err := s.Get(first.ID)
	if err != nil || got != first || got.Revision != revision || got.By != "ann" {
		t.Errorf("%+v, %v; want %+v", got, err, first)
	}
	if found, err := s.Find(first.SHA256); err != nil || found.SHA256 != first.SHA256 {
		t.Errorf("by its hash: %+v, %v", found, err)
	}
	from, err := s.Read(first.ID)
	if err != nil {
		t.Fatal(err)
	}
	defer from.Close()
	if again, err := io.ReadAll(from); err != nil || !bytes.Equal(again, data) {
		t.Errorf("what was kept reads otherwise: %v", err)
	}
	for _, id := range []string{"prod-20260601T120009Z", "", "../../etc/passwd", "prod-x", "../prod-20260601T120000Z"} {
		if _, err := s.Read(id); !errors.Is(err, ErrNotFound) {
			t.Errorf("%q: %v", id, err)
		}
	}
	if _, err := s.Keep(Origin{Cluster: "../prod"}, bytes.NewReader(data)); err == nil {
		t.Error("a cluster's name left the folder")
	}
}

func TestRetention(t *testing.T) {
	data, _ := genuine(t)
	s, c := openStore(t, t.TempDir())
	at := func(minute int, o Origin) string {
		c.Time = noon.Add(time.Duration(minute) * time.Minute)
		return keep(t, s, o, data).ID
	}
	scheduled := Origin{Cluster: "prod", By: "schedule", Scheduled: true}
	manual := at(0, Origin{Cluster: "prod", By: "ann"})
	pinned := at(1, scheduled)
	at(2, scheduled)
	uploaded := at(3, Origin{Cluster: "prod", By: "upload"})
	fourth, fifth := at(4, scheduled), at(5, scheduled)
	other := at(6, Origin{Cluster: "test", By: "schedule", Scheduled: true})
	if err := s.Pin(pinned); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := s.Prune("prod", 2); err != nil {
			t.Fatal(err)
		}
	}
	if got, want := ids(t, s, ""), strings.Join([]string{manual, pinned, uploaded, fourth, fifth, other}, " "); got != want {
		t.Errorf("kept are %s, want %s", got, want)
	}
}

// TestHalfWrittenSnapshots has files as a process leaves them that ended at any
// step: none is listed, and all but a stranger's are gone after the next start.
func TestHalfWrittenSnapshots(t *testing.T) {
	data, _ := genuine(t)
	dir := t.TempDir()
	s, c := openStore(t, dir)
	whole := keep(t, s, Origin{Cluster: "prod", By: "ann"}, data)
	c.Time = noon.Add(time.Minute)
	half := keep(t, s, Origin{Cluster: "prod", By: "ann"}, data)
	c.Time = noon.Add(time.Hour)
	short := keep(t, s, Origin{Cluster: "prod", By: "ann"}, data)
	folder := filepath.Join(dir, "prod")
	for name, text := range map[string]string{part + "ABC": "half of a database", "stranger.db": "somebody's", short.ID + ".db": "short"} {
		if err := os.WriteFile(filepath.Join(folder, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Remove(filepath.Join(folder, half.ID+".db")); err != nil {
		t.Fatal(err)
	}
	if got := ids(t, s, "prod"); got != whole.ID {
		t.Errorf("before the restart: %s", got)
	}
	var log bytes.Buffer
	s, err := Open(dir, slog.New(slog.NewTextHandler(&log, nil)), c.now)
	if err != nil {
		t.Fatal(err)
	}
	if got := ids(t, s, "prod"); got != whole.ID {
		t.Errorf("after the restart: %s", got)
	}
	for name, stays := range map[string]bool{part + "ABC": false, half.ID + ".json": false, "stranger.db": true, whole.ID + ".db": true} {
		if missing(filepath.Join(folder, name)) == stays {
			t.Errorf("%s stays: %v", name, !stays)
		}
	}
	for _, want := range []string{"half-written", half.ID, "stranger.db"} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("%q is not in the log:\n%s", want, &log)
		}
	}
}

func TestAFullDisk(t *testing.T) {
	data, _ := genuine(t)
	s, _ := openStore(t, t.TempDir())
	kept := keep(t, s, Origin{Cluster: "prod", By: "ann"}, data)
	var looks int
	s.free = func(string) (int64, error) {
		looks++
		return 300<<20 - int64(looks)*20<<20, nil // somebody else fills it meanwhile
	}
	_, err := s.Keep(Origin{Cluster: "prod", By: "ann", Size: 1 << 30}, bytes.NewReader(data))
	if !errors.Is(err, ErrFull) || looks != 1 {
		t.Errorf("known before: %v after %d looks", err, looks)
	}
	for _, want := range []string{"280.0 MiB free", "needs 1.2 GiB", "snapshots that are kept (1) were not touched", "make room"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not in %v", want, err)
		}
	}
	long := bytes.NewReader(make([]byte, 3*step))
	if _, err := s.Keep(Origin{Cluster: "prod", By: "upload"}, long); !errors.Is(err, ErrFull) {
		t.Errorf("noticed on the way: %v", err)
	}
	if got := ids(t, s, ""); got != kept.ID {
		t.Errorf("kept are %s", got)
	}
}

func TestASourceThatFails(t *testing.T) {
	s, _ := openStore(t, t.TempDir())
	gone := errors.New("connection lost")
	_, err := s.Keep(Origin{Cluster: "prod"}, io.MultiReader(strings.NewReader("begin"), failing{gone}))
	if !errors.Is(err, gone) {
		t.Errorf("%v, want %v", err, gone)
	}
	empty(t, s)
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }
