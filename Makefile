# Slipway. `make help` says what there is.

SHELL := /bin/bash
BUILD := .build
GO    ?= go

# What the host needs beside Go and make. QEMU and OVMF are the lab; the
# DHCP and TFTP clients are the strangers that the tests let loose on us.
PACKAGES := qemu-system-x86 ovmf ipxe ipxe-qemu seabios iproute2 util-linux \
	gcc libc6-dev libseccomp-dev pkg-config squashfs-tools grub-common grub-pc-bin grub-efi-amd64-bin xorriso kmod xz-utils zstd debian-archive-keyring ca-certificates \
	protobuf-compiler libprotobuf-dev \
	git procps curl busybox tcpdump udhcpc isc-dhcp-client tftp-hpa atftp dnsmasq-base \
	sbsigntool e2fsprogs xfsprogs btrfs-progs lvm2 cryptsetup-bin ntfs-3g dosfstools fdisk mount

# One way to compile for builds, vet and tests: each package is compiled once.
export CGO_ENABLED := 0
export GOFLAGS := $(strip $(GOFLAGS) -trimpath)

VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
COMMITTED := $(shell git log -1 --format=%ct 2>/dev/null)
LDFLAGS := -s -w -X slipway/configs/version.Version=$(VERSION) -X slipway/configs/version.Committed=$(COMMITTED)

.DEFAULT_GOAL := help

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

deps: ## install what the host lacks (apt, as root or through sudo)
	@test/deps.sh $(PACKAGES)

build: ## the slipway command: .build/bin/slipway
	@mkdir -p $(BUILD)/bin
	$(GO) build -ldflags '$(LDFLAGS)' -o $(BUILD)/bin/slipway ./cmd/slipway

image: build ## kernel, initramfs and loaders: .build/image
	$(BUILD)/bin/slipway image build --out $(BUILD)/image

demo: deps image ## a blank machine becomes a Ready Kubernetes node with a workload
	@test/demo/run.sh

demo-ha: deps image ## three control planes and a worker; the one that leads is lost (wants four cores or KVM)
	@test/demo/run-ha.sh

lint: ## format, vet, staticcheck, generated code
	@test/lint.sh

check: lint ## fast and offline: lint, import law, unit tests
	$(GO) test -short ./...

test: deps image lint ## everything: lint, unit and host tests, then the stories in QEMU machines
	$(GO) test -timeout 20m $$($(GO) list ./... | grep -v '^slipway/test/vm$$')
	$(GO) test -count=1 -v -timeout 60m ./test/vm

test-long: deps image ## the stories in QEMU machines with those that few emulated cores are spared: two to three hours on two
	SLIPWAY_VM_LONG=1 SLIPWAY_REQUIRE_VM=1 $(GO) test -count=1 -v -timeout 240m ./test/vm

release: build ## the image as it is published, compressed for size: .build/release
	$(BUILD)/bin/slipway image build --profile release --out $(BUILD)/release

bench: deps image release ## figures with their budgets; fails when one is passed
	$(GO) run ./test/bench

generate: ## the API's Go code from its .proto files
	@test/generate.sh

clean: ## remove what was built; the download caches stay
	rm -rf $(BUILD)

.PHONY: help deps build image demo demo-ha lint check test test-long release bench generate clean
