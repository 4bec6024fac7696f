#!/usr/bin/env bash
# Prints owners.txtar: the begin and the end of disks that mdadm, zpool and
# ceph-osd have made, whose signatures TestSignatures is about. Use:
#
#   test/host/disk/testdata/owners.sh >owners.txtar
#
# The test does not run these programs itself. mdadm has its arrays written by a
# kernel with md, which a builder's often lacks; zfs-fuse starts a daemon where
# it is installed; ceph-osd comes in 44 packages. Here they are unpacked in a
# temporary folder, and mdadm runs in a machine of QEMU's. It takes Debian 12,
# root, /dev/fuse, what `make deps` installs, and a minute or two.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
exec 3>&1 >&2 # programs talk to standard error

size=6442450944 # disklayout.SmallestDisk
uuid=00000000-1111-4222-8333-444444444444
disks=(mdraid-0.90 mdraid-1.0 mdraid-1.1 mdraid-1.2 zfs ceph)
for disk in "${disks[@]}"; do truncate -s $size "$disk"; done

kernel=$(apt-cache depends linux-image-amd64 | awk '/Depends: linux-image-/ {print $2; exit}')
packages=(mdadm "$kernel" zfs-fuse ceph-osd ceph-base ceph-common librados2 librbd1 libradosstriper1
	libboost-thread1.74.0 libboost-context1.74.0 libfmt9 libtcmalloc-minimal4 libgoogle-perftools4
	liblua5.3-0 liboath0 librabbitmq4 libsnappy1v5 libleveldb1d)
apt-get -o APT::Sandbox::User=root download "${packages[@]}"
for package in *.deb; do dpkg-deb -x "$package" root; done

# The initramfs of a machine that makes the arrays. The superblocks of versions
# 0.90 and 1.0 are at a disk's end.
arrays() {
	mkdir -p initramfs/{dev,proc,sys,run,modules}
	cp "$(command -v busybox)" root/sbin/mdadm initramfs/
	local program library module n=10
	for program in initramfs/busybox initramfs/mdadm; do
		for library in $(ldd "$program" | grep -o '/[^ ]*'); do
			install -D "$library" "initramfs/$library"
		done
	done
	depmod -b root "${kernel#linux-image-}"
	for module in $(modprobe -a -d root -S "${kernel#linux-image-}" -D virtio_pci virtio_blk raid1 | awk '!seen[$2]++ {print $2}'); do
		case $module in
		*.xz) xz -dc "$module" ;;
		*) cat "$module" ;;
		esac >"initramfs/modules/$((n += 1)).ko"
	done
	cat >initramfs/init <<-'INIT'
		#!/busybox sh
		set -e
		/busybox mount -t devtmpfs dev /dev
		/busybox mount -t proc proc /proc
		/busybox mount -t sysfs sys /sys
		for module in /modules/*; do /busybox insmod $module; done
		export MDADM_NO_UDEV=1
		disk=/dev/vda
		for version in 0.90 1.0 1.1 1.2; do
			/mdadm --create /dev/md0 --run --metadata=$version --homehost=old --name=0 --uuid=00000000:11114222:83334444:44444444 \
				--level=1 --raid-devices=2 $disk missing
			/mdadm --stop /dev/md0
			disk=$(echo $disk | /busybox tr abc bcd)
		done
		/busybox sync
		/busybox poweroff -f
	INIT
	chmod +x initramfs/init
	(cd initramfs && find . | busybox cpio -o -H newc) >initramfs.cpio
	local drives=() disk
	for disk in mdraid-*; do drives+=(-drive "file=$disk,format=raw,if=virtio"); done
	qemu-system-x86_64 -nodefaults -display none -no-reboot -machine q35 -accel tcg -m 512 -serial stdio \
		-kernel "root/boot/vmlinuz-${kernel#linux-image-}" -initrd initramfs.cpio -append 'console=ttyS0 quiet panic=-1' "${drives[@]}" </dev/null
}

# pool needs a daemon, whose socket and files are in folders of its own. The
# label has the path of the disk and the name of the computer.
pool() {
	hostname old
	mount -t tmpfs tmpfs /run
	mount -t tmpfs tmpfs /var/lib
	mkdir -p /run/zfs /run/lock/zfs /var/lib/zfs
	touch /run/disk
	mount --bind zfs /run/disk
	root/sbin/zfs-fuse --no-daemon --no-kstat-mount --pidfile "$work/zfs-fuse.pid" &
	local daemon=$!
	until [ -S /run/zfs/zfs_socket ]; do kill -0 $daemon; sleep 0.1; done
	root/sbin/zpool create -m none old /run/disk
	root/sbin/zpool export old
	kill $daemon
	wait $daemon || true
}

osd() {
	local libraries=$work/root/usr/lib/x86_64-linux-gnu
	mkdir osd
	ln -s "$work/ceph" osd/block
	printf '[global]\nfsid = %s\nauth client required = none\nplugin dir = %s/ceph\nerasure code dir = %s/ceph/erasure-code\nosd class dir = %s/rados-classes\n' \
		$uuid "$libraries" "$libraries" "$libraries" >ceph.conf
	LD_LIBRARY_PATH=$libraries:$libraries/ceph root/usr/bin/ceph-osd --mkfs --id 0 --conf ceph.conf --no-mon-config \
		--osd-objectstore bluestore --osd-uuid $uuid --osd-data "$work/osd" --log-file "$work/ceph.log"
}

# edges prints what is at both ends of a disk, in lines of od, without zeros.
edges() {
	local disk=$1 length=$2 at
	for at in 0 $((size - length)); do
		od -v -A x -t x8z --endian=big -w32 -j "$at" -N "$length" "$disk" | grep -v -E '^[0-9a-f]+(( 0{16}){4} .*)?$' || true
	done
}

arrays
export work
export -f pool
unshare --mount --uts bash -euc pool
osd
{
	echo "Disks of $size bytes, made as owners.sh tells by the programs of"
	printf '  %s\n' mdadm_*.deb zfs-fuse_*.deb ceph-osd_*.deb linux-image-*.deb | sed 's/_amd64.deb//'
	echo "Of each: what is not zero in its first and its last MiB, in lines of od; of Ceph's"
	echo "in its first 8 KiB, which are the label and the superblock of BlueFS."
	for disk in "${disks[@]}"; do
		[ -n "$(wipefs --no-act "$disk")" ]
		echo "-- $disk --"
		case $disk in
		ceph) edges "$disk" 8192 ;;
		*) edges "$disk" 1048576 ;;
		esac
	done
} >&3
