#!/usr/bin/env bash
# make lint: what needs no test run, offline.
set -euo pipefail
cd "$(dirname "$0")/.."

step() { printf -- '-- %s\n' "$1"; shift; "$@"; }

formatted() {
	local files
	files=$(git ls-files -z '*.go' | xargs -0 gofmt -l)
	[ -z "$files" ] || { printf 'not gofmt-ed:\n%s\n' "$files" >&2; return 1; }
}

step format formatted
step vet go vet ./...
step vet-payload go -C image/payload vet -tags nri_no_wasm,no_zfs,no_devmapper ./multicall
step staticcheck go tool staticcheck ./...
step generated test/generate.sh --check
