package member

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/client/pkg/v3/fileutil"
	"go.etcd.io/etcd/server/v3/storage/wal"
	"go.etcd.io/etcd/server/v3/storage/wal/walpb"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	"slipway/controlplane/etcd"
	nodeproc "slipway/nodeinit/proc"
)

// store is what the machine keeps of its members:
//
//	/var/lib/etcd/2/               etcd's data directory of generation 2
//	/var/lib/etcd/2.json           whose it is, and whether it may be started again
//	/var/lib/etcd/2.leader.json    when its member last had a leader
//	/var/lib/etcd/2.corrupt-TIME/  data that could not be read; 2.removed-TIME/, data of a member that was removed
//	/var/lib/etcd/bootstrap.json   how far the machine came in beginning a generation
type store struct{ dir string }

// mark says whose data a generation's is.
type mark struct {
	Cluster string `json:"cluster"`
	Left    bool   `json:"left,omitempty"` // its member left: it is never started again
}

// record says how far a machine came in beginning a generation. It is written
// before the boot service is asked, so that a crash leaves a trace.
type record struct {
	Token      string `json:"token"`
	Generation int    `json:"generation"`
	Done       bool   `json:"done"`     // etcd has answered
	Reported   bool   `json:"reported"` // the boot service knows
}

// leaderSeen says when a member last had a leader. Its data is at least as fresh
// as that, which is what a recovery from it tells people.
type leaderSeen struct {
	At time.Time `json:"at"`
}

func (s store) data(generation int) string { return filepath.Join(s.dir, strconv.Itoa(generation)) }

func (s store) markFile(generation int) string { return s.data(generation) + ".json" }

func (s store) leaderFile(generation int) string { return s.data(generation) + ".leader.json" }

func (s store) recordFile() string { return filepath.Join(s.dir, "bootstrap.json") }

func (s store) setMark(generation int, m mark) error { return s.write(s.markFile(generation), m) }

func (s store) setRecord(r record) error { return s.write(s.recordFile(), r) }

func (s store) setLeaderSeen(generation int, at time.Time) error {
	return s.write(s.leaderFile(generation), leaderSeen{at.UTC()})
}

// leaderSeen is the zero time if nothing is known.
func (s store) leaderSeen(generation int) (time.Time, error) {
	var seen leaderSeen
	err := read(s.leaderFile(generation), &seen)
	return seen.At, err
}

// write returns when the file, and its name, are on the disk.
func (s store) write(path string, value any) error {
	text, err := json.Marshal(value)
	if err != nil {
		return err
	}
	if err := nodeproc.WriteFiles([]nodeproc.File{{Path: path, Mode: 0o600, Data: append(text, '\n')}}); err != nil {
		return err
	}
	return syncDir(s.dir)
}

func syncDir(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// read fills value from a file; one that does not exist leaves it as it is.
func read(path string, value any) error {
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := json.Unmarshal(text, value); err != nil {
		return fmt.Errorf("read %s: %w", path, err)
	}
	return nil
}

// record is the one of this token and generation; the zero one if there is none.
func (s store) record(token string, generation int) (record, error) {
	var r record
	err := read(s.recordFile(), &r)
	if r.Token != token || r.Generation != generation {
		r = record{}
	}
	return r, err
}

// look says what lies in a generation's data directory.
func (s store) look(generation int, cluster string) (etcd.Data, error) {
	var m mark
	if err := read(s.markFile(generation), &m); err != nil {
		return etcd.Data{}, err
	}
	data := readData(s.data(generation))
	switch {
	case m.Left:
		data.State = etcd.Left
	case data.State != etcd.NoData && m.Cluster != "" && m.Cluster != cluster:
		data = etcd.Data{State: etcd.Foreign, Problem: fmt.Sprintf("of %s, not of %s", m.Cluster, cluster)}
	}
	return data, nil
}

// previous is the newest readable data of an earlier generation; "" if there is
// none.
func (s store) previous(generation int, cluster string) string {
	for g := generation - 1; g > 0; g-- {
		if data, err := s.look(g, cluster); err == nil && data.State == etcd.Ours {
			return s.data(g)
		}
	}
	return ""
}

// forget removes what generations before the previous one left.
func (s store) forget(generation int) error {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return err
	}
	var errs []error
	for _, e := range entries {
		number, _, _ := strings.Cut(e.Name(), ".")
		if g, err := strconv.Atoi(number); err == nil && g < generation-1 {
			errs = append(errs, os.RemoveAll(filepath.Join(s.dir, e.Name())))
		}
	}
	return errors.Join(errs...)
}

// aside moves a generation's data out of the way, and says where it is. Of what
// was moved before only the last is kept: a disk that fails again and again must
// not fill up with it.
func (s store) aside(generation int, why string, now time.Time) (string, error) {
	before, err := filepath.Glob(s.data(generation) + ".*-*")
	if err != nil {
		return "", err
	}
	to := s.data(generation) + "." + why + "-" + now.UTC().Format("20060102T150405Z")
	if err := os.Rename(s.data(generation), to); err != nil {
		return "", fmt.Errorf("move the data aside: %w", err)
	}
	for _, dir := range before {
		err = errors.Join(err, os.RemoveAll(dir))
	}
	return to, errors.Join(err, syncDir(s.dir))
}

// readData reads etcd's log from its first record to its last: which member's
// it is, and whether all checksums are right. A torn last record is what a power
// cut leaves; etcd repairs it.
func readData(dir string) etcd.Data {
	names, err := walFiles(dir)
	if err != nil {
		return unreadable(err)
	}
	if len(names) == 0 {
		return etcd.Data{}
	}
	var readers []fileutil.FileReader
	for _, name := range names {
		f, err := os.Open(name)
		if err != nil {
			return unreadable(err)
		}
		defer f.Close()
		readers = append(readers, fileutil.NewFileReader(f))
	}
	id, err := readLog(wal.NewDecoder(readers...))
	if err == nil {
		err = checkDatabase(filepath.Join(dir, "member", "snap", "db"))
	}
	if err != nil {
		return unreadable(err)
	}
	return etcd.Data{State: etcd.Ours, MemberID: id.GetNodeID(), ClusterID: id.GetClusterID()}
}

func unreadable(err error) etcd.Data { return etcd.Data{State: etcd.Unreadable, Problem: err.Error()} }

// walFiles are the files of etcd's log in order; none before etcd has made its
// member.
func walFiles(dir string) ([]string, error) {
	names, err := filepath.Glob(filepath.Join(dir, "member", "wal", "*.wal"))
	slices.Sort(names)
	return names, err
}

func readLog(decoder wal.Decoder) (*etcdserverpb.Metadata, error) {
	id := &etcdserverpb.Metadata{}
	for {
		var r walpb.Record
		err := decoder.Decode(&r)
		switch {
		case errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF):
			if id.GetNodeID() == 0 {
				return nil, errors.New("etcd's log has no beginning")
			}
			return id, nil
		case err != nil:
			return nil, fmt.Errorf("etcd's log is damaged at byte %d of a file: %w", decoder.LastOffset(), err)
		}
		switch r.GetType() {
		case wal.MetadataType:
			if err := proto.Unmarshal(r.Data, id); err != nil {
				return nil, fmt.Errorf("etcd's log is damaged at its beginning: %w", err)
			}
		case wal.CrcType:
			if crc := decoder.LastCRC(); crc != 0 && r.Validate(crc) != nil {
				return nil, fmt.Errorf("etcd's log is damaged: %w", wal.ErrCRCMismatch)
			}
			decoder.UpdateCRC(r.GetCrc())
		}
	}
}

// checkDatabase looks for bbolt's mark in its first two pages: one of them is
// whole at any time.
func checkDatabase(path string) error {
	const magic, page, at = "\xed\xda\x0c\xed", 4096, 16
	head := make([]byte, 2*page)
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("etcd's database: %w", err)
	}
	defer f.Close()
	n, err := io.ReadFull(f, head)
	if err != nil && n < page {
		return fmt.Errorf("etcd's database is cut short: %w", err)
	}
	for _, start := range []int{0, page} {
		if string(head[start+at:start+at+4]) == magic {
			return nil
		}
	}
	return errors.New("etcd's database does not begin like one")
}

// inUse says whether an etcd runs on the data: it locks its newest log file
// (an open file description lock, fcntl(2)).
func inUse(dir string) (bool, error) {
	names, err := walFiles(dir)
	if err != nil || len(names) == 0 {
		return false, err
	}
	f, err := os.Open(names[len(names)-1])
	if err != nil {
		return false, err
	}
	defer f.Close()
	lock := unix.Flock_t{Type: unix.F_WRLCK}
	if err := unix.FcntlFlock(f.Fd(), unix.F_OFD_GETLK, &lock); err != nil {
		return false, fmt.Errorf("ask for the lock of %s: %w", f.Name(), err)
	}
	return lock.Type != unix.F_UNLCK, nil
}
