package early

import (
	"fmt"
	"strings"

	"github.com/containerd/go-dmverity/pkg/dm"
	"golang.org/x/sys/unix"
)

// rootDevice is the name of the root's device in the device mapper.
const rootDevice = "slipway-root"

// openVerity makes a device on which each block of a slot is checked against
// the root hash as it is read, and returns its path. A block that is not what
// it was is an error for who reads it, and stays one in the device's status.
func openVerity(slot partition, want *rootWanted, salt []byte) (string, error) {
	control, err := dm.Open()
	if err != nil {
		return "", fmt.Errorf("open the device mapper: %w", err)
	}
	defer control.Close()
	params, err := dm.BuildTargetParams(dm.OpenArgs{
		Version: 1, DataDevice: slot.device, HashDevice: slot.device,
		DataBlockSize: verityBlock, HashBlockSize: verityBlock, DataBlocks: uint64(want.size / verityBlock),
		HashName: "sha256", RootDigest: want.hash, Salt: salt,
		HashStartBytes: uint64(want.size) + verityBlock, // after the superblock's block
	})
	if err != nil {
		return "", err
	}
	number, err := control.CreateDevice(rootDevice)
	if err != nil {
		return "", err
	}
	table := []dm.Target{{Length: uint64(want.size) / 512, Type: "verity", Params: params}}
	if err := control.LoadTable(rootDevice, table); err != nil {
		return "", err
	}
	if err := control.SuspendDevice(rootDevice, false); err != nil {
		return "", err
	}
	return fmt.Sprintf("/dev/dm-%d", unix.Minor(number)), nil
}

// RootCorrupted reports whether the kernel has met a block of the root that is
// not what its hash says. It is for a machine that booted from a slot.
func RootCorrupted() (bool, error) {
	control, err := dm.Open()
	if err != nil {
		return false, fmt.Errorf("open the device mapper: %w", err)
	}
	defer control.Close()
	status, err := control.TableStatus(rootDevice, false)
	if err != nil {
		return false, err
	}
	return corrupted(status)
}

// corrupted reads the target's status (kernel: admin-guide/device-mapper/verity):
// V as long as every block was valid, C for ever once one was not.
func corrupted(status string) (bool, error) {
	switch letter, _, _ := strings.Cut(status, " "); letter {
	case "V":
		return false, nil
	case "C":
		return true, nil
	}
	return false, fmt.Errorf("the kernel's status of the root is %q", status)
}
