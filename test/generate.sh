#!/usr/bin/env bash
# Generates the Go code of both APIs. With --check it changes nothing and
# fails when the committed code is not what the .proto files say.
set -euo pipefail
cd "$(dirname "$0")/.."

protos=(bootsvc/api/bootv1/boot.proto nodeinit/api/nodev1/node.proto)
tools=$PWD/.build/tools
mkdir -p "$tools"
go build -o "$tools/" google.golang.org/protobuf/cmd/protoc-gen-go connectrpc.com/connect/cmd/protoc-gen-connect-go

out=.
if [ "${1:-}" = --check ]; then
	out=$(mktemp -d)
	trap 'rm -rf "$out"' EXIT
fi
for proto in "${protos[@]}"; do
	PATH=$tools:$PATH protoc -I . \
		--go_out="$out" --go_opt=module=slipway \
		--connect-go_out="$out" --connect-go_opt=module=slipway "$proto"
done
[ "$out" = . ] && exit 0
for file in $(cd "$out" && find . -name "*.go"); do
	diff -q "$out/$file" "$file" >/dev/null || { echo "$file is not what its .proto says; run: make generate" >&2; exit 1; }
done
