package authority

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"sync/atomic"
	"time"

	"slipway/bootsvc/store"
)

// ID is the one document's.
const ID = "ca"

// again is the pause before a store that does not answer is asked again.
const again = 5 * time.Second

// Keeper has the CA as it is now. Its methods may be called concurrently.
type Keeper struct {
	table store.Table[Record]
	view  atomic.Pointer[View]
}

// Open reads the CA from the store, or makes it on the first start of all.
func Open(ctx context.Context, s *store.Store, now func() time.Time) (*Keeper, error) {
	fresh, err := newRecord(now())
	if err != nil {
		return nil, err
	}
	k := &Keeper{table: store.SealedTable[Record](s, "boot-ca")}
	r, err := k.table.Update(ctx, ID, func(kept *Record) error {
		if len(kept.CertPEM) == 0 {
			*kept = fresh
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read the boot service's CA: %w", err)
	}
	v, err := NewView(r)
	k.view.Store(v)
	return k, err
}

// View is the CA as it is now.
func (k *Keeper) View() *View { return k.view.Load() }

// Table is where the CA is kept.
func (k *Keeper) Table() store.Table[Record] { return k.table }

// Run follows the store until ctx ends. It calls changed after each change of
// the view, until that returns no error: with what others have to know of it.
func (k *Keeper) Run(ctx context.Context, log *slog.Logger, changed func(*View) error) error {
	told := k.View()
	for ctx.Err() == nil {
		err := k.table.WaitFor(ctx, func() (bool, error) {
			err := k.look(ctx)
			if v := k.View(); err == nil && v != told {
				log.Info("rotation of the boot service's CA", "unit", "ca", "phase", v.phase())
				if err = changed(v); err == nil {
					told = v
				}
			}
			return false, err
		})
		if ctx.Err() != nil {
			break
		}
		log.Warn("the boot service's CA is not followed", "unit", "ca", "error", err, "again", again.String())
		select {
		case <-time.After(again):
		case <-ctx.Done():
		}
	}
	return nil
}

// look takes over what is stored.
func (k *Keeper) look(ctx context.Context) error {
	r, err := k.table.Get(ctx, ID)
	if err != nil || reflect.DeepEqual(r, k.View().Record) {
		return err
	}
	v, err := NewView(r)
	if err == nil {
		k.view.Store(v)
	}
	return err
}

// phase is that of the rotation, in a word for people.
func (r Record) phase() string {
	if r.Rotation == nil {
		return "done"
	}
	return string(r.Rotation.Phase)
}

// Change changes the record in the store; the views follow. Errors of change
// commit nothing.
func (k *Keeper) Change(ctx context.Context, change func(Record) (Record, error)) (Record, error) {
	return k.table.Update(ctx, ID, func(kept *Record) (err error) {
		*kept, err = change(*kept)
		return err
	})
}

// Turn moves the rotation on if it can be: at is what the holders were looked
// at with. It says whether the record has changed.
func (k *Keeper) Turn(ctx context.Context, at Record, holders []Holder, now time.Time) (bool, error) {
	errStale := errors.New("the record has changed since")
	moved := false
	_, err := k.Change(ctx, func(kept Record) (Record, error) {
		if !reflect.DeepEqual(kept, at) {
			return kept, errStale // whoever was faster has looked too
		}
		next, err := kept.Advance(holders, now)
		moved = err == nil && !reflect.DeepEqual(next, kept)
		return next, err
	})
	if errors.Is(err, errStale) {
		return false, nil
	}
	return moved, err
}
