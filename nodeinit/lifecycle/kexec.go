package lifecycle

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Kernel is what a restart without the firmware starts.
type Kernel struct {
	Image     []byte // bzImage
	Initramfs []byte
	Arguments string
}

// Load has the running kernel keep k for a restart (kexec_file_load(2)). It may
// be repeated; the last counts. A kernel that is locked down wants k signed.
func (k Kernel) Load() error {
	image, err := memoryFile("kernel", k.Image)
	if err != nil {
		return err
	}
	defer image.Close()
	initramfs, err := memoryFile("initramfs", k.Initramfs)
	if err != nil {
		return err
	}
	defer initramfs.Close()
	if err := unix.KexecFileLoad(int(image.Fd()), int(initramfs.Fd()), k.Arguments, 0); err != nil {
		return fmt.Errorf("load the next kernel: %w", err)
	}
	return nil
}

// memoryFile is a file that is only in memory: the kernel reads from files.
func memoryFile(name string, data []byte) (*os.File, error) {
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("make room for the next kernel: %w", err)
	}
	file := os.NewFile(uintptr(fd), name)
	if _, err := file.Write(data); err != nil {
		return nil, errors.Join(fmt.Errorf("make room for the next kernel: %w", err), file.Close())
	}
	return file, nil
}
