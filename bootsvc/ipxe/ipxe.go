// Package ipxe writes the script that iPXE runs: fetch the kernel and the
// initramfs, say where the boot service is, start; or go on to the disk; or wait
// for a person. It is templates and nothing more; package httpd serves what it returns.
package ipxe

import (
	"bytes"
	"embed"
	"fmt"
	"strings"
	"text/template"

	"slipway/bootsvc/source"
)

// Script is what one machine's script says.
type Script struct {
	// HTTP is the base URL of the artifacts, without a slash at its end.
	HTTP string
	// API is the URL of the enrolment endpoint: https://address:8443.
	API string
	// CA is the boot service's CA certificate's SHA-256, in hex.
	CA string
	// Machine is the machine's ID, 52-54-00-12-34-56. Empty leaves it to
	// iPXE, which takes the network card it was started from.
	Machine string
	// Args are the image's own kernel arguments.
	Args []string
	// From is what the machine boots from; if it is held, Why says the reason.
	From source.Source
	Why  string
	// Anew has the machine install itself over the installation that it has.
	Anew bool
}

// How often, and at what interval, a script tries before it restarts the machine.
const (
	tries    = 10
	interval = 5 // seconds
	pause    = 30
)

//go:embed *.tmpl
var texts embed.FS

// text is the template of what the machine boots from.
func (s Script) text() string {
	switch s.From {
	case source.Disk:
		return "disk.ipxe.tmpl"
	case source.Hold:
		return "hold.ipxe.tmpl"
	}
	return "boot.ipxe.tmpl"
}

// Render writes the script. An argument that could end the line or the word
// is an error.
func (s Script) Render() ([]byte, error) {
	for _, arg := range append([]string{s.HTTP, s.API, s.CA, s.Machine}, s.Args...) {
		if strings.ContainsFunc(arg, func(c rune) bool { return c <= ' ' || c > '~' }) || strings.Contains(arg, "${") {
			return nil, fmt.Errorf("write boot script: %q cannot stand in a kernel command line", arg)
		}
	}
	if s.Machine == "" {
		s.Machine = "${netX/mac:hexhyp}"
	}
	t, err := template.ParseFS(texts, s.text())
	if err != nil {
		return nil, fmt.Errorf("parse boot script: %w", err)
	}
	var out bytes.Buffer
	err = t.Execute(&out, map[string]any{
		"HTTP": s.HTTP, "CommandLine": s.CommandLine(), "Machine": s.Machine, "Tries": tries, "Interval": interval,
		"Why": plain(s.Why), "Pause": pause,
	})
	if err != nil {
		return nil, fmt.Errorf("write boot script: %w", err)
	}
	return out.Bytes(), nil
}

// plain is a text that echo prints as it is: on one line, and without what
// iPXE would expand or take for a command's end.
func plain(text string) string {
	return strings.Map(func(c rune) rune {
		if c < ' ' || c > '~' || strings.ContainsRune("$|&\"'\\#", c) {
			return ' '
		}
		return c
	}, text)
}

// CommandLine is the kernel's: the image's own arguments, then Slipway's.
func (s Script) CommandLine() string {
	args := append([]string{}, s.Args...)
	args = append(args, "slipway.server="+s.API, "slipway.ca="+s.CA, "slipway.machine="+s.Machine)
	if s.Anew {
		args = append(args, "slipway.install=anew")
	}
	return strings.Join(args, " ")
}
