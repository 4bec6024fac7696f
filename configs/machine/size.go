package machine

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// Size is a number of bytes, written with its unit: 20GiB, 500GB, 4096.
type Size uint64

// The binary units, which sizes of ours are said in.
const (
	MiB Size = 1 << 20
	GiB Size = 1 << 30
)

// units are tried in this order when a size is written: the first that
// divides it without a rest is its own.
var units = []struct {
	name  string
	bytes Size
}{
	{"TiB", 1 << 40}, {"TB", 1e12}, {"GiB", GiB}, {"GB", 1e9},
	{"MiB", MiB}, {"MB", 1e6}, {"KiB", 1 << 10}, {"kB", 1e3},
}

// String is the size with the largest unit that divides it.
func (s Size) String() string {
	for _, u := range units {
		if s >= u.bytes && s%u.bytes == 0 {
			return fmt.Sprintf("%d%s", s/u.bytes, u.name)
		}
	}
	return strconv.FormatUint(uint64(s), 10)
}

// MarshalText is String.
func (s Size) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText reads a whole number with a unit, or without one: bytes.
func (s *Size) UnmarshalText(text []byte) error {
	number, unit := string(text), Size(1)
	for _, u := range units {
		if rest, found := strings.CutSuffix(number, u.name); found {
			number, unit = strings.TrimSpace(rest), u.bytes
			break
		}
	}
	n, err := strconv.ParseUint(number, 10, 64)
	if err != nil || n > math.MaxUint64/uint64(unit) {
		return fmt.Errorf("read size %q: not a whole number with a unit such as GiB", text)
	}
	*s = Size(n) * unit
	return nil
}

// Described is what complaints about a text call it, and what it looks like.
func (Size) Described() (what, example string) {
	return "a size", "a whole number and a unit, such as 512MiB, 20GiB or 2TB"
}
