#!/usr/bin/env bash
# Shows Tresor on a real disk: backs it up, backs it up unchanged, changes it, backs it up again, restores both points
# and proves them equal; `make demo` builds and calls it. Ends with an error when anything differs.
#
#   DISK=path   a disk image of yours (raw, qcow2, vhdx, vhd, vmdk); it is copied first and only read. Without it, a
#               Debian system is installed into an image of 2 GiB, once.
#   KEEP=folder where the vault and the disks are left to look at (default ${XDG_CACHE_HOME:-~/.cache}/tresor/demo)
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH=$PATH:/usr/sbin:/sbin
cache=${XDG_CACHE_HOME:-$HOME/.cache}/tresor
tresor=${TRESOR:-${CARGO_TARGET_DIR:-target}/release/tresor}
keep=${KEEP:-$cache/demo}
unset TRESOR_HOME TRESOR_CLUSTER

say() { printf '%s\n' "$*" >&2; }
fail() {
    say "demo: FAILED: $*"
    exit 1
}
as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi; }
human() { numfmt --to=iec-i --suffix=B "$1"; }

[ -x "$tresor" ] || fail "no $tresor: run \`make demo\`, or set TRESOR"
mkdir -p "$keep"
keep=$(cd "$keep" && pwd)
work=$keep/work home=$keep/home

# --- the disk ---------------------------------------------------------------------------------------------------------

# A Debian system in an ext4 image; kept in the cache.
debian_disk() {
    local image=$cache/demo-debian.raw stage
    if [ ! -f "$image" ]; then
        say "demo: installing a Debian system to back up (once, a minute or two)"
        stage=$(mktemp -d "$cache/demo-stage.XXXXXX")
        if ! as_root mmdebstrap --quiet --variant=minbase --include=python3,openssh-server,nginx-light \
            bookworm "$stage/root" >"$stage/log" 2>&1; then
            tail -5 "$stage/log" >&2
            as_root rm -rf --one-file-system "$stage"
            fail "could not install Debian from a mirror; give a disk of yours: make demo DISK=path"
        fi
        truncate -s 2G "$stage/disk.raw"
        as_root mke2fs -q -t ext4 -L demo -d "$stage/root" "$stage/disk.raw"
        mv "$stage/disk.raw" "$image"
        as_root rm -rf --one-file-system "$stage"
    fi
    cp --sparse=always --reflink=auto "$image" "$disk"
}

# A day passes in the Debian system: documentation goes, a release is copied, logs are written. Without mounting, so
# that no root is needed: debugfs changes the file system in the image.
change_debian() {
    local script=$work/change.debugfs i file
    {
        echo "mkdir /srv/release-2"
        for file in $(find /usr/lib/python3* -maxdepth 1 -name '*.py' | head -150); do
            echo "write $file /srv/release-2/$(basename "$file")"
        done
        debugfs -R 'ls -p /usr/share/doc' "$disk" 2>/dev/null | awk -F/ '$3 ~ /^04/ && $6 ~ /^[a-l]/ { print $6 }' | while read -r file; do
            echo "rm /usr/share/doc/$file/changelog.Debian.gz"
        done
        echo "mkdir /var/log/app"
        for i in $(seq 20); do
            awk -v seed="$i" 'BEGIN { srand(seed); for (i = 0; i < 3000; i++)
                printf "%06d request=%08x took=%dus\n", i, rand() * 4294967295, rand() * 1e5 }' >"$work/log-$i"
            echo "write $work/log-$i /var/log/app/worker-$i.log"
        done
    } >"$script"
    debugfs -w -f "$script" "$disk" >"$work/change.log" 2>&1 || fail "debugfs could not change the disk: $(tail -1 "$work/change.log")"
    e2fsck -fn "$disk" >"$work/fsck.log" 2>&1 || fail "the changed disk is no clean file system: see $work/fsck.log"
}

# What is in a disk of the user's is not known: its copy gets random bytes in 40 places, and zeros in 10.
change_any() {
    local size blocks i at commands=()
    size=$(qemu-img info --output=json "$disk" | python3 -c 'import json, sys; print(json.load(sys.stdin)["virtual-size"])')
    blocks=$((size / 65536))
    [ "$blocks" -gt 0 ] || fail "the disk is smaller than 64 KiB"
    head -c 65536 /dev/urandom >"$work/random"
    for i in $(seq 50); do
        at=$(((RANDOM << 15 | RANDOM) % blocks * 65536))
        if [ "$i" -le 40 ]; then commands+=(-c "write -s $work/random $at 65536"); else commands+=(-c "write -z $at 65536"); fi
    done
    qemu-io -f "$qemu_format" "${commands[@]}" "$disk" >"$work/change.log" 2>&1 || fail "qemu-io could not change the copy: $(tail -1 "$work/change.log")"
}

rm -rf "$work" "$home"
mkdir -p "$work"
if [ -n "${DISK:-}" ]; then
    [ -r "$DISK" ] || fail "cannot read $DISK"
    disk=$work/$(basename "$DISK")
    say "demo: copying $DISK; the original is only read"
    cp --sparse=always --reflink=auto "$DISK" "$disk"
else
    disk=$work/debian.raw
    debian_disk
fi
case $disk in
    *.qcow2) qemu_format=qcow2 ;;
    *.vhdx) qemu_format=vhdx ;;
    *.vhd | *.vpc) qemu_format=vpc ;;
    *.vmdk) qemu_format=vmdk ;;
    *) qemu_format=raw ;;
esac
before=$work/before-${disk##*/} # the disk as it was at the first backup
cp --sparse=always --reflink=auto "$disk" "$before"

# --- backup, change, backup, restore ----------------------------------------------------------------------------------

# One command of Tresor; its JSON goes to work/NAME.json, its time to work/NAME.ms.
timed() { # name command...
    local name=$1 start
    shift
    say "demo: tresor $*"
    start=$(date +%s%N)
    "$tresor" --home "$home" "$@" --json >"$work/$name.json" || fail "\`tresor $*\` ended with exit code $?"
    echo $((($(date +%s%N) - start) / 1000000)) >"$work/$name.ms"
}
json() { python3 -c 'import json, sys; print(json.load(open(sys.argv[1]))[sys.argv[2]])' "$work/$1.json" "$2"; }
# What all objects of the vault's store weigh.
stored() { du -sb --apparent-size "$home/stores" | cut -f1; }

timed first backup "$disk" --item demo
stored >"$work/first.stored"
timed unchanged backup "$disk" --item demo
stored >"$work/unchanged.stored"
if [ -n "${DISK:-}" ]; then change_any; else change_debian; fi
timed changed backup "$disk" --item demo
stored >"$work/changed.stored"

timed raw restore demo --to "$work/restored.raw" --format raw
timed qcow2 restore demo --to "$work/restored.qcow2" --format qcow2
timed old restore "$(json first point)" --to "$work/restored-first.raw" --format raw
timed verify vault verify main

# --- proof ------------------------------------------------------------------------------------------------------------

same() { # format restored original
    qemu-img compare -q -f "$1" -F "$qemu_format" "$2" "$3" || fail "$2 differs from $3"
    say "demo: qemu-img compare: ${2##*/} equals ${3##*/}"
}
same raw "$work/restored.raw" "$disk"
same qcow2 "$work/restored.qcow2" "$disk"
same raw "$work/restored-first.raw" "$before"
if [ "$qemu_format" = raw ]; then # and without QEMU's help
    cmp "$work/restored.raw" "$disk" || fail "cmp: the restored disk differs"
    cmp "$work/restored-first.raw" "$before" || fail "cmp: the restored first point differs"
    say "demo: cmp: byte for byte equal"
fi
if qemu-img compare -q -f "$qemu_format" -F "$qemu_format" "$before" "$disk"; then
    fail "the change changed nothing, so the second backup proves nothing"
fi

python3 - "$work" "$disk" <<'PY'
import json, os, sys

work, disk = sys.argv[1:]
load = lambda name: json.load(open(f"{work}/{name}.json"))
number = lambda name: int(open(f"{work}/{name}").read())


def size(count):
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024 or unit == "GiB":
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024


def rate(count, milliseconds):
    return f"{size(count * 1000 / max(milliseconds, 1))}/s"


first = load("first")
logical = sum(d["size"] for d in first["disks"])
held = os.stat(disk).st_blocks * 512
print(f"\n{os.path.basename(disk)}: {size(logical)}, {size(held)} of it allocated\n")
rows = [("", "time", "disk speed", "read", "new", "vault grew by", "chunks new / known")]
before = 0
for title, name in (("first backup", "first"), ("unchanged", "unchanged"), ("after the change", "changed")):
    report, ms, stored = load(name), number(f"{name}.ms"), number(f"{name}.stored")
    rows.append((title, f"{ms / 1000:.2f} s", rate(logical, ms), size(report["bytes_read"]), size(report["bytes_new"]),
                 size(stored - before), f"{report['chunks_new']} / {report['chunks_known']}"))
    before = stored
for title, name in (("restore to raw", "raw"), ("restore to qcow2", "qcow2"), ("restore of the first point", "old")):
    ms = number(f"{name}.ms")
    rows.append((title, f"{ms / 1000:.2f} s", rate(logical, ms), "", "", "", ""))
widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
for row in rows:
    print("  " + "  ".join(cell.ljust(width) if i == 0 else cell.rjust(width) for i, (cell, width) in enumerate(zip(row, widths))).rstrip())
print(f"\nTwo points of {size(logical)} each are kept in {size(before)}.")
PY

cat <<TEXT

The vault is left for you to look into ($home):

  alias tresor='$tresor --home $home'
  tresor status
  tresor point list
  tresor point show demo
  tresor vault show main
  tresor restore demo --to /tmp/my-disk.raw --dry-run

All restored disks were equal to their originals.
TEXT
