// Package qemu is the lab: a rack of QEMU machines on a virtual network of their own.
//
// A lab is one process, the holder, in namespaces of its own: user, network, mount and
// process. The network namespace holds a bridge and one tap per machine and has no route
// out. The holder is PID 1 of its process namespace, so when it ends, in whatever way, the
// kernel ends every machine and the boot service with it: nothing is ever left over. No
// root is needed where user namespaces work, and root takes the same path.
//
// The package starts the boot service as an opaque command line and knows nothing about
// Slipway itself. `slipway lab` and test/vmtest call it.
//
//	Start  makes a lab and returns its Leash: cut it, or die, and the lab is gone;
//	       release it, and the lab stays until Lab.Down
//	Hold   is the body of the holder process that Start re-executes
//	Open   finds a running lab by its name: Status, Power, Enter, Console, Down
package qemu
