package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// maxAttempts is how often a transaction is tried. Each conflict means that
// some other writer went forward.
const maxAttempts = 100

// ErrContended says that others changed the same keys, over and over.
var ErrContended = errors.New("too many conflicting writers")

// Tx is a transaction that is being composed. It reads from the store as it
// was at the first read of each key and writes nothing until it commits.
type Tx struct {
	ctx    context.Context
	store  *Store
	reads  map[string]read
	writes map[string][]byte // nil: delete
}

// read is what a transaction saw: it holds only while the key is still at that
// revision. Revision 0 is a key that does not exist.
type read struct {
	value    []byte
	revision int64
}

// Atomically runs change and commits what it wrote if nothing that it read has
// changed meanwhile; otherwise it runs change again. change must therefore
// have no other effects. An error from change commits nothing.
func (s *Store) Atomically(ctx context.Context, change func(*Tx) error) error {
	for range maxAttempts {
		tx := &Tx{ctx: ctx, store: s, reads: map[string]read{}, writes: map[string][]byte{}}
		if err := change(tx); err != nil {
			return err
		}
		done, err := tx.commit()
		if done || err != nil {
			return err
		}
	}
	return ErrContended
}

// commit reports whether the transaction took effect.
func (tx *Tx) commit() (bool, error) {
	var guards []clientv3.Cmp
	var puts []clientv3.Op
	for key, value := range tx.writes {
		switch {
		case value == nil:
			puts = append(puts, clientv3.OpDelete(key))
		default:
			puts = append(puts, clientv3.OpPut(key, string(value)))
		}
	}
	if len(puts) == 0 {
		return true, nil
	}
	for key, seen := range tx.reads {
		guards = append(guards, clientv3.Compare(clientv3.ModRevision(key), "=", seen.revision))
	}
	answer, err := tx.store.client.Txn(tx.ctx).If(guards...).Then(puts...).Commit()
	if err != nil {
		return false, fmt.Errorf("write to the store: %w", err)
	}
	return answer.Succeeded, nil
}

// get reads a key, or what this transaction has written to it. A missing key
// is nil.
func (tx *Tx) get(key string) ([]byte, error) {
	if value, ok := tx.writes[key]; ok {
		return value, nil
	}
	if seen, ok := tx.reads[key]; ok {
		return seen.value, nil
	}
	answer, err := tx.store.client.Get(tx.ctx, key)
	if err != nil {
		return nil, fmt.Errorf("read from the store: %w", err)
	}
	var seen read
	for _, kv := range answer.Kvs {
		seen = read{value: kv.Value, revision: kv.ModRevision}
	}
	tx.reads[key] = seen
	return seen.value, nil
}

// put writes a key unless it already holds the value.
func (tx *Tx) put(key string, value []byte) {
	if seen, ok := tx.reads[key]; ok && seen.revision > 0 && bytes.Equal(seen.value, value) {
		delete(tx.writes, key)
		return
	}
	tx.writes[key] = value
}
