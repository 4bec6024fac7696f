// Package version holds Slipway's version, and that of the Kubernetes in the
// image that a program is part of. The builder sets them:
//
//	go build -ldflags '-X slipway/configs/version.Version=v0.1.0 -X slipway/configs/version.Kubernetes=v1.37.1'
package version

import (
	"strconv"
	"time"
)

// They are written by the linker only: the package variables that are not constants.
var (
	Version    = "dev" // of this program
	Committed  = ""    // when the commit was made that it was built from, in seconds since 1970; empty: nobody said
	Kubernetes = ""    // of the programs beside it, v1.37.1; empty outside an image
)

// CommitTime is Committed; the zero value if nobody said.
func CommitTime() time.Time {
	seconds, err := strconv.ParseInt(Committed, 10, 64)
	if err != nil {
		return time.Time{}
	}
	return time.Unix(seconds, 0).UTC()
}
