#!/usr/bin/env bash
# Installs the Debian packages named as arguments that the host lacks, and a QEMU
# whose software emulation is sound with several processors (qemu/speed.go,
# safeSMP): where the release's own is older, the one from its backports.
set -euo pipefail

if [ "$(id -u)" -eq 0 ]; then
	run=(env DEBIAN_FRONTEND=noninteractive)
elif command -v sudo >/dev/null && sudo -n true 2>/dev/null; then
	run=(sudo -n env DEBIAN_FRONTEND=noninteractive)
else
	run=()
fi

install_missing() {
	local missing=() package
	for package in "$@"; do
		dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
	done
	[ ${#missing[@]} -eq 0 ] && return
	local install="apt-get install -y --no-install-recommends ${missing[*]}"
	if [ ${#run[@]} -eq 0 ]; then
		printf 'Slipway needs these Debian packages. Have root run:\n\n  apt-get update && %s\n\n' "$install" >&2
		exit 1
	fi
	echo "installing: ${missing[*]}"
	"${run[@]}" apt-get update -qq
	"${run[@]}" $install >/dev/null
}

# The backports are named for this one installation only: apt's own list of
# sources stays as it is. Without them the lab works as well, with one CPU a
# machine, and slower.
newer_qemu() {
	local have sources mirror
	have=$(dpkg-query -W -f '${Version}' qemu-system-x86 2>/dev/null) || return 0
	if ! dpkg --compare-versions "$have" lt 1:8.1 || [ ${#run[@]} -eq 0 ]; then
		return 0
	fi
	. /etc/os-release
	sources=$(mktemp -d)
	trap 'rm -rf "$sources"' RETURN
	mkdir -p "$sources/parts" "$sources/lists/partial"
	cp /etc/apt/sources.list.d/*.sources /etc/apt/sources.list.d/*.list "$sources/parts/" 2>/dev/null || true
	mirror=$(apt-get indextargets --format '$(REPO_URI)' "Codename: $VERSION_CODENAME" 2>/dev/null | head -n 1)
	[ -n "$mirror" ] || return 0
	printf 'deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] %s %s-backports main\n' "$mirror" "$VERSION_CODENAME" >"$sources/parts/backports.list"
	chmod -R a+rX "$sources"
	local apt=("${run[@]}" apt-get -qq -o "Dir::Etc::SourceParts=$sources/parts" -o "Dir::State::Lists=$sources/lists" -o APT::Sandbox::User=root)
	echo "installing: QEMU from $VERSION_CODENAME-backports, instead of $have"
	if ! "${apt[@]}" update || ! "${apt[@]}" install -y --no-install-recommends -t "$VERSION_CODENAME-backports" qemu-system-x86 >/dev/null; then
		echo "$VERSION_CODENAME-backports has no newer QEMU to be had; machines of the lab get one CPU each" >&2
	fi
}

install_missing "$@"
newer_qemu
