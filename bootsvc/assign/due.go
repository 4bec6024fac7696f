package assign

import (
	"slices"
	"time"

	"slipway/bootsvc/inventory"
	"slipway/configs/enroll"
	"slipway/configs/machine"
)

// stand is how a machine stands to the config that it should have.
type stand struct {
	hostname string
	plane    bool // it runs the control plane, or a member of etcd
	member   bool // it is to run a member of etcd
	wanted   string
	given    string // digests, hex SHA-256
	applied  string // empty: nothing that is known runs on it
	renewed  bool   // the wanted config has another generation of etcd than the given one
	ready    bool
	voter    bool // it says that it is a healthy voter
	wasVoter bool // it was one in this generation, with whatever key
	silent   bool // it is taken for dead
}

// due says whether a machine that runs with a config may be given its changed
// one now, of all that stand beside it: empty, or what must come before, in
// words. First configs are not asked about: nothing runs there yet.
//
// One control plane or member of etcd changes at a time. The next one may when
// all others that are heard of run with the config that they were given and are
// ready, and healthy voters if they are members. So at most one member of etcd
// is down for a change, and with it one that is dead: whoever is silent is not
// waited for, or one dead machine would keep the others from what replaces it.
// While two voters are silent, a change could cost the quorum, and waits.
//
// A machine that is not well itself need not wait for others to be well, only
// for one that is changing: its own change costs nothing, and may be what mends
// it. One that is changing already has its turn, whatever the config became
// meanwhile. A new generation of etcd waits for nobody: nothing of the old one
// is to go on. New machines, never yet a part of the whole, hold up nobody.
//
// Workers come after all control planes and members have theirs.
func due(me stand, others []stand) string {
	switch {
	case !me.plane:
		return firstOf(others, func(o stand) bool { return o.plane && !o.silent && !o.fresh() && o.applied != o.wanted }, "to take its config")
	case me.renewed, me.changing():
		return ""
	}
	heard := slices.DeleteFunc(slices.Clone(others), func(o stand) bool { return !o.plane || o.silent || o.fresh() })
	if why := firstOf(heard, stand.changing, "to take its config"); why != "" || !me.well() {
		return why
	}
	if why := firstOf(heard, func(o stand) bool { return !o.well() }, "to be ready"); why != "" {
		return why
	}
	dead := func(o stand) bool { return o.silent && o.wasVoter }
	if n := slices.IndexFunc(others, dead); me.member && n >= 0 && slices.ContainsFunc(others[n+1:], dead) {
		return firstOf(others, dead, "to be heard of, or to be replaced: more than one voter of etcd is silent")
	}
	return ""
}

// before says what a machine waits for until it gets its first config: control
// planes join one at a time, and the first of a new cluster sets it up before
// anybody else joins. Several API servers that begin at once wait for each
// other's writes and, on small machines, give up and begin anew. Machines that
// only run etcd wait for nobody: the first API server may need them. Nobody
// waits for one that is silent, or that said it failed.
func (c Cluster) before(m inventory.Machine, now time.Time) string {
	first, known := c.first()
	switch {
	case !known || m.Role == machine.EtcdOnly || first.ID == m.ID && !c.Etcd.Opened:
		return ""
	case !c.Etcd.Opened:
		return first.Hostname + " to be ready: it sets the new cluster up"
	case m.Role == machine.Worker:
		return ""
	}
	joins := func(p inventory.Machine) bool { return p.ID != m.ID && p.Phase == enroll.Joining && !p.Silent(now) }
	if at := slices.IndexFunc(c.controlPlanes(), joins); at >= 0 {
		return c.controlPlanes()[at].Hostname + " to be ready: control planes join one at a time"
	}
	return ""
}

// first is the control plane that sets a new cluster up: the one that begins
// etcd, if one does.
func (c Cluster) first() (m inventory.Machine, known bool) {
	planes := c.controlPlanes()
	if len(planes) == 0 {
		return m, false
	}
	at := slices.IndexFunc(planes, func(p inventory.Machine) bool { return p.ID == c.Etcd.Grant.Machine })
	return planes[max(at, 0)], true
}

// fresh says that the machine has its first config and is not yet a part of the whole.
func (s stand) fresh() bool { return s.applied == "" && !s.wasVoter }

// changing says that the machine was given a config that does not run yet.
func (s stand) changing() bool { return s.applied != "" && s.applied != s.given }

// well says that the machine does what it is there for.
func (s stand) well() bool { return s.applied != "" && s.ready && (!s.member || s.voter) }

func firstOf(machines []stand, is func(stand) bool, words string) string {
	if at := slices.IndexFunc(machines, is); at >= 0 {
		return machines[at].hostname + " " + words
	}
	return ""
}

// turn is due of a machine among those of its cluster that are loaded.
func (c Cluster) turn(m inventory.Machine, wanted handout, keys Keys, now time.Time) (string, error) {
	var others []stand
	for _, other := range c.Machines {
		if other.ID == m.ID || !addressed(other) {
			continue
		}
		theirs, err := c.render(other, keys)
		if err != nil {
			return "", err
		}
		others = append(others, c.stand(other, theirs, now))
	}
	return due(c.stand(m, wanted, now), others), nil
}

// stand is what due has to know of a machine.
func (c Cluster) stand(m inventory.Machine, wanted handout, now time.Time) stand {
	return stand{
		hostname: m.Hostname, wanted: wanted.digest, given: m.Given.Digest, applied: m.Applied,
		plane:   m.Role != machine.Worker,
		member:  slices.ContainsFunc(c.members(), func(other inventory.Machine) bool { return other.ID == m.ID }),
		renewed: m.Given.Generation != wanted.generation,
		ready:   m.Phase == enroll.Ready,
		voter:   c.voter(m), wasVoter: c.Etcd.Voters[m.ID] != "",
		silent: m.Silent(now),
	}
}

// voter says that the machine is a healthy voter, as far as it says so itself.
func (c Cluster) voter(m inventory.Machine) bool {
	return m.Etcd.Voter && m.Etcd.Healthy && m.Etcd.Generation == c.Etcd.Generation
}
