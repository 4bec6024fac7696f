// Slipway-init is the one program of ours on a node. What it does depends on
// how it is called:
//
//	as PID 1, by the kernel      goes from the initramfs to the root image, then runs the node
//	slipway-init agent           the node agent, a unit of PID 1; and so are
//	slipway-init apiproxy        the way to the API servers
//	slipway-init vip             the cluster's virtual IP
//	slipway-init etcd-member     what keeps the machine a member of etcd
//	slipway-init -q -- NAME      loads a kernel module; the kernel calls it (kernel.modprobe)
package main

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"

	"slipway/controlplane/etcd"
	"slipway/controlplane/etcd/member"
	"slipway/nodeinit/agent"
	"slipway/nodeinit/apiproxy"
	"slipway/nodeinit/vip"
)

func main() {
	runtime.LockOSThread() // proc.Reap must be on the main thread
	args := os.Args
	switch {
	case filepath.Base(args[0]) == "modprobe" || len(args) == 4 && args[1] == "-q":
		exit(modprobe(args[len(args)-1]))
	case len(args) > 1 && args[1] == "agent":
		exit(runUnit(agent.Main))
	case len(args) > 1 && args[1] == "apiproxy":
		exit(runUnit(apiproxy.Main))
	case len(args) > 1 && args[1] == "vip":
		exit(runUnit(vip.Main))
	case len(args) > 1 && args[1] == etcd.MemberUnit:
		exit(runUnit(member.Main))
	case os.Getpid() != 1:
		fmt.Fprintln(os.Stderr, "slipway-init: only PID 1 and its helpers run this program")
		os.Exit(2)
	case args[0] == "/init":
		enterRoot()
	default:
		runNode()
	}
}

func exit(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "slipway-init:", err)
		os.Exit(1)
	}
	os.Exit(0)
}
