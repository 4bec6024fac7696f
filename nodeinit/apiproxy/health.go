package apiproxy

// Level is how well an upstream is. A higher one is better.
type Level int

// The levels.
const (
	Dead    Level = iota // does not answer
	Unready              // answers that it is not ready, or nothing; it may still serve some
	Unknown              // not asked yet
	Healthy
)

func (l Level) String() string { return [...]string{"dead", "unready", "unknown", "healthy"}[l] }

// Result is what one probe of an upstream came to.
type Result int

// The results.
const (
	OK       Result = iota // ready
	NotReady               // it answered something else
	Slow                   // it takes the question, and does not answer in time
	Silent                 // it cannot be reached, or is no API server of this cluster
	Refused                // nothing listens there
)

// How many of the same result in a row it takes. One that is refused needs no
// second: the process is gone. A machine that is busy may be slow for a while,
// and to leave it would only make the others as busy.
const (
	toHealthy = 2
	toUnready = 2
	toSlow    = 3
	toDead    = 2
)

// health is what the results so far say. The zero value is an upstream that is
// dead; start with newHealth.
type health struct {
	level Level
	last  Result
	count int // of last in a row
}

func newHealth() health { return health{level: Unknown} }

// observe is the health after one more result. The first result ever decides
// at once.
func (h health) observe(r Result) health {
	if h.count == 0 || r != h.last {
		h.last, h.count = r, 0
	}
	h.count++
	next, enough := verdict(r)
	if h.level == Unknown || h.count >= enough {
		h.level = next
	}
	return h
}

// verdict is the level a result stands for, and how often it has to come.
func verdict(r Result) (level Level, enough int) {
	switch r {
	case OK:
		return Healthy, toHealthy
	case NotReady:
		return Unready, toUnready
	case Slow:
		return Unready, toSlow
	case Silent:
		return Dead, toDead
	default:
		return Dead, 1
	}
}
