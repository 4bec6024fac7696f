package assign

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"slipway/bootsvc/inventory"
	"slipway/configs/machine"
)

// members are machines by name, each with the key that stands behind the colon.
func members(text string) (all []inventory.Machine) {
	for _, one := range strings.Fields(text) {
		name, key, _ := strings.Cut(one, ":")
		key, healthy := strings.CutSuffix(key, "+")
		m := inventory.Machine{ID: name, Hostname: name}
		m.Enrolment.Approved.Hash = key
		if healthy {
			m.Etcd = inventory.EtcdState{Generation: 1, Voter: true, Healthy: true}
		}
		all = append(all, m)
	}
	return all
}

func TestWhoStartsEtcd(t *testing.T) {
	granted := Grant{Machine: "a", KeyHash: "1", Token: "T", Redeemed: true, Done: true}
	restoring := Grant{Machine: "a", KeyHash: "1", Token: "T", Snapshot: "S"}
	restored := Grant{Machine: "a", KeyHash: "1", Token: "T", Snapshot: "S", Redeemed: true, Done: true}
	recovering := Grant{Machine: "a", KeyHash: "1", Token: "T", Recover: true}
	alone := map[string]string{"a": "1"}
	three := map[string]string{"a": "1", "b": "1", "c": "1"}
	for name, test := range map[string]struct {
		etcd    Etcd
		members string
		want    string // generation, machine, key; the same token: =; the snapshot
	}{
		"nobody yet":                         {Etcd{}, "a:1 b:1 c:1", "1 a 1"},
		"the first one's key comes later":    {Etcd{Generation: 1, Grant: Grant{Machine: "a", Token: "T"}}, "a:1 b:1", "1 a 1 ="},
		"granted":                            {Etcd{Generation: 1, Grant: granted}, "a:1 b:1", "1 a 1 ="},
		"alone in RAM, started again":        {Etcd{Generation: 1, Grant: granted, Voters: alone}, "a:2", "2 a 2"},
		"of three, before another joined":    {Etcd{Generation: 1, Grant: granted, Voters: alone}, "a:2 b:1 c:1", "2 a 2"},
		"of three, after another joined":     {Etcd{Generation: 1, Grant: granted, Voters: three, Grown: true}, "a:2 b:1 c:1", "1 a 1 ="},
		"another one was started again":      {Etcd{Generation: 1, Grant: granted, Voters: three, Grown: true}, "a:1 b:2 c:1", "1 a 1 ="},
		"all were started again":             {Etcd{Generation: 1, Grant: granted, Voters: three, Grown: true}, "a:2 b:2 c:2", "1 a 1 ="},
		"replaced before it began":           {Etcd{Generation: 1, Grant: Grant{Machine: "a", KeyHash: "1", Token: "T"}}, "d:1 b:1", "2 d 1"},
		"replaced, the new one not here yet": {Etcd{Generation: 1, Grant: Grant{Machine: "a", KeyHash: "1", Token: "T"}}, "d: b:1", "2 d "},
		"alone, and replaced with its data":  {Etcd{Generation: 1, Grant: granted, Voters: alone}, "d:1", "1 a 1 ="},
		"restoring":                          {Etcd{Generation: 4, Grant: restoring}, "a:1", "4 a 1 = S"},
		"restoring, started again meanwhile": {Etcd{Generation: 4, Grant: restoring}, "a:2", "5 a 2 S"},
		"restored, done, started again":      {Etcd{Generation: 4, Grant: restored, Voters: alone}, "a:2 b:1 c:1", "5 a 2 S"},
		"restored, said done, started again": {Etcd{Generation: 4, Grant: restored}, "a:2 b:1 c:1", "5 a 2 S"},
		"restored, grown, started again":     {Etcd{Generation: 4, Grant: restored, Voters: three, Grown: true}, "a:2 b:1 c:1", "4 a 1 = S"},
		"restored, alone in RAM, once more":  {Etcd{Generation: 4, Grant: restored, Voters: alone}, "a:2", "5 a 2 S"},
		"restored, replaced before it voted": {Etcd{Generation: 4, Grant: restored}, "d:1 b:1", "5 d 1 S"},
		"recovering":                         {Etcd{Generation: 4, Grant: recovering}, "a:1 b:1", "4 a 1 ="},
		"recovering, its data lost":          {Etcd{Generation: 4, Grant: recovering}, "a:2 b:1", "4 a 1 ="},
		"external":                           {Etcd{}, "", "1  "},
	} {
		got := test.etcd.next(members(test.members))
		shown := fmt.Sprintf("%d %s %s", got.Generation, got.Grant.Machine, got.Grant.KeyHash)
		if got.Grant.Token == "T" {
			shown += " ="
		}
		if got.Grant.Snapshot != "" {
			shown += " " + got.Grant.Snapshot
		}
		if shown != test.want {
			t.Errorf("%s: %q, want %q", name, shown, test.want)
		}
		if got.Generation != test.etcd.Generation && (got.Grown || len(got.Voters) > 0 || got.Grant.Done || got.Grant.Redeemed) {
			t.Errorf("%s: a new generation begins with %+v", name, got)
		}
	}
}

func TestWhatOnlyPeopleCanMend(t *testing.T) {
	grant := Grant{Machine: "a", KeyHash: "1"}
	three := map[string]string{"a": "1", "b": "1", "c": "1"}
	for name, test := range map[string]struct {
		etcd    Etcd
		members string
		want    string
		gone    bool
	}{
		"not started":               {Etcd{}, "a:1", "", false},
		"external":                  {Etcd{}, "", "", false},
		"starting":                  {Etcd{Generation: 1, Grant: grant}, "a:1 b:1", "", false},
		"healthy":                   {Etcd{Generation: 1, Grant: grant, Voters: three}, "a:1+ b:1+ c:1+", "", false},
		"all are starting":          {Etcd{Generation: 1, Grant: grant, Voters: three}, "a:1 b:1 c:1", "", false},
		"one lost":                  {Etcd{Generation: 1, Grant: grant, Voters: three}, "a:2 b:1 c:1", "", false},
		"one lost, one not back":    {Etcd{Generation: 1, Grant: grant, Voters: three}, "a:2 b:1 c:", "of 3 members only 1", false},
		"two lost, but one has two": {Etcd{Generation: 1, Grant: grant, Voters: three}, "a:2 b:2 c:1+", "", false},
		"two lost":                  {Etcd{Generation: 1, Grant: grant, Voters: three}, "a:2 b:2 c:1", "cluster recover", false},
		"all lost":                  {Etcd{Generation: 1, Grant: grant, Voters: three}, "a:2 b:2 c:2", "cluster restore", true},
		"restoring onto blank ones": {Etcd{Generation: 2, Grant: Grant{Machine: "a", Snapshot: "S"}}, "a: b:", "", false},
		"recovery lost its data":    {Etcd{Generation: 2, Grant: Grant{Machine: "a", KeyHash: "1", Recover: true}}, "a:2 b:1", "cluster restore", true},
	} {
		words, gone := test.etcd.trouble(members(test.members))
		if gone != test.gone || (words == "") != (test.want == "") || !strings.Contains(words, test.want) {
			t.Errorf("%s: %q, %v; want %q, %v", name, words, gone, test.want, test.gone)
		}
	}
}

func TestRedeeming(t *testing.T) {
	holder := members("a:1")[0]
	for name, test := range map[string]struct {
		grant Grant
		who   string
		token string
		done  bool
		ok    bool
		want  Grant
	}{
		"begin":              {Grant{}, "a:1", "T", false, true, Grant{Redeemed: true}},
		"begin once more":    {Grant{Redeemed: true}, "a:1", "T", false, true, Grant{Redeemed: true}},
		"done":               {Grant{Redeemed: true}, "a:1", "T", true, true, Grant{Redeemed: true, Done: true}},
		"done once more":     {Grant{Redeemed: true, Done: true}, "a:1", "T", true, true, Grant{Redeemed: true, Done: true}},
		"begin after done":   {Grant{Redeemed: true, Done: true}, "a:1", "T", false, false, Grant{Redeemed: true, Done: true}},
		"done before begun":  {Grant{}, "a:1", "T", true, false, Grant{}},
		"another token":      {Grant{}, "a:1", "U", false, false, Grant{}},
		"no token":           {Grant{}, "a:1", "", false, false, Grant{}},
		"another machine":    {Grant{}, "b:1", "T", false, false, Grant{}},
		"its key afterwards": {Grant{}, "a:2", "T", false, false, Grant{}},
	} {
		g := test.grant
		g.Machine, g.KeyHash, g.Token = holder.ID, holder.Enrolment.Approved.Hash, "T"
		err := g.redeem(members(test.who)[0], test.token, test.done)
		if (err == nil) != test.ok || err != nil && !errors.Is(err, ErrGrant) || g.Redeemed != test.want.Redeemed || g.Done != test.want.Done {
			t.Errorf("%s: %+v, %v", name, g, err)
		}
	}
}

// life is three control planes in RAM, as they are and not as they are known.
type life struct {
	*Office
	t       *testing.T
	random  *rand.Rand
	keys    [3]int               // how often each was started
	data    [3]int               // the generation whose data it holds; 0: none
	tokens  []proof              // all that was ever delivered
	begun   map[int]string       // who was allowed to begin a generation
	started map[int]bool         // etcd ran
	voted   map[int]map[int]bool // who said that it is a voter of a generation, without having lost that
}

type proof struct {
	generation int
	machine    int
	key        string
	token      string
}

func (l *life) key(n int) string { return fmt.Sprintf("key-%d-%d", n, l.keys[n]) }

// TestEtcdIsStartedAtMostOnce lets machines ask at once, crash anywhere and come
// back with nothing, answers get lost and old tokens be tried again.
func TestEtcdIsStartedAtMostOnce(t *testing.T) {
	o := newOffice(t)
	for seed := range uint64(12) {
		l := &life{Office: o, t: t, random: rand.New(rand.NewPCG(seed, 1)), begun: map[int]string{}, started: map[int]bool{}, voted: map[int]map[int]bool{}}
		name := fmt.Sprintf("c%d", seed)
		text := "name: " + name + "\nmachines:\n"
		for n := range 3 {
			text += fmt.Sprintf("- {id: %s, role: control-plane}\n", l.id(seed, n))
			l.reboot(seed, n)
		}
		if _, err := o.Create(t.Context(), []byte(text)); err != nil {
			t.Fatal(err)
		}
		for step := range 60 {
			l.step(seed)
			if t.Failed() {
				t.Fatalf("seed %d, step %d", seed, step)
			}
		}
	}
}

func (l *life) id(seed uint64, n int) string { return fmt.Sprintf("52-54-00-00-%02x-%02x", seed, n+1) }

func (l *life) reboot(seed uint64, n int) {
	l.keys[n]++
	if l.data[n] != 0 {
		delete(l.voted[l.data[n]], n)
	}
	l.data[n] = 0
	_, err := l.inventory.Change(l.t.Context(), l.id(seed, n), func(m *inventory.Machine) ([]inventory.Event, error) {
		*m = m.Approve(inventory.Key{Hash: l.key(n)})
		m.Address = address(int(seed), n)
		return nil, nil
	})
	if err != nil {
		l.t.Fatal(err)
	}
}

func (l *life) step(seed uint64) {
	n := l.random.IntN(3)
	switch l.random.IntN(6) {
	case 0:
		l.reboot(seed, n)
	case 1, 2:
		l.fetchAll(seed)
	case 3:
		l.redeem(seed, n, false)
	case 4:
		l.redeem(seed, n, true)
	case 5:
		l.join(seed, n)
	}
}

// fetchAll lets all machines ask at once.
func (l *life) fetchAll(seed uint64) {
	var lock sync.Mutex
	var group sync.WaitGroup
	for n := range 3 {
		group.Go(func() {
			ctx, cancel := context.WithTimeout(l.t.Context(), 10*time.Second)
			defer cancel()
			a := asker{id: l.id(seed, n), keyHash: l.key(n)}
			got, err := l.offer(ctx, &a)
			if err != nil {
				l.t.Error(err)
				return
			}
			if got.YAML == nil {
				return // the data is gone
			}
			config, err := machine.Parse(got.YAML, "config")
			if err != nil {
				l.t.Error(err)
				return
			}
			if b := config.Etcd.Bootstrap; b != nil {
				lock.Lock()
				l.tokens = append(l.tokens, proof{config.Etcd.Generation, n, l.key(n), b.Token.Reveal()})
				lock.Unlock()
			}
		})
	}
	group.Wait()
}

// redeem lets some machine try some token that it or another once had.
func (l *life) redeem(seed uint64, n int, done bool) {
	if len(l.tokens) == 0 {
		return
	}
	p := l.tokens[l.random.IntN(len(l.tokens))]
	if l.random.IntN(4) > 0 {
		n = p.machine
	}
	if l.Redeem(l.t.Context(), l.id(seed, n), l.key(n), p.token, done) != nil {
		return
	}
	who := fmt.Sprintf("%d %s", n, l.key(n))
	if before := l.begun[p.generation]; before != "" && before != who {
		l.t.Errorf("generation %d was begun by %s and by %s", p.generation, before, who)
	}
	for generation, voters := range l.voted {
		if generation < p.generation && len(voters) > 0 {
			l.t.Errorf("generation %d was begun by %s while %v hold the data of %d", p.generation, who, voters, generation)
		}
	}
	l.begun[p.generation], l.started[p.generation], l.data[n] = who, true, p.generation
}

// join makes a machine a voter of the generation that some other has data of,
// and lets it say so.
func (l *life) join(seed uint64, n int) {
	newest := max(l.data[0], l.data[1], l.data[2])
	if newest == 0 || !l.started[newest] {
		return
	}
	l.data[n] = newest
	state := &inventory.EtcdState{Generation: newest, Voter: true, Healthy: true}
	if _, err := l.Report(l.t.Context(), l.id(seed, n), l.key(n), Report{Etcd: state}); err != nil {
		l.t.Error(err)
	}
	who := l.begun[newest]
	if who == fmt.Sprintf("%d %s", n, l.key(n)) {
		return // the granted machine itself: alone, it may begin anew
	}
	if l.voted[newest] == nil {
		l.voted[newest] = map[int]bool{}
	}
	l.voted[newest][n] = true
}
