package inventory

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"slipway/bootsvc/timeline"
	"slipway/configs/enroll"
	"slipway/configs/machine"
	"slipway/configs/wipe"
)

// Machine is what the boot service knows of a machine, but for its timeline.
type Machine struct {
	ID         string       `json:"id"` // the MAC address it boots from, 52-54-00-12-34-56
	Phase      enroll.Phase `json:"phase"`
	WaitingFor string       `json:"waitingFor,omitempty"` // in words, with what a person can do
	Address    netip.Addr   `json:"address,omitzero"`
	Facts      enroll.Facts `json:"facts"`
	FirstSeen  time.Time    `json:"firstSeen"`
	LastSeen   time.Time    `json:"lastSeen"`

	Enrolment Enrolment `json:"enrolment"`

	// Given is the config that the machine was given last, and Applied the one
	// that its units run with, as far as is known of this boot.
	Given   Given  `json:"given,omitzero"`
	Applied string `json:"applied,omitempty"` // hex SHA-256
	// Prepared says that it runs what every node runs, or tried to, while it
	// waits for its first config.
	Prepared bool `json:"prepared,omitempty"`
	// Etcd is what the machine said last of its member of etcd.
	Etcd EtcdState `json:"etcd,omitzero"`

	Installation Installation `json:"installation,omitzero"`

	// Trusts is the digest of the boot service's CAs that the machine trusts, as it said last.
	Trusts string `json:"trusts,omitempty"`

	// Cluster, Hostname and Role are empty until a cluster claims the machine.
	Cluster  string       `json:"cluster,omitempty"`
	Hostname string       `json:"hostname,omitempty"`
	Role     machine.Role `json:"role,omitempty"`
}

// Given is a config that was handed out.
type Given struct {
	Digest string `json:"digest"` // hex SHA-256
	// Generation is that of etcd in the config; 0 without one of our own.
	Generation int `json:"generation,omitempty"`
}

// EtcdState is what a machine says of its member of etcd.
type EtcdState struct {
	MemberID   string `json:"memberID,omitempty"` // hex; empty before it is a member
	Generation int    `json:"generation,omitempty"`
	Voter      bool   `json:"voter,omitempty"`
	Healthy    bool   `json:"healthy,omitempty"` // it answers linearizable reads
	Leader     bool   `json:"leader,omitempty"`
	Revision   int64  `json:"revision,omitempty"`
}

// Enrolment is which key may speak for the machine.
type Enrolment struct {
	Pending  Key `json:"pending,omitzero"`  // waits for approval
	Approved Key `json:"approved,omitzero"` // speaks for the machine
	// Retired are the hashes of keys that once were approved, newest last.
	// They are never taken again.
	Retired []string `json:"retired,omitempty"`
	// Acknowledged is when the machine said that it has stored its config;
	// zero until it has, for this key.
	Acknowledged time.Time `json:"acknowledged,omitzero"`
	// Released is set when a cluster lets go of a machine that has a config:
	// that config is to be reset, and not to be changed.
	Released bool `json:"released,omitempty"`
	// Forced is set with Released when etcd's quorum does not matter any more:
	// the cluster was given up, or the change was forced.
	Forced bool `json:"forced,omitempty"`
	// Wipe is set with Released: how the disk of an installed machine is wiped; empty: metadata.
	Wipe wipe.How `json:"wipe,omitempty"`
}

// Key is a machine's public key.
type Key struct {
	Hash  string    `json:"hash"`  // hex SHA-256 of the SubjectPublicKeyInfo
	Words string    `json:"words"` // four words that the machine's console shows too
	Since time.Time `json:"since"`
	// By is what approved it: "rule ..." or a person's name; empty while pending.
	By string `json:"by,omitempty"`
}

// maxRetired bounds the retired keys of a machine. A machine in RAM makes one
// with every boot.
const maxRetired = 64

// Approve makes a key the one that speaks for the machine. The key before it is
// retired, and the config is delivered anew.
func (e Enrolment) Approve(key Key) Enrolment {
	if e.Approved.Hash != "" && e.Approved.Hash != key.Hash {
		e.Retired = append(slices.Clone(e.Retired), e.Approved.Hash)
		e.Retired = e.Retired[max(0, len(e.Retired)-maxRetired):]
	}
	return Enrolment{Approved: key, Retired: e.Retired}
}

// Approve is the machine with another key, which speaks for it from now on.
// What had the key before is gone: the machine was started again, or reset.
func (m Machine) Approve(key Key) Machine {
	m.Enrolment = m.Enrolment.Approve(key)
	m.Given, m.Applied, m.Etcd, m.Installation, m.Trusts, m.Prepared = Given{}, "", EtcdState{}, Installation{}, "", false
	return m
}

// Words are those of the key that waits for approval or else was approved.
func (m Machine) Words() string {
	if m.Enrolment.Pending.Words != "" {
		return m.Enrolment.Pending.Words
	}
	return m.Enrolment.Approved.Words
}

// Next is the machine after an event. newBoot says that the event is the first
// of a boot. It is pure; the table of its tests is the machine's life.
func (m Machine) Next(e Event, newBoot bool) Machine {
	m.LastSeen = later(m.LastSeen, e.At)
	if m.FirstSeen.IsZero() {
		m.FirstSeen = e.At
	}
	if e.Address.IsValid() {
		m.Address = e.Address
	}
	if e.UUID != "" && m.Facts.UUID == "" {
		m.Facts.UUID = e.UUID
	}
	switch {
	case m.Phase == "":
		m = m.Enter(enroll.Discovered)
	case newBoot && m.Phase != enroll.Discovered:
		m = m.Enter(enroll.Booting)
	}
	if newBoot { // what runs on it now, nobody knows
		m.Applied, m.Etcd, m.Prepared = "", EtcdState{}, false
		m = m.returned(e)
	}
	if m.Phase == enroll.Discovered && loading(e) {
		m = m.Enter(enroll.Booting)
	}
	return m
}

// loading says that firmware or its loader got as far as fetching something.
func loading(e Event) bool {
	return e.Name == "tftp" || e.Name == "http" || e.Asker == timeline.Loader
}

// Enter puts the machine into a phase, with what it then waits for.
func (m Machine) Enter(phase enroll.Phase) Machine {
	m.Phase = phase
	m.WaitingFor = map[enroll.Phase]string{
		enroll.Discovered: "its firmware to fetch a loader",
		enroll.Booting:    "its kernel to start and to enrol",
		enroll.Enrolling:  "approval: compare the words with its console, then slipway machines approve " + m.ID,
		enroll.Approved:   "a cluster to claim it: slipway cluster create",
		enroll.Assigned:   "the machine to fetch its config",
		enroll.Installing: "its disk to be written",
		enroll.Joining:    "its services to start",
	}[phase]
	return m
}

// How long a machine that has its config may say nothing: it reports every half
// a minute, and a report may take ten seconds.
const (
	overdue = 45 * time.Second // it may not be any more what it said last
	silence = 2 * time.Minute  // it is taken for dead
)

// quietSteps are the steps in which silence is told, so that whoever follows a
// machine does not hear of another reason every second.
const quietSteps = 15 * time.Second

// reports says that the machine is one that reports.
func (m Machine) reports() bool {
	switch m.Phase {
	case enroll.Installing, enroll.Joining, enroll.Ready, enroll.Failed:
		return true
	}
	return false
}

// Late says that a report of the machine is overdue: its phase and its etcd are
// what it said last, and may not be so any more.
func (m Machine) Late(now time.Time) bool { return m.reports() && now.Sub(m.LastSeen) > overdue }

// Leader is the ID of the machine that leads etcd: of those that said so the one
// heard of last, for a leader that lost its power cannot take its word back.
// Empty if that one's report is overdue.
func Leader(machines []Machine, now time.Time) string {
	var last Machine
	for _, m := range machines {
		if m.Etcd.Leader && m.LastSeen.After(last.LastSeen) {
			last = m
		}
	}
	if last.Late(now) {
		return ""
	}
	return last.ID
}

// Silent says that the machine, which was to report every half a minute, has
// said nothing for so long that it is taken for dead.
func (m Machine) Silent(now time.Time) bool { return now.Sub(m.LastSeen) > silence }

// Waits is what the machine waits for at a time. A machine that is not heard
// from any more cannot say so itself.
func (m Machine) Waits(now time.Time) string {
	quiet := now.Sub(m.LastSeen).Truncate(quietSteps)
	switch {
	case m.reports() && m.Silent(now):
		return fmt.Sprintf("a sign of life: nothing was heard for %v; look at its console", quiet)
	case m.Late(now):
		return fmt.Sprintf("%s; last heard of %v ago", cmp.Or(m.WaitingFor, "its next report"), quiet)
	}
	return m.WaitingFor
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
