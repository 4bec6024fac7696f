package store

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// Table is a set of documents of one type, each under an id without a slash.
type Table[T any] struct {
	store  *Store
	prefix string
	sealed bool
}

// NewTable names a table. It creates nothing.
func NewTable[T any](s *Store, name string) Table[T] {
	return Table[T]{store: s, prefix: root + name + "/"}
}

// SealedTable names a table whose documents are encrypted at rest.
func SealedTable[T any](s *Store, name string) Table[T] {
	return Table[T]{store: s, prefix: root + name + "/", sealed: true}
}

// Load reads a document in a transaction; a missing one is ErrNotFound.
func (t Table[T]) Load(tx *Tx, id string) (T, error) {
	value, err := tx.get(t.prefix + id)
	if err != nil {
		return *new(T), err
	}
	return t.decode(t.prefix+id, value)
}

// Save writes a document in a transaction. Writing what is there already
// writes nothing.
func (t Table[T]) Save(tx *Tx, id string, document T) error {
	key := t.prefix + id
	value, err := json.Marshal(document)
	if err != nil {
		return fmt.Errorf("encode %s: %w", key, err)
	}
	if t.sealed {
		old, err := tx.get(key)
		if err != nil {
			return err
		}
		if plain, err := t.store.decrypt(key, old); err == nil && bytes.Equal(plain, value) {
			return nil
		}
		value = t.store.encrypt(key, value)
	}
	tx.put(key, value)
	return nil
}

// Drop removes a document in a transaction, if it is there.
func (t Table[T]) Drop(tx *Tx, id string) { tx.writes[t.prefix+id] = nil }

// Get reads a document; a missing one is ErrNotFound.
func (t Table[T]) Get(ctx context.Context, id string) (T, error) {
	var document T
	err := t.store.Atomically(ctx, func(tx *Tx) (err error) {
		document, err = t.Load(tx, id)
		return err
	})
	return document, err
}

// Update changes one document: change gets the present one, or the zero value
// when there is none, and may run several times. It returns what is stored now.
func (t Table[T]) Update(ctx context.Context, id string, change func(*T) error) (T, error) {
	var document T
	err := t.store.Atomically(ctx, func(tx *Tx) (err error) {
		document, err = t.Load(tx, id)
		if err != nil && !errors.Is(err, ErrNotFound) {
			return err
		}
		if err := change(&document); err != nil {
			return err
		}
		return t.Save(tx, id, document)
	})
	return document, err
}

// Put writes a document over whatever is there.
func (t Table[T]) Put(ctx context.Context, id string, document T) error {
	return t.store.Atomically(ctx, func(tx *Tx) error { return t.Save(tx, id, document) })
}

// Delete removes a document, if it is there.
func (t Table[T]) Delete(ctx context.Context, id string) error {
	return t.store.Atomically(ctx, func(tx *Tx) error {
		t.Drop(tx, id)
		return nil
	})
}

// List reads the whole table, in the order of its ids.
func (t Table[T]) List(ctx context.Context) ([]T, error) {
	answer, err := t.store.client.Get(ctx, t.prefix, clientv3.WithPrefix())
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", t.prefix, err)
	}
	documents := make([]T, 0, len(answer.Kvs))
	for _, kv := range answer.Kvs {
		document, err := t.decode(string(kv.Key), kv.Value)
		if err != nil {
			return nil, err
		}
		documents = append(documents, document)
	}
	return documents, nil
}

// Count returns how many documents the table has.
func (t Table[T]) Count(ctx context.Context) (int64, error) {
	answer, err := t.store.client.Get(ctx, t.prefix, clientv3.WithPrefix(), clientv3.WithCountOnly())
	if err != nil {
		return 0, fmt.Errorf("count %s: %w", t.prefix, err)
	}
	return answer.Count, nil
}

// WaitFor blocks until check says done or fails, or ctx ends. It calls check
// at once and again whenever any document of the table has changed.
func (t Table[T]) WaitFor(ctx context.Context, check func() (done bool, err error)) error {
	return t.store.WaitFor(ctx, func(string) bool { return true }, check, t)
}

func (t Table[T]) watched() string { return t.prefix }

func (t Table[T]) decode(key string, value []byte) (T, error) {
	var document T
	if value == nil {
		return document, fmt.Errorf("%s: %w", key, ErrNotFound)
	}
	if t.sealed {
		plain, err := t.store.decrypt(key, value)
		if err != nil {
			return document, err
		}
		value = plain
	}
	if err := json.Unmarshal(value, &document); err != nil {
		return document, fmt.Errorf("decode %s: %w", key, err)
	}
	return document, nil
}
