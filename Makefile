# Tresor: `make help` lists the commands. Everything else is cargo.

CACHE := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/tresor
# One target folder for every clone: the dependencies (RocksDB above all) are compiled once on a machine.
export CARGO_TARGET_DIR ?= $(CACHE)/target
# The compiler cache comes in by PATH and not by CC: a changed CC would make cargo build every C and C++ part again.
# The second folder holds the tools that scripts/install-deps.sh installs for this project alone.
export PATH := /usr/lib/ccache:$(CACHE)/bin:$(PATH):$(HOME)/.cargo/bin
export CCACHE_MAXSIZE ?= 5G
SHELL := bash

.DEFAULT_GOAL := help
.PHONY: help build deb demo test fmt bench bench-full disks clean-disks

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo; echo "  The demo takes DISK=path (an image of yours, of any format; it is copied first) and KEEP=folder."
	@echo "  make bench takes TOOLS=tresor,restic,borg ROUNDS=2 DISKS=folder."

build: ## the release binary, in $CARGO_TARGET_DIR/release/tresor
	@scripts/install-deps.sh build
	cargo build --release --locked -p tresor

deb: ## the Debian package of the release binary, in $CARGO_TARGET_DIR/debian
	@scripts/install-deps.sh build deb
	cargo build --release --locked -p tresor
	@mkdir -p $(CARGO_TARGET_DIR)/debian
	@deploy/debian/build.sh $(CARGO_TARGET_DIR)/release/tresor $(CARGO_TARGET_DIR)/debian

demo: ## back up a real disk, change it, back it up again, restore it, prove it equal
	@scripts/install-deps.sh build demo
	cargo build --release --locked -p tresor
	@scripts/demo.sh

test: ## everything CI runs: format, lints, tests, documentation, licences
	@scripts/install-deps.sh build test
	@scripts/test.sh

fmt: ## format all code
	cargo fmt --all

bench: ## compare with the other installed tools on the small disks; writes benches/results/
	@scripts/install-deps.sh build bench
	cargo build --release --locked -p tresor -p tresor-benches --bins
	@scripts/bench.sh small

bench-full: ## the same on the full disks (22 GiB; needs root, 60 GB of space and half an hour)
	@scripts/install-deps.sh build bench
	cargo build --release --locked -p tresor -p tresor-benches --bins
	@scripts/bench.sh full

disks: ## build the disks of the benchmark, without running it (SET=small or full)
	@scripts/install-deps.sh bench
	@scripts/disks.sh --$(or $(SET),small)

clean-disks: ## remove the disks of the benchmark and the demo from the cache
	rm -rf $(CACHE)/disks $(CACHE)/bench $(CACHE)/demo $(CACHE)/demo-debian.raw
