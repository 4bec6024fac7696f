package agent

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"

	"slipway/configs/enroll"
)

// Args is what the boot service wrote on the kernel's command line.
type Args struct {
	Server  *url.URL          // https://HOST:PORT
	CA      [sha256.Size]byte // the SHA-256 of the boot CA's certificate, DER
	Machine string            // the machine's ID
	// Anew: a person had the machine install itself anew, though it is installed.
	Anew bool
}

// MAC is the hardware address the machine booted from.
func (a Args) MAC() net.HardwareAddr { return enroll.MAC(a.Machine) }

// ParseArgs reads slipway.server, slipway.ca, slipway.machine and
// slipway.install=anew. Of an
// argument that stands twice the last counts, as in the kernel. The error
// joins all that is missing or wrong.
func ParseArgs(cmdline string) (Args, error) {
	values := map[string]string{}
	for _, word := range strings.Fields(cmdline) {
		if key, value, ok := strings.Cut(word, "="); ok {
			values[key] = value
		}
	}
	var args Args
	var errs [3]error
	args.Server, errs[0] = parseServer(values["slipway.server"])
	args.CA, errs[1] = parsePin(values["slipway.ca"])
	args.Machine, errs[2] = parseMachine(values["slipway.machine"])
	args.Anew = values["slipway.install"] == "anew"
	if err := errors.Join(errs[:]...); err != nil {
		return Args{}, err
	}
	return args, nil
}

// arguments reads the kernel's command line, and keeps what the boot service
// wrote there: a loader on a disk does not know it, and what was kept counts then.
func arguments(cmdline string, s store) (Args, error) {
	var words []string
	for _, word := range strings.Fields(cmdline) {
		switch key, _, _ := strings.Cut(word, "="); key {
		case "slipway.server", "slipway.ca", "slipway.machine":
			words = append(words, word)
		}
	}
	if len(words) == 0 {
		kept, err := s.load(argsFile)
		if err != nil {
			return Args{}, err
		}
		return ParseArgs(string(kept))
	}
	args, err := ParseArgs(cmdline)
	if err != nil {
		return Args{}, err
	}
	return args, s.save(argsFile, []byte(strings.Join(words, " ")+"\n"))
}

func parseServer(text string) (*url.URL, error) {
	if text == "" {
		return nil, errors.New("kernel argument slipway.server is missing; it is the boot service's https://HOST:PORT")
	}
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "https" || u.Hostname() == "" || u.Port() == "" || u.User != nil || u.RawQuery != "" || strings.Trim(u.Path, "/") != "" {
		return nil, fmt.Errorf("kernel argument slipway.server=%s is not https://HOST:PORT", text)
	}
	return &url.URL{Scheme: "https", Host: u.Host}, nil
}

func parsePin(text string) (pin [sha256.Size]byte, err error) {
	if text == "" {
		return pin, errors.New("kernel argument slipway.ca is missing; it is the SHA-256 of the boot CA's certificate, 64 hex digits")
	}
	raw, err := hex.DecodeString(text)
	if err != nil || len(raw) != sha256.Size {
		return pin, fmt.Errorf("kernel argument slipway.ca=%s is not a SHA-256, 64 hex digits", text)
	}
	return [sha256.Size]byte(raw), nil
}

func parseMachine(text string) (string, error) {
	if text == "" {
		return "", errors.New("kernel argument slipway.machine is missing; it is the MAC address the machine booted from")
	}
	id, err := enroll.ParseMachineID(text)
	if err != nil {
		return "", fmt.Errorf("kernel argument slipway.machine=%s: %w", text, err)
	}
	return id, nil
}
