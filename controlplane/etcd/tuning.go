package etcd

import (
	"fmt"
	"time"
)

// SettleTime is how long a removal waits for members that have just come back.
// Whoever asks for one waits longer.
const SettleTime = 20 * time.Second

// Measured is what was measured on the machine for its member.
type Measured struct {
	Fsync     time.Duration // the 99th percentile of writing 2 KiB and syncing them, in the data directory; 0: it is in memory
	RoundTrip time.Duration // to the slowest member that answers, TLS connection standing
	Sign      time.Duration // the median of a P-256 signature: how fast the processor is
}

// Bounds of fsync. etcd's documentation asks for a 99th percentile below 10 ms
// (etcd.io/docs: hardware). A member with ten times that drags every write that
// needs it, and loses its leadership whenever the disk is busy.
const slowFsync = 100 * time.Millisecond

// SlowDisk says why a disk may not hold a member; empty if it may.
func (m Measured) SlowDisk() string {
	if m.Fsync <= slowFsync {
		return ""
	}
	return fmt.Sprintf("the disk is too slow for etcd: one sync in a hundred takes %s or longer, and %s is the bound", m.Fsync.Round(time.Millisecond), slowFsync)
}

// heartbeats are the steps that a heartbeat may have. They are few and apart so
// that machines of a kind come to the same one: a member that waits less long
// than the leader takes would ask for elections for ever.
var heartbeats = []time.Duration{100 * time.Millisecond, 250 * time.Millisecond, 500 * time.Millisecond, time.Second}

const (
	signsInHeartbeat = 1000                   // of a processor that does as many in a beat
	slowest          = 500 * time.Millisecond // that a processor alone can ask for
)

// Timing returns the heartbeat and the election timeout for a cluster of as
// many members. A lone member has nobody to lose, and waits up to one election
// timeout at each start: 50 and 500 ms. Others get the first step that is twice
// the round trip, one slow sync, and a thousand signatures long; 500 ms is what
// three members needed to keep their leader under software emulation on two
// cores. The election timeout is ten beats, as etcd's documentation advises.
func (m Measured) Timing(members int) (heartbeat, election time.Duration) {
	if members <= 1 {
		return 50 * time.Millisecond, 500 * time.Millisecond
	}
	need := max(2*m.RoundTrip, m.Fsync, min(signsInHeartbeat*m.Sign, slowest))
	for _, step := range heartbeats {
		heartbeat = step
		if step >= need {
			break
		}
	}
	return heartbeat, 10 * heartbeat
}
