package snapshot

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"time"

	bolt "go.etcd.io/bbolt"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/protobuf/proto"
)

// ErrBad says that a file is not a whole snapshot of etcd.
var ErrBad = errors.New("not a whole snapshot of etcd")

// identityKey is where a cluster of ours says in its etcd which one it is.
const identityKey = "/slipway/cluster"

// The form of etcd's database (server/storage/mvcc/revision.go): bucket "key"
// maps a revision, 8 bytes, a '_' and 8 bytes, to a KeyValue; a tombstone's
// revision has one byte more. Bucket "meta" tells how far it was compacted.
const (
	revisionSize = 8 + 1 + 8
	pageSize     = 512 // every size of pages is a multiple of it
)

// Identity says which cluster a snapshot is of. It is empty in the snapshot of
// an etcd that is none of ours.
type Identity struct {
	Name string `json:"name"`
	ID   string `json:"id"` // hex SHA-256 of the etcd CA's first certificate
}

// Contents is what a check found in a snapshot.
type Contents struct {
	Size     int64    `json:"size"`     // bytes
	SHA256   string   `json:"sha256"`   // hex, of the whole file
	Revision int64    `json:"revision"` // of etcd, the highest
	Of       Identity `json:"of"`
}

// Check reads the whole file and says what it holds. Its last 32 bytes must be
// the SHA-256 of all before them, as etcd writes it, and all of its keys must
// be readable. A file that fails is ErrBad. It blocks for as long as the disk
// takes to read the file twice.
func Check(path string) (Contents, error) {
	c := Contents{}
	var err error
	if c.Size, c.SHA256, err = checkHash(path); err != nil {
		return Contents{}, err
	}
	if err := c.readDatabase(path); err != nil {
		return Contents{}, err
	}
	return c, nil
}

// checkHash returns the file's size and SHA-256, if the hash in it is right.
func checkHash(path string) (size int64, sum string, err error) {
	file, err := os.Open(path)
	if err != nil {
		return 0, "", fmt.Errorf("check snapshot: %w", err)
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return 0, "", fmt.Errorf("check snapshot: %w", err)
	}
	size = info.Size()
	switch {
	case size > MaxSize:
		return 0, "", fmt.Errorf("check snapshot: %w: %s is more than any etcd holds, %s", ErrBad, gigabytes(size), gigabytes(MaxSize))
	case size > sha256.Size && size%pageSize == 0:
		return 0, "", fmt.Errorf("check snapshot: %w: no hash stands at its end, so it may be a copy of etcd's own file; take one with slipway cluster snapshot or etcdctl snapshot save", ErrBad)
	case size <= pageSize || size%pageSize != sha256.Size:
		return 0, "", fmt.Errorf("check snapshot: %w: %d bytes are no database and its hash, so it is cut off or something else", ErrBad, size)
	}
	hash, end := sha256.New(), make([]byte, sha256.Size)
	if _, err := io.CopyN(hash, file, size-sha256.Size); err != nil {
		return 0, "", fmt.Errorf("check snapshot: %w", err)
	}
	if _, err := io.ReadFull(file, end); err != nil {
		return 0, "", fmt.Errorf("check snapshot: %w", err)
	}
	if !bytes.Equal(hash.Sum(nil), end) {
		return 0, "", fmt.Errorf("check snapshot: %w: its hash does not match, so it is damaged", ErrBad)
	}
	hash.Write(end)
	return size, hex.EncodeToString(hash.Sum(nil)), nil
}

// readDatabase walks over all keys. A database that is broken though its hash
// is right makes bbolt panic or read beyond the file: both become errors here.
func (c *Contents) readDatabase(path string) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if broken := recover(); broken != nil {
			err = fmt.Errorf("check snapshot: %w: its database is broken: %v", ErrBad, broken)
		}
	}()
	db, err := bolt.Open(path, 0, &bolt.Options{ReadOnly: true, Timeout: time.Second})
	if err != nil {
		return fmt.Errorf("check snapshot: %w: %w", ErrBad, err)
	}
	defer db.Close()
	return db.View(func(tx *bolt.Tx) error {
		keys := tx.Bucket([]byte("key"))
		if keys == nil {
			return fmt.Errorf("check snapshot: %w: a database, but none of etcd", ErrBad)
		}
		if err := c.readKeys(keys); err != nil {
			return err
		}
		if meta := tx.Bucket([]byte("meta")); meta != nil {
			c.Revision = max(c.Revision, revisionOf(meta.Get([]byte("finishedCompactRev"))), revisionOf(meta.Get([]byte("scheduledCompactRev"))))
		}
		return nil
	})
}

// readKeys finds the highest revision, and the cluster's identity as it was
// written last.
func (c *Contents) readKeys(keys *bolt.Bucket) error {
	// Field 1 of a KeyValue is the key, and it comes first: most need no decoding.
	start := append([]byte{1<<3 | 2, byte(len(identityKey))}, identityKey...)
	return keys.ForEach(func(revision, value []byte) error {
		if len(revision) < revisionSize {
			return fmt.Errorf("check snapshot: %w: a key's revision has %d bytes", ErrBad, len(revision))
		}
		c.Revision = max(c.Revision, revisionOf(revision))
		if !bytes.HasPrefix(value, start) {
			return nil
		}
		c.Of = Identity{} // in case this one is a tombstone
		var kv mvccpb.KeyValue
		if len(revision) > revisionSize {
			return nil
		}
		if err := proto.Unmarshal(value, &kv); err != nil {
			return fmt.Errorf("check snapshot: %w: key %s: %w", ErrBad, identityKey, err)
		}
		if err := json.Unmarshal(kv.GetValue(), &c.Of); err != nil {
			return fmt.Errorf("check snapshot: %w: key %s: %w", ErrBad, identityKey, err)
		}
		return nil
	})
}

func revisionOf(text []byte) int64 {
	if len(text) < 8 {
		return 0
	}
	return int64(binary.BigEndian.Uint64(text))
}
