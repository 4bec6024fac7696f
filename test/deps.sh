#!/usr/bin/env bash
# Installs the Debian packages named as arguments that the host lacks.
set -euo pipefail

missing=()
for package in "$@"; do
	dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
done
[ ${#missing[@]} -eq 0 ] && exit 0

install="apt-get install -y --no-install-recommends ${missing[*]}"
if [ "$(id -u)" -eq 0 ]; then
	run=(env DEBIAN_FRONTEND=noninteractive)
elif command -v sudo >/dev/null && sudo -n true 2>/dev/null; then
	run=(sudo -n env DEBIAN_FRONTEND=noninteractive)
else
	printf 'Slipway needs these Debian packages. Have root run:\n\n  apt-get update && %s\n\n' "$install" >&2
	exit 1
fi
echo "installing: ${missing[*]}"
"${run[@]}" apt-get update -qq
"${run[@]}" $install >/dev/null
