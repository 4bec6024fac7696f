package assign

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// What is a secret of a cluster that can be rotated.
type What string

// The secrets that can be rotated.
const (
	KubernetesCA What = "kubernetes-ca"
	EtcdCA       What = "etcd-ca"
	FrontProxyCA What = "front-proxy-ca"
	SecretsKey   What = "encryption-key"
	AccountKey   What = "service-account-key" // signs the tokens of service accounts
)

var authorities = []What{KubernetesCA, EtcdCA, FrontProxyCA}

// RotationPhase is how far a rotation has come. A machine that has taken a
// phase's config gets on with one that has taken the phase before or after it;
// so a phase begins only when every machine has taken the one before.
type RotationPhase string

// The phases. Before the first and after the last there is one secret only.
const (
	// Trust: both are accepted, the old one signs (or encrypts).
	Trust RotationPhase = "trust"
	// Use: both are accepted, the new one signs; certificates are made anew and
	// Secrets are written anew.
	Use RotationPhase = "use"
	// Retire: only the new one is accepted.
	Retire RotationPhase = "retire"
)

// settlingTime is how long a phase lasts after every machine has taken it, for what
// reads files or objects in its own time. Client-go looks at certificate and CA
// files every five minutes (the CA from 1.36 on), and the kubelet renews the
// ConfigMap in which pods see the cluster's CA within 90 s. An API server and
// an extension of it follow each other's files and ConfigMap within a minute.
//
// Whoever checks tokens of service accounts by the API's own list of keys
// (/openid/v1/jwks) may keep that for an hour, as its answer says (Kubernetes,
// pkg/routes/openidmetadata.go). A pod's token is renewed when a fifth of its
// life is left and never later than after 24 hours (pkg/kubelet/token), however
// long it lives; then the kubelet writes it within 90 s, and programs read it
// again within five minutes. That the API server accepts most of them for a year
// (--service-account-extend-token-expiration) changes nothing here: the kubelet is
// told the end that was asked for (pkg/registry/core/serviceaccount/storage/token.go).
// The controllers' own tokens live for an hour (controller-manager/pkg/clientbuilder).
func settlingTime(what What, phase RotationPhase) time.Duration {
	switch {
	case phase == Retire:
		return 0
	case what == KubernetesCA:
		return 8 * time.Minute
	case what == FrontProxyCA:
		return 2 * time.Minute
	case what == AccountKey && phase == Trust:
		return time.Hour
	case what == AccountKey:
		return 24*time.Hour + 15*time.Minute
	}
	return 0
}

// Rotation is the replacement of one secret, under way.
type Rotation struct {
	What  What          `json:"what"`
	Phase RotationPhase `json:"phase"`
	Since time.Time     `json:"since"` // when the phase began
	// Taken is when every machine was seen to have taken the phase; zero before.
	Taken time.Time `json:"taken,omitzero"`
}

// Errors of Begin.
var (
	ErrWhat         = errors.New("this cannot be rotated")
	ErrExternalEtcd = errors.New("the cluster's etcd is external: its CA is rotated by whoever runs it")
)

// ParseWhat reads what a person wants to rotate. Others than those five are ErrWhat.
func ParseWhat(text string) (What, error) {
	if what := What(text); what == SecretsKey || what == AccountKey || slices.Contains(authorities, what) {
		return what, nil
	}
	return "", fmt.Errorf("%w: %q; valid: kubernetes-ca, etcd-ca, front-proxy-ca, encryption-key, service-account-key", ErrWhat, text)
}

// authority is one of the three CAs, to be changed in place.
func (k *Keys) authority(what What) *Authority {
	switch what {
	case KubernetesCA:
		return &k.CA
	case EtcdCA:
		return &k.EtcdCA
	case FrontProxyCA:
		return &k.FrontProxyCA
	}
	panic("assign: " + what + " is no CA") // What comes from ParseWhat
}

// rewriting says whether control planes are to write all Secrets anew.
func (k Keys) rewriting() bool {
	return slices.ContainsFunc(k.Rotations, func(r Rotation) bool { return r.What == SecretsKey && r.Phase == Use })
}

// Begin makes the new secret and enters the first phase. If one of the kind is
// under way already, k is returned as it is. k itself is not changed.
func (k Keys) Begin(cluster string, what What, now time.Time) (Keys, error) {
	if slices.ContainsFunc(k.Rotations, func(r Rotation) bool { return r.What == what }) {
		return k, nil
	}
	k = k.clone()
	if err := k.makeNext(cluster, what, now); err != nil {
		return k, err
	}
	k.Rotations = append(k.Rotations, Rotation{What: what, Phase: Trust, Since: now})
	return k, nil
}

// makeNext makes the secret that is to come.
func (k *Keys) makeNext(cluster string, what What, now time.Time) error {
	switch what {
	case SecretsKey:
		k.EncryptionKeys = append(k.EncryptionKeys, newEncryptionKey(k.lastKey()+1))
		return nil
	case AccountKey:
		return k.makeNextAccounts(cluster)
	}
	made, err := newCA(what, cluster, now)
	k.authority(what).Next = &made
	return err
}

// clone is a copy whose lists can be changed.
func (k Keys) clone() Keys {
	k.EncryptionKeys, k.Retired = slices.Clone(k.EncryptionKeys), slices.Clone(k.Retired)
	k.Rotations, k.FormerIDs = slices.Clone(k.Rotations), slices.Clone(k.FormerIDs)
	return k
}

// lastKey is the number of the newest encryption key.
func (k Keys) lastKey() (last int) {
	for _, key := range k.EncryptionKeys {
		last = max(last, key.number())
	}
	return last
}

// number is n of a key whose name is key-n.
func (k EncryptionKey) number() int {
	number, err := strconv.Atoi(strings.TrimPrefix(k.Name, "key-"))
	if err != nil {
		return 0
	}
	return number
}

// Readmit is for a cluster whose etcd goes back to data of another time, a
// snapshot's or a lagging member's: Secrets in it may be encrypted with keys
// that were retired since. All API servers are to read with those again, write
// all Secrets anew with the present key, and forget them: the second half of a
// rotation. Without retired keys it returns k as it is; k itself is not changed.
func (k Keys) Readmit(now time.Time) Keys {
	if len(k.Retired) == 0 {
		return k
	}
	k = k.clone()
	for _, old := range k.Retired {
		if !slices.Contains(k.EncryptionKeys, old) {
			k.EncryptionKeys = append(k.EncryptionKeys, old)
		}
	}
	k.Retired = nil
	rewriting := Rotation{What: SecretsKey, Phase: Use, Since: now}
	at := slices.IndexFunc(k.Rotations, func(r Rotation) bool { return r.What == SecretsKey })
	switch {
	case at < 0:
		k.Rotations = append(k.Rotations, rewriting)
	case k.Rotations[at].Phase != Trust: // after which it comes to rewriting anyway
		k.Rotations[at] = rewriting
	}
	return k
}

// Standing is what a rotation must know of a machine of the cluster.
type Standing struct {
	ID, Hostname string
	// Runs is false for a machine that has nothing of the cluster: it was never
	// configured, or restarted and was not yet configured again. It gets the
	// newest config when it comes, so nobody waits for it.
	Runs bool
	// Current: its units run with the config that it should have now.
	Current bool
	// Missing is what it still lacks to be well: ready, heard of, a healthy
	// voter if it is a member of etcd. Empty: nothing.
	Missing string
}

// behind is the first machine that has not taken the present configs, as
// words for a person; empty: all have.
func behind(machines []Standing) string {
	for _, m := range machines {
		switch {
		case !m.Runs:
		case !m.Current && m.Missing != "":
			return fmt.Sprintf("%s (%s) to take its config; it waits for %s. If it is dead, replace it, or reset it and take it out of the cluster", m.Hostname, m.ID, m.Missing)
		case !m.Current:
			return fmt.Sprintf("%s (%s) to take its config", m.Hostname, m.ID)
		case m.Missing != "":
			return fmt.Sprintf("%s (%s) to be well: it waits for %s. If it is dead, replace it, or reset it and take it out of the cluster", m.Hostname, m.ID, m.Missing)
		}
	}
	return ""
}

// WaitingFor is what keeps the rotation in its phase.
func (r Rotation) WaitingFor(machines []Standing, now time.Time) string {
	if r.Taken.IsZero() {
		return behind(machines)
	}
	if r.until().After(now) {
		return r.settling()
	}
	return ""
}

// settling says, in words for a person, what a phase that was taken by all waits
// for; with the day where that may be another one.
func (r Rotation) settling() string {
	who, format := "programs and pods to read their new files", "15:04:05 MST"
	if r.What == AccountKey {
		format = "2006-01-02 " + format
		who = map[RotationPhase]string{
			Trust: "those who check tokens to fetch the API's list of keys again",
			Use:   "kubelets to give all pods other tokens",
		}[r.Phase]
	}
	return fmt.Sprintf("%s: until %s", who, r.until().UTC().Format(format))
}

// until is when a phase that was taken by all may end.
func (r Rotation) until() time.Time { return r.Taken.Add(settlingTime(r.What, r.Phase)) }

// Advance moves on every rotation whose phase every machine has taken, by one
// phase at most. passed are those that have moved, in their new phase; one that
// is done has none. When nothing is to be done, it returns k as it is; k itself
// is not changed. machines stand as they do to the configs rendered from k.
func (k Keys) Advance(machines []Standing, now time.Time) (next Keys, passed []Rotation, err error) {
	if len(k.Rotations) == 0 || behind(machines) != "" && !slices.ContainsFunc(k.Rotations, Rotation.taken) {
		return k, nil, nil
	}
	next = k.clone()
	next.Rotations = nil
	for _, r := range k.Rotations {
		if r.Taken.IsZero() && behind(machines) == "" {
			r.Taken = now
		}
		if r.Taken.IsZero() || now.Before(r.until()) {
			next.Rotations = append(next.Rotations, r)
			continue
		}
		r.Phase = following[r.Phase]
		if err := next.enter(r); err != nil {
			return k, nil, err
		}
		r.Since, r.Taken = now, time.Time{}
		passed = append(passed, r)
		if r.Phase != "" {
			next.Rotations = append(next.Rotations, r)
		}
	}
	return next, passed, nil
}

func (r Rotation) taken() bool { return !r.Taken.IsZero() }

// following is the order of the phases; after the last, the rotation is done.
var following = map[RotationPhase]RotationPhase{Trust: Use, Use: Retire, Retire: ""}

// enter changes the keys to what the rotation's phase, just begun, wants.
func (k *Keys) enter(r Rotation) error {
	switch {
	case r.Phase == Use && r.What == SecretsKey:
		slices.SortFunc(k.EncryptionKeys, func(a, b EncryptionKey) int { return b.number() - a.number() })
	case r.Phase == Retire && r.What == SecretsKey:
		k.Retired = append(k.Retired, k.EncryptionKeys[1:]...)
		slices.SortFunc(k.Retired, func(a, b EncryptionKey) int { return a.number() - b.number() })
		k.EncryptionKeys = k.EncryptionKeys[:1]
	case r.Phase == Use && r.What == AccountKey:
		return k.handOverAccounts()
	case r.Phase == Retire && r.What == AccountKey:
		k.OtherServiceAccount = nil
	case r.Phase == Use:
		return k.handOver(r.What)
	case r.Phase == Retire:
		k.authority(r.What).Previous = nil
	}
	return nil
}

// handOver lets the next CA sign. The key of the one before is forgotten. With
// the Kubernetes CA goes the bootstrap token, or whoever has learned that could
// have the new CA sign what the old one signed for him. Its ID stays, so that
// the new token takes the old one's place in the API. Workers get it after all
// control planes, as it should be: they need it at once.
func (k *Keys) handOver(what What) error {
	a := k.authority(what)
	switch what {
	case KubernetesCA:
		id, _, _ := strings.Cut(k.BootstrapToken, ".")
		k.BootstrapToken = id + "." + randomText(tokenSecret)
	case EtcdCA:
		id, err := certID(a.CertPEM)
		if err != nil {
			return err
		}
		k.FormerIDs = append(k.FormerIDs, id)
	}
	*a = Authority{CA: *a.Next, Previous: a.CertPEM}
	return nil
}

func (k *Keys) makeNextAccounts(cluster string) (err error) {
	if k.NextServiceAccount, err = newAccountKey(cluster); err != nil {
		return err
	}
	k.OtherServiceAccount, err = publicHalf(k.NextServiceAccount)
	return err
}

// handOverAccounts lets the next key sign tokens. Of the one before, only the
// public half is kept: it is needed to accept tokens, not to make them.
func (k *Keys) handOverAccounts() (err error) {
	k.OtherServiceAccount, err = publicHalf(k.ServiceAccount)
	k.ServiceAccount, k.NextServiceAccount = k.NextServiceAccount, nil
	return err
}
