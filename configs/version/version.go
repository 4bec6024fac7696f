// Package version holds Slipway's version, and that of the Kubernetes in the
// image that a program is part of. The builder sets them:
//
//	go build -ldflags '-X slipway/configs/version.Version=v0.1.0 -X slipway/configs/version.Kubernetes=v1.37.1'
package version

// They are written by the linker only: the package variables that are not constants.
var (
	Version    = "dev" // of this program
	Kubernetes = ""    // of the programs beside it, v1.37.1; empty outside an image
)
