package early

import (
	"bytes"
	"os"
	"path/filepath"
)

// alone is an action during which no second processor runs, where that matters:
// on QEMU's software emulation. Its processors may keep a breakpoint that the
// kernel wrote for a moment while it patched its own code (a static key), run
// into it later, and oops; seen with QEMU 7.2 in update_curr, once in some
// twenty boots. A processor that is off keeps nothing. Elsewhere the action is
// done as it is.
type alone struct {
	action
	cpuinfo, processors string // /proc/cpuinfo, /sys/devices/system/cpu
}

func (a alone) do() error {
	info, err := os.ReadFile(a.cpuinfo)
	if err != nil || !bytes.Contains(info, []byte("QEMU TCG CPU")) {
		return a.action.do()
	}
	for _, online := range a.others() {
		if os.WriteFile(online, []byte("0"), 0) == nil {
			defer os.WriteFile(online, []byte("1"), 0) // a machine with fewer processors is one all the same
		}
	}
	return a.action.do()
}

// others are the switches of the processors that are on and can be switched off.
func (a alone) others() (list []string) {
	paths, _ := filepath.Glob(filepath.Join(a.processors, "cpu[0-9]*", "online")) // the pattern is good
	for _, path := range paths {
		state, err := os.ReadFile(path)
		if err == nil && string(bytes.TrimSpace(state)) == "1" && filepath.Base(filepath.Dir(path)) != "cpu0" {
			list = append(list, path)
		}
	}
	return list
}
