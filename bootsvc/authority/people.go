package authority

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"slipway/bootsvc/store"
)

// Credential is a person's certificate as it was used last.
type Credential struct {
	Key    string    `json:"key"` // hex SHA-256 of the public key
	Name   string    `json:"name"`
	Roles  []string  `json:"roles"`
	Until  time.Time `json:"until"` // the certificate's end
	Trusts string    `json:"trusts,omitempty"`
	Used   time.Time `json:"used"` // within usedWithin
}

// usedWithin is how exactly it is known when credentials were used: they are
// written down so often at most.
const usedWithin = time.Hour

// People are who has used credentials of the boot service that are good still.
type People struct {
	table store.Table[Credential]

	mu    sync.Mutex
	noted map[string]Credential // by key
}

// NewPeople opens the list of a store.
func NewPeople(s *store.Store) *People {
	return &People{table: store.NewTable[Credential](s, "people"), noted: map[string]Credential{}}
}

// Seen notes that credentials were used. It writes only what is new.
func (p *People) Seen(ctx context.Context, c Credential) error {
	p.mu.Lock()
	last, known := p.noted[c.Key]
	p.mu.Unlock()
	if known && last.Trusts == c.Trusts && last.Until.Equal(c.Until) && c.Used.Sub(last.Used) < usedWithin {
		return nil
	}
	if err := p.table.Put(ctx, c.Key, c); err != nil {
		return fmt.Errorf("note who used the API: %w", err)
	}
	p.mu.Lock()
	p.noted[c.Key] = c
	p.mu.Unlock()
	return nil
}

// Renewed notes that credentials, if they were ever used, are of these CAs now.
func (p *People) Renewed(ctx context.Context, key, trusts string) error {
	all, err := p.table.List(ctx)
	if err != nil {
		return err
	}
	for _, c := range all {
		if c.Key != key {
			continue
		}
		c.Trusts = trusts
		return p.Seen(ctx, c)
	}
	return nil
}

// Holders are the people whose credentials are good still; it forgets others.
func (p *People) Holders(ctx context.Context, now time.Time) ([]Holder, error) {
	all, err := p.table.List(ctx)
	if err != nil {
		return nil, err
	}
	var holders []Holder
	for _, c := range all {
		if !now.Before(c.Until) {
			if err := p.table.Delete(ctx, c.Key); err != nil {
				return nil, err
			}
			continue
		}
		holders = append(holders, c.holder())
	}
	return holders, nil
}

func (c Credential) holder() Holder {
	var roles []string
	for _, r := range c.Roles {
		roles = append(roles, strings.TrimPrefix(r, "slipway:"))
	}
	return Holder{
		Name: fmt.Sprintf("%s (%s)", c.Name, strings.Join(roles, ", ")), Trusts: c.Trusts, Person: true,
		Missing: fmt.Sprintf("any command with this context (key %.8s), last used %s", c.Key, c.Used.UTC().Format("2006-01-02 15:04 MST")),
		After:   "the context is refused; a new one has to be given to its owner",
	}
}
