// Package version holds Slipway's version. The builder sets it:
//
//	go build -ldflags '-X slipway/configs/version.Version=v0.1.0'
package version

// Version is the version of this program. It is written by the linker only:
// the one package variable that is not a constant.
var Version = "dev"
