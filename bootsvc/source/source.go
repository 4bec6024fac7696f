// Package source names what a machine that asks the network is to boot from.
// It is only the words: package inventory decides, the DHCP server and the
// script writer obey.
package source

// Source is what a machine boots from.
type Source string

// The sources.
const (
	Installer Source = "installer" // the network: a kernel that runs from RAM, enrols and installs
	Disk      Source = "disk"      // what is installed
	Hold      Source = "hold"      // nothing, until a person decides
)
