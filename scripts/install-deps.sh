#!/usr/bin/env bash
# Installs what Tresor needs on Debian or Ubuntu, and only what is missing: where nothing is, no network is used.
#
#   scripts/install-deps.sh [build] [deb] [test] [demo] [bench]    (build when none is given)
#
# System packages by apt-get, with sudo when not root. cargo-nextest and cargo-deny, when missing, go to
# ${XDG_CACHE_HOME:-~/.cache}/tresor/bin, which the Makefile puts into PATH.
set -euo pipefail

cache=${XDG_CACHE_HOME:-$HOME/.cache}/tresor
export PATH=$cache/bin:/usr/sbin:/sbin:$PATH
mkdir -p "$cache/bin"
exec 9>"$cache/.install.lock"
flock 9 2>/dev/null || true # two builds at once: one installs, the other waits

have() { command -v "$1" >/dev/null 2>&1; }
say() { echo "install-deps: $*" >&2; }
as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi; }

updated=
apt_install() {
    have apt-get || { say "not a Debian or Ubuntu machine; please install by hand: $*"; exit 1; }
    if [ -z "$updated" ]; then
        as_root apt-get update -qq || say "apt-get update reported problems; going on with the lists there are"
        updated=1
    fi
    say "installing $*"
    # RUNLEVEL=1: what is installed for a build or a test starts no service. 9>&-: one that starts all the same does not inherit the lock.
    as_root env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 apt-get install -y -qq --no-install-recommends \
        -o DPkg::Lock::Timeout=300 "$@" 9>&- >/dev/null
}

packages=()
command_from() { have "$1" || packages+=("${2:-$1}"); } # command [package]
path_from() { compgen -G "$1" >/dev/null || packages+=("$2"); } # glob package
flush() {
    [ ${#packages[@]} = 0 ] || apt_install "${packages[@]}"
    packages=()
}

build() {
    if ! have cargo; then
        say "Rust is missing: install it from https://rustup.rs, then run this again"
        exit 1
    fi
    command_from make
    command_from gcc
    command_from g++
    command_from clang
    command_from pkg-config
    command_from ccache
    # RocksDB's bindings are generated at build time, by libclang from the C header.
    path_from '/usr/lib/llvm-*/lib/libclang*.so*' libclang-dev
    flush
}

# QEMU's parts must be of one version. A machine can carry a newer qemu-utils from another suite, which an install of
# the suite's own qemu-system-common would remove: so all of them in one command, of the version that has all.
qemu() {
    if have qemu-img && have qemu-nbd && have qemu-storage-daemon; then return; fi
    local parts=(qemu-utils qemu-system-common qemu-block-extra) version wanted=() part
    as_root apt-get update -qq || true
    updated=1
    version=$(LC_ALL=C apt-cache policy qemu-system-common | awk '/Candidate:/ { print $2 }')
    for part in "${parts[@]}"; do wanted+=("$part=$version"); done
    apt_install --allow-downgrades "${wanted[@]}"
    for part in qemu-img qemu-nbd qemu-storage-daemon; do
        $part --version >/dev/null || { say "$part does not answer after the install"; exit 1; }
    done
}

cargo_tool() { # command crate
    have "$1" && return
    say "building $2 (once)"
    # Without optimisation: they run for seconds, and compile three times as fast.
    CARGO_TARGET_DIR=$cache/tools-target cargo install --quiet --locked --debug --root "$cache" "$2" 9>&-
    rm -rf "$cache/tools-target"
}

test_() {
    qemu
    command_from mke2fs e2fsprogs
    command_from ip iproute2
    # Rules and dashboards are tested with a Prometheus of the tests' own.
    command_from promtool prometheus
    flush
    # The object stores that the conformance suite talks to.
    "$(dirname "$0")/test-servers.sh" 9>&-
    # What deploy/ is checked with. A platform that a linter is not made for does without: the check names what it skipped.
    "$(dirname "$0")/deploy-tools.sh" 9>&- || say "deploy/ will be checked in part only"
    command_from dpkg-shlibdeps dpkg-dev
    flush
    cargo_tool cargo-nextest cargo-nextest
    cargo_tool cargo-deny cargo-deny
}

disk_makers() {
    command_from mke2fs e2fsprogs
    command_from mmdebstrap
    command_from python3
    [ -e /usr/share/keyrings/debian-archive-keyring.gpg ] || packages+=(debian-archive-keyring)
}

deb() {
    command_from dpkg-shlibdeps dpkg-dev
    command_from strip binutils
    flush
}

demo() {
    # Whatever version is there: a demonstration changes no QEMU.
    command_from qemu-nbd qemu-utils
    command_from qemu-io qemu-utils
    disk_makers
    flush
}

bench() {
    disk_makers
    command_from restic
    command_from borg borgbackup
    flush
}

[ $# -gt 0 ] || set -- build
for group in "$@"; do
    case $group in
        build | deb | demo | bench) "$group" ;;
        test) test_ ;;
        *) sed -n '2,7p' "$0" | sed 's/^# \{0,1\}//' >&2; exit 2 ;;
    esac
done
