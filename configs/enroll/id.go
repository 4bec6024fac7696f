package enroll

import (
	"fmt"
	"net"
	"strings"
)

// ParseMachineID reads a machine ID as people and firmware write it, with
// dashes or colons, in either case, and returns its one form:
// 52-54-00-12-34-56. Group addresses and zeros name no machine.
func ParseMachineID(text string) (string, error) {
	mac, err := net.ParseMAC(text)
	if err != nil || len(mac) != 6 {
		return "", fmt.Errorf("read machine ID %q: not a MAC address such as 52-54-00-12-34-56", text)
	}
	if mac[0]&1 == 1 || mac.String() == "00:00:00:00:00:00" {
		return "", fmt.Errorf("read machine ID %q: not the address of one machine", text)
	}
	return strings.ReplaceAll(mac.String(), ":", "-"), nil
}

// MAC returns the hardware address of a machine ID, nil if it is none.
func MAC(machineID string) net.HardwareAddr {
	mac, err := net.ParseMAC(machineID)
	if err != nil {
		return nil
	}
	return mac
}
