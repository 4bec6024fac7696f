package early

import (
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"slipway/configs/disklayout"
)

const (
	newRoot   = "/newroot"
	rootImage = "/root.squashfs"
	cgroups   = "/sys/fs/cgroup"
	// Self is where this program is on the node.
	Self = "/usr/bin/slipway-init"
	// UnitCgroup is above the cgroups of all units.
	UnitCgroup = cgroups + "/slipway"
)

const hardened = unix.MS_NOSUID | unix.MS_NODEV

// kernelMounts are what every program expects of the kernel. They are made in
// the initramfs and move along to the root.
var kernelMounts = []action{
	mount{"devtmpfs", "/dev", unix.MS_NOSUID, "mode=0755"},
	mount{"proc", "/proc", hardened | unix.MS_NOEXEC, ""},
	mount{"sysfs", "/sys", hardened | unix.MS_NOEXEC, ""},
}

// toNewRoot makes the mounted root image the root. A mount cannot leave a
// parent that is shared, which the kernel's first mounts are not.
var toNewRoot = []action{
	bind{"/init", newRoot + Self},
	move{"/dev", newRoot + "/dev"},
	move{"/proc", newRoot + "/proc"},
	move{"/sys", newRoot + "/sys"},
}

// nodeMounts are the rest, up to /var. Mounts are shared, which kubelet needs
// for volumes that pods mount.
var nodeMounts = []action{
	remount{"/", unix.MS_REC | unix.MS_SHARED},
	mount{"tmpfs", "/run", hardened, "mode=0755,size=20%"},
	mount{"tmpfs", "/tmp", hardened, "mode=1777,size=20%"},
	mount{"tmpfs", "/etc", hardened | unix.MS_NOEXEC, "mode=0755,size=16m"},
	mount{"devpts", "/dev/pts", unix.MS_NOSUID | unix.MS_NOEXEC, "mode=0620,gid=5,ptmxmode=0666"},
	mount{"tmpfs", "/dev/shm", hardened, "mode=1777,size=10%"},
	optional{mount{"mqueue", "/dev/mqueue", hardened | unix.MS_NOEXEC, ""}},
	mount{"cgroup2", cgroups, hardened | unix.MS_NOEXEC, "nsdelegate"},
	optional{mount{"bpf", "/sys/fs/bpf", hardened | unix.MS_NOEXEC, "mode=0700"}},
	optional{mount{"efivarfs", "/sys/firmware/efi/efivars", hardened | unix.MS_NOEXEC | unix.MS_RDONLY, ""}},

	copyTree{"/usr/share/slipway/etc", "/etc"},
	link{"/etc/mtab", "../proc/self/mounts"},
	dir{"/run/lock", 0o777 | os.ModeSticky},
	dir{"/run/slipway", 0o755},
	link{"/dev/fd", "/proc/self/fd"},
	link{"/dev/stdin", "/proc/self/fd/0"},
	link{"/dev/stdout", "/proc/self/fd/1"},
	link{"/dev/stderr", "/proc/self/fd/2"},
}

// memoryVar is /var (containers, images, etcd) of a machine that runs from RAM.
// It may take 60 % of memory, and no more than is used counts.
var memoryVar = []action{
	mount{"tmpfs", "/var", unix.MS_NOSUID, "mode=0755,size=60%"},
	// etcd reserves 128 MB for its log ahead of use, which a tmpfs would take
	// from memory at once. A ramfs cannot reserve; etcd's quota bounds it.
	mount{"ramfs", "/var/lib/etcd", hardened | unix.MS_NOEXEC, "mode=0700"},
}

// stateMount is where an installed machine keeps who it is, on the disk that it
// booted from.
func stateMount(disk string) []action {
	return []action{volume{disk, disklayout.StateLabel, "/state", hardened | unix.MS_NOEXEC}}
}

// diskVar is what it keeps besides.
func diskVar(disk string) []action {
	return []action{
		volume{disk, disklayout.DataLabel, "/var", unix.MS_NOSUID},
		dir{"/var/lib/etcd", 0o700},
	}
}

// varFolders are in /var, whatever it is on.
var varFolders = []action{
	dir{"/var/log/slipway", 0o755},
	dir{"/var/lib", 0o755},
	dir{"/var/tmp", 0o777 | os.ModeSticky},
	link{"/var/run", "../run"},
	link{"/var/lock", "../run/lock"},
}

// settings are the kernel's. Those that kubelet insists on, should somebody
// set protectKernelDefaults, have its values.
var settings = []action{
	sysctl("kernel.panic", "10"),        // reboot, seconds after a panic (kubelet)
	sysctl("kernel.panic_on_oops", "1"), // (kubelet)
	sysctl("kernel.keys.root_maxkeys", "1000000"),
	sysctl("kernel.keys.root_maxbytes", "25000000"),
	sysctl("vm.overcommit_memory", "1"),
	sysctl("vm.panic_on_oom", "0"),

	sysctl("kernel.printk", "4 4 1 7"), // warnings to the console; all of it stays in dmesg
	sysctl("kernel.modprobe", Self),    // called as: Self -q -- NAME
	sysctl("kernel.core_pattern", "/dev/null"),
	sysctl("kernel.pid_max", "4194304"),
	sysctl("kernel.kptr_restrict", "1"),
	sysctl("kernel.unprivileged_bpf_disabled", "1"),
	sysctl("vm.max_map_count", "262144"),
	sysctl("fs.inotify.max_user_instances", "8192"), // two or three per pod
	sysctl("fs.inotify.max_user_watches", "524288"),
	sysctl("fs.protected_hardlinks", "1"),
	sysctl("fs.protected_symlinks", "1"),

	sysctl("net.ipv4.ip_forward", "1"),
	sysctl("net.ipv4.conf.all.rp_filter", "0"), // answers of a service may take another way
	sysctl("net.ipv4.conf.default.rp_filter", "0"),
	sysctl("net.ipv4.neigh.default.gc_thresh2", "4096"),
	sysctl("net.ipv4.neigh.default.gc_thresh3", "8192"),
}

// bridgeSettings exist once br_netfilter is loaded: kube-proxy's rules must see
// what pods of one node say to each other through a service.
var bridgeSettings = []action{
	sysctl("net.bridge.bridge-nf-call-iptables", "1"),
	sysctl("net.bridge.bridge-nf-call-ip6tables", "1"),
}

// sysctl is a setting by its usual name. Kernels differ in what they offer.
func sysctl(name, value string) action {
	return optional{set{"/proc/sys/" + strings.ReplaceAll(name, ".", "/"), value}}
}

// Essential modules are those that units rely on from their start.
var Essential = []string{"overlay", "br_netfilter"}

// Expected modules are those that a node comes to use whatever its devices are:
// pods' network cards, and what kube-proxy's rules are made of. Loading them
// early, beside other work, is quicker than the kernel asking for each; what is
// missing here still comes when the kernel asks for it.
var Expected = []string{
	"veth", "nf_tables", "nft_chain_nat", "nft_ct", "nft_masq", "nft_nat", "nft_reject_inet", "nft_fib_inet", "nft_numgen",
}
