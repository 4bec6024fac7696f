package assign

import (
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"slipway/controlplane/pki"
)

var everything = []What{KubernetesCA, EtcdCA, FrontProxyCA, SecretsKey, AccountKey}

func newKeys(t *testing.T) Keys {
	t.Helper()
	keys, err := NewKeys("prod", noon)
	if err != nil {
		t.Fatal(err)
	}
	return keys
}

func begin(t *testing.T, keys Keys, what What, now time.Time) Keys {
	t.Helper()
	keys, err := keys.Begin("prod", what, now)
	if err != nil {
		t.Fatal(err)
	}
	return keys
}

func advance(t *testing.T, keys Keys, machines []Standing, now time.Time) (Keys, []Rotation) {
	t.Helper()
	keys, passed, err := keys.Advance(machines, now)
	if err != nil {
		t.Fatal(err)
	}
	return keys, passed
}

// well is a machine that has taken everything.
func well(n int) Standing {
	return Standing{ID: id(n), Hostname: fmt.Sprintf("prod-cp-%d", n), Runs: true, Current: true}
}

func TestWhoHoldsAPhase(t *testing.T) {
	outdated, sick, dead, stranger := well(2), well(2), well(2), Standing{ID: id(2), Hostname: "prod-cp-2", Missing: "its first packet"}
	outdated.Current = false
	sick.Missing = "etcd"
	dead.Current, dead.Missing = false, "a sign of life"
	for name, test := range map[string]struct {
		other Standing
		want  string // part of what is waited for; empty: the phase passes
	}{
		"all have taken it":               {well(2), ""},
		"one has not":                     {outdated, "prod-cp-2 (52-54-00-00-00-02) to take its config"},
		"one has, and is not ready":       {sick, "prod-cp-2 (52-54-00-00-00-02) to be well: it waits for etcd"},
		"one is dead":                     {dead, "it waits for a sign of life. If it is dead, replace it, or reset it"},
		"one has nothing of the cluster":  {stranger, ""},
		"two have not: the first is said": {Standing{ID: id(2), Hostname: "prod-cp-2", Runs: true}, "prod-cp-2"},
	} {
		for _, what := range everything {
			for _, phase := range []RotationPhase{Trust, Use, Retire} {
				machines := []Standing{well(1), test.other, well(3)}
				keys, now := inPhase(t, what, phase)
				got := keys.Rotations[0].WaitingFor(machines, now)
				next, passed := advance(t, keys, machines, now)
				if settling := settlingTime(what, phase); test.want == "" && settling > 0 {
					until := map[bool]string{true: "2006-01-02 15:04:05 MST", false: "to read their new files: until 15:04:05 MST"}[what == AccountKey]
					if got = next.Rotations[0].WaitingFor(machines, now); !strings.HasSuffix(got, now.Add(settling).Format(until)) {
						t.Errorf("%s: %s of %s settles by waiting for %q", name, phase, what, got)
					}
					next, passed = advance(t, next, machines, now.Add(settling))
					got = ""
				}
				if !strings.Contains(got, test.want) || test.want == "" && got != "" {
					t.Errorf("%s, %s, %s: waits for %q, want %q", name, what, phase, got, test.want)
				}
				if moved := len(passed) == 1; moved != (test.want == "") {
					t.Errorf("%s, %s, %s: it moved: %v", name, what, phase, moved)
				}
				if len(passed) == 0 && len(next.Rotations) != 1 {
					t.Errorf("%s, %s, %s: it is gone", name, what, phase)
				}
			}
		}
	}
}

// inPhase is a cluster's keys in a phase of a rotation that began at noon.
func inPhase(t *testing.T, what What, phase RotationPhase) (Keys, time.Time) {
	t.Helper()
	keys, now := begin(t, newKeys(t), what, noon), noon
	for keys.Rotations[0].Phase != phase {
		keys, now = pass(t, keys, now)
	}
	return keys, now
}

// pass ends the phase that the only rotation is in, and returns when that is.
func pass(t *testing.T, keys Keys, now time.Time) (Keys, time.Time) {
	t.Helper()
	r := keys.Rotations[0]
	keys, passed := advance(t, keys, nil, now)
	if wait := settlingTime(r.What, r.Phase); wait > 0 {
		now = now.Add(wait)
		keys, passed = advance(t, keys, nil, now)
	}
	if len(passed) != 1 {
		t.Fatalf("%s stays in %s", r.What, r.Phase)
	}
	return keys, now
}

func TestThePhasesOfACA(t *testing.T) {
	for _, what := range authorities {
		start := newKeys(t)
		old := string(start.authority(what).CertPEM)
		keys := begin(t, start, what, noon)
		fresh := string(keys.authority(what).Next.CertPEM)
		if len(start.Rotations) != 0 || start.authority(what).Next != nil {
			t.Error("Begin changed the keys that it was given")
		}
		now := noon
		for _, want := range []struct {
			phase          RotationPhase
			signer, bundle string
		}{{Trust, old, old + fresh}, {Use, fresh, fresh + old}, {Retire, fresh, fresh}} {
			a := keys.authority(what)
			if keys.Rotations[0].Phase != want.phase || string(a.CertPEM) != want.signer || a.Bundle() != want.bundle {
				t.Errorf("%s in %s is not right", what, keys.Rotations[0].Phase)
			}
			keys, now = pass(t, keys, now)
		}
		if len(keys.Rotations) != 0 {
			t.Errorf("%s is not done: %+v", what, keys.Rotations)
		}
		token, was := keys.BootstrapToken, start.BootstrapToken
		if (token != was) != (what == KubernetesCA) || token[:7] != was[:7] || len(token) != len(was) {
			t.Errorf("after a rotation of %s the bootstrap token %s is %s", what, was, token)
		}
	}
}

func TestThePhasesOfTheEncryptionKey(t *testing.T) {
	keys := begin(t, newKeys(t), SecretsKey, noon)
	shown := func() (text string) {
		for _, key := range keys.EncryptionKeys {
			text += key.Name + " "
		}
		return text + fmt.Sprint(keys.forControlPlane().RewriteSecrets)
	}
	for _, want := range []string{"key-1 key-2 false", "key-2 key-1 true", "key-2 false", "key-2 false"} {
		if got := shown(); got != want {
			t.Errorf("the keys are %s, want %s", got, want)
		}
		keys, _ = advance(t, keys, nil, noon)
	}
	if keys = begin(t, keys, SecretsKey, noon); shown() != "key-2 key-3 false" {
		t.Errorf("the second time they are %s", shown())
	}
}

func TestThePhasesOfTheServiceAccountKey(t *testing.T) {
	start := newKeys(t)
	keys := begin(t, start, AccountKey, noon)
	old, fresh := start.ServiceAccount, keys.NextServiceAccount
	oldPublic, freshPublic := publicOf(t, old), publicOf(t, fresh)
	if oldPublic == freshPublic || start.NextServiceAccount != nil || start.OtherServiceAccount != nil {
		t.Fatal("Begin made no other key, or changed the keys that it was given")
	}
	now := noon
	for _, want := range []struct {
		phase  RotationPhase
		signer []byte
		other  string
		lasts  time.Duration
		waits  string
	}{
		{Trust, old, freshPublic, time.Hour, "those who check tokens to fetch the API's list of keys again: until "},
		{Use, fresh, oldPublic, 24*time.Hour + 15*time.Minute, "kubelets to give all pods other tokens: until "},
		{Retire, fresh, "", 0, ""},
	} {
		settles := keys.Rotations[0]
		if settles.Taken = noon; want.lasts > 0 && settles.WaitingFor(nil, noon) != want.waits+noon.Add(want.lasts).Format(time.DateTime)+" UTC" {
			t.Errorf("in %s it waits for %s", want.phase, settles.WaitingFor(nil, noon))
		}
		given := keys.forControlPlane()
		if keys.Rotations[0].Phase != want.phase || given.ServiceAccount.Reveal() != string(want.signer) || given.OtherAccounts != want.other {
			t.Errorf("in %s, which should be %s: another public key is\n%s", keys.Rotations[0].Phase, want.phase, given.OtherAccounts)
		}
		began := now
		if keys, now = pass(t, keys, now); now.Sub(began) != want.lasts {
			t.Errorf("%s lasts %v", want.phase, now.Sub(began))
		}
	}
	if text, err := json.Marshal(keys); err != nil || strings.Contains(string(text), "ServiceAccount\"") || len(keys.Rotations) != 0 {
		t.Errorf("something of the rotation is left: %+v", keys.Rotations)
	}
}

func publicOf(t *testing.T, private []byte) string {
	t.Helper()
	public, err := publicHalf(private)
	if err != nil {
		t.Fatal(err)
	}
	return string(public)
}

func TestDataOfAnotherTimeCanBeRead(t *testing.T) {
	names := func(keys []EncryptionKey) (text string) {
		for _, key := range keys {
			text += key.Name + " "
		}
		return text
	}
	for phase, want := range map[RotationPhase]string{ // of the rotation from key-3 to key-4
		"":     "key-3 key-1 key-2 use",
		Trust:  "key-3 key-4 key-1 key-2 trust",
		Use:    "key-4 key-3 key-1 key-2 use",
		Retire: "key-4 key-1 key-2 key-3 use",
	} {
		keys := newKeys(t)
		if again := keys.Readmit(noon); len(again.Rotations) != 0 || names(again.EncryptionKeys) != "key-1 " {
			t.Errorf("without retired keys: %+v", again.Rotations)
		}
		for range 2 {
			for keys = begin(t, keys, SecretsKey, noon); len(keys.Rotations) > 0; {
				keys, _ = pass(t, keys, noon)
			}
		}
		if got := names(keys.Retired); got != "key-1 key-2 " {
			t.Fatalf("retired are %s", got)
		}
		if phase != "" {
			for keys = begin(t, keys, SecretsKey, noon); keys.Rotations[0].Phase != phase; {
				keys, _ = pass(t, keys, noon)
			}
		}
		keys = keys.Readmit(noon)
		if got := names(keys.EncryptionKeys) + string(keys.Rotations[0].Phase); got != want || len(keys.Retired) != 0 {
			t.Errorf("in %q: %s, want %s", phase, got, want)
		}
		if rewrites := keys.forControlPlane().RewriteSecrets; rewrites != (phase != Trust) {
			t.Errorf("in %q: Secrets are rewritten: %v", phase, rewrites)
		}
		newest, retired := "key-4 ", "key-1 key-2 key-3 "
		if phase == "" {
			newest, retired = "key-3 ", "key-1 key-2 "
		}
		for len(keys.Rotations) > 0 {
			keys, _ = pass(t, keys, noon)
		}
		if names(keys.EncryptionKeys) != newest || names(keys.Retired) != retired {
			t.Errorf("in %q: it ends with %s, retired %s", phase, names(keys.EncryptionKeys), names(keys.Retired))
		}
	}
}

func TestBeginningTwiceIsOnce(t *testing.T) {
	once := begin(t, newKeys(t), EtcdCA, noon)
	twice := begin(t, once, EtcdCA, noon.Add(time.Hour))
	if len(twice.Rotations) != 1 || twice.EtcdCA.Bundle() != once.EtcdCA.Bundle() {
		t.Errorf("the rotations are %+v", twice.Rotations)
	}
}

func TestASnapshotIsKnownOverRotations(t *testing.T) {
	keys := newKeys(t)
	first, err := keys.IDs()
	if err != nil || len(first) != 1 {
		t.Fatal(first, err)
	}
	keys = begin(t, keys, EtcdCA, noon)
	trust, err := keys.IDs()
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		keys, _ = advance(t, keys, nil, noon)
	}
	after, err := keys.IDs()
	if err != nil || len(after) != 2 || after[0] != first[0] || !slices.Equal(after, trust) {
		t.Errorf("%v, then %v, then %v: %v", first, trust, after, err)
	}
}

func TestRecordsOfBefore(t *testing.T) {
	now := newKeys(t)
	text, err := json.Marshal(map[string]any{
		"ca": now.CA.CA, "etcdCA": now.EtcdCA.CA, "frontProxyCA": now.FrontProxyCA.CA,
		"serviceAccount": now.ServiceAccount, "encryptionKey": now.EncryptionKeys[0].Secret, "bootstrapToken": now.BootstrapToken,
	})
	if err != nil {
		t.Fatal(err)
	}
	for range 2 { // as it was written before, and as it is written now
		var read Keys
		if err := json.Unmarshal(text, &read); err != nil {
			t.Fatal(err)
		}
		if read.CA.Bundle() != now.CA.Bundle() || string(read.EtcdCA.KeyPEM) != string(now.EtcdCA.KeyPEM) ||
			read.BootstrapToken != now.BootstrapToken || !slices.Equal(read.EncryptionKeys, now.EncryptionKeys) {
			t.Fatalf("it was read as %+v", read)
		}
		if text, err = json.Marshal(read); err != nil {
			t.Fatal(err)
		}
	}
}

func TestWhatCannotBeRotated(t *testing.T) {
	for _, text := range []string{"", "machine-ca", "all"} {
		if _, err := ParseWhat(text); !errors.Is(err, ErrWhat) {
			t.Errorf("%q: %v", text, err)
		}
	}
	for _, what := range everything {
		if got, err := ParseWhat(string(what)); got != what || err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// node is a machine of the model cluster: the keys of the config it runs with,
// and the certificates it made then.
type node struct {
	keys   Keys
	leaves map[What]*x509.Certificate
}

// take has the node run with keys.
func (n *node) take(t *testing.T, keys Keys, now time.Time) {
	t.Helper()
	*n = node{keys: keys, leaves: map[What]*x509.Certificate{}}
	for _, what := range authorities {
		leaf, err := keys.authority(what).Issue(pki.Request{CommonName: "x", Client: true, Server: true, Validity: 24 * 365 * time.Hour}, now)
		if err != nil {
			t.Fatal(err)
		}
		if n.leaves[what], err = pki.ParseCert(leaf.CertPEM); err != nil {
			t.Fatal(err)
		}
	}
}

// trusts says why n refuses the other's certificate.
func (n *node) trusts(what What, other *node, now time.Time) error {
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM([]byte(n.keys.authority(what).Bundle())) {
		return errors.New("no certificate in the bundle")
	}
	_, err := other.leaves[what].Verify(x509.VerifyOptions{Roots: pool, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
	return err
}

// accepts says whether n takes a token that was signed by the key with a public half.
func (n *node) accepts(t *testing.T, signer string) bool {
	return publicOf(t, n.keys.ServiceAccount) == signer || string(n.keys.OtherServiceAccount) == signer
}

// reads says whether n can read what was encrypted with a key.
func (n *node) reads(key string) bool {
	return slices.ContainsFunc(n.keys.EncryptionKeys, func(k EncryptionKey) bool { return k.Name == key })
}

func TestNeighbouringPhasesAcceptEachOthersTokens(t *testing.T) {
	var life []*node
	keys, now := newKeys(t), noon
	life = append(life, &node{keys: keys})
	for keys = begin(t, keys, AccountKey, now); len(keys.Rotations) > 0; keys, now = pass(t, keys, now) {
		life = append(life, &node{keys: keys})
	}
	for i, a := range life {
		for j, b := range life {
			accepts, apart := a.accepts(t, publicOf(t, b.keys.ServiceAccount)), max(i-j, j-i)
			if apart <= 1 && !accepts {
				t.Errorf("phase %d refuses the tokens of phase %d", i, j)
			}
			if apart == len(life)-1 && accepts {
				t.Error("before and after still accept each other's tokens: the test proves nothing")
			}
		}
	}
}

func TestNeighbouringPhasesTrustEachOtherAndOthersDoNot(t *testing.T) {
	for _, what := range authorities {
		var life []*node
		keys, now := newKeys(t), noon
		add := func() { n := &node{}; n.take(t, keys, now); life = append(life, n) }
		add() // before
		keys = begin(t, keys, what, now)
		for len(keys.Rotations) > 0 {
			add()
			keys, now = pass(t, keys, now)
		}
		for i, a := range life {
			for j, b := range life {
				apart := max(i-j, j-i)
				errs := errors.Join(a.trusts(what, b, now), b.trusts(what, a, now))
				if apart <= 1 && errs != nil {
					t.Errorf("%s: phases %d and %d: %v", what, i, j, errs)
				}
				if apart == len(life)-1 && errs == nil {
					t.Errorf("%s: before and after still trust each other: the test proves nothing", what)
				}
			}
		}
	}
}

// TestNobodyIsEverRefused lets machines take their configs in random order and
// write Secrets and sign tokens meanwhile, while rotations of every kind begin at
// random. At no time may a machine refuse another's certificate or the token of a
// pod, which keeps it for a day, or be unable to read a Secret.
func TestNobodyIsEverRefused(t *testing.T) {
	done := 0
	for seed := range uint64(4) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			c := modelCluster{T: t, random: rand.New(rand.NewPCG(seed, 0)), keys: newKeys(t), now: noon, secrets: map[string]string{}, tokens: map[string]time.Time{}}
			for range 2 + c.random.IntN(4) {
				c.nodes = append(c.nodes, &node{})
			}
			for _, n := range c.nodes {
				n.take(t, c.keys, c.now)
			}
			for step := range 120 {
				c.check(step, c.step(step))
			}
			done += c.done
		})
	}
	if done < 12 {
		t.Errorf("only %d rotations were done: the test proves little", done)
	}
}

type modelCluster struct {
	*testing.T
	random  *rand.Rand
	keys    Keys // as the boot service has them
	now     time.Time
	nodes   []*node
	secrets map[string]string    // name of the key that encrypted it
	tokens  map[string]time.Time // by the signer's public key: when the last one was signed
	done    int
}

// step lets one thing happen to one machine, and returns that.
func (c *modelCluster) step(step int) *node {
	c.now = c.now.Add(4 * time.Minute)
	n := c.nodes[c.random.IntN(len(c.nodes))]
	switch c.random.IntN(8) {
	case 0:
		c.keys = begin(c.T, c.keys, everything[c.random.IntN(len(everything))], c.now)
	case 1:
		c.secrets[fmt.Sprint(step)] = n.keys.EncryptionKeys[0].Name
		c.tokens[publicOf(c.T, n.keys.ServiceAccount)] = c.now
	case 2:
		c.now = c.now.Add(5 * time.Hour)
	default:
		n.take(c.T, c.keys, c.now)
		if n.keys.rewriting() {
			for name := range c.secrets {
				c.secrets[name] = n.keys.EncryptionKeys[0].Name
			}
		}
	}
	next, passed := advance(c.T, c.keys, c.standing(), c.now)
	for _, r := range passed {
		if r.Phase == "" {
			c.done++
		}
	}
	c.keys = next
	return n
}

func (c *modelCluster) standing() (machines []Standing) {
	for i, n := range c.nodes {
		m := well(i)
		m.Current = rendered(c.T, n.keys) == rendered(c.T, c.keys)
		machines = append(machines, m)
	}
	return machines
}

// rendered is what of the keys is in a machine's config.
func rendered(t *testing.T, keys Keys) string {
	text, err := json.Marshal([]any{keys.CA.Bundle(), keys.EtcdCA.Bundle(), keys.FrontProxyCA.Bundle(), keys.EncryptionKeys, keys.rewriting(), keys.ServiceAccount, keys.OtherServiceAccount})
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func (c *modelCluster) check(step int, changed *node) {
	for i, n := range c.nodes {
		for name, key := range c.secrets {
			if !n.reads(key) {
				c.Fatalf("step %d: machine %d cannot read secret %s, encrypted with %s", step, i, name, key)
			}
		}
		for signer, signed := range c.tokens {
			if c.now.Sub(signed) <= 24*time.Hour && !n.accepts(c.T, signer) {
				c.Fatalf("step %d: machine %d refuses a token that is %v old", step, i, c.now.Sub(signed))
			}
		}
		for _, what := range authorities {
			if err := errors.Join(n.trusts(what, changed, c.now), changed.trusts(what, n, c.now)); err != nil {
				c.Fatalf("step %d: machine %d and the one that changed last do not trust each other's %s: %v", step, i, what, err)
			}
		}
	}
}
