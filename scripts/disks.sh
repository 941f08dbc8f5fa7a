#!/usr/bin/env bash
# Builds the disks of the benchmark: three machines (web, db, app) on two days, as raw ext4 images.
#
#   scripts/disks.sh [--small | --full] [--rebuild]      prints the folder that holds them
#
# Each machine is installed on its own with mmdebstrap from this machine's Debian mirror. Its day-2 image is the same
# file system a day later: a copy of the day-1 image, mounted and used, so that what was not written stays in place.
# Results are kept in ${XDG_CACHE_HOME:-~/.cache}/tresor/disks/{small,full} and built once. Needs root, loop devices,
# mmdebstrap, e2fsprogs and the network.
#
# Everything that mounts or starts a server runs in mount and process namespaces of its own: however this script ends,
# no mount, loop device or postgres is left behind.
set -euo pipefail

usage() {
    sed -n '2,4p' "$0" | sed 's/^# \{0,1\}//'
    exit "${1:-2}"
}

suite=bookworm
set_name=small
rebuild=
inner=
while [ $# -gt 0 ]; do
    case $1 in
        --small) set_name=small ;;
        --full) set_name=full ;;
        --rebuild) rebuild=1 ;;
        --inner) inner=$2; shift ;; # one machine, already inside its namespaces
        -h | --help) usage 0 ;;
        *) usage ;;
    esac
    shift
done

cache=${XDG_CACHE_HOME:-$HOME/.cache}/tresor/disks
out=$cache/$set_name
say() { echo "disks: $*" >&2; }

# What each machine is: size of its disk, packages, and for the database its scale and its minutes of work.
common=linux-image-amd64,openssh-server,systemd-sysv
case $set_name in
    full)
        size_web=6G size_db=8G size_app=8G
        packages_web=nginx,php-fpm,python3,$common
        packages_db=postgresql,$common
        packages_app=openjdk-17-jre-headless,nodejs,git,$common
        pgbench_scale=60 pgbench_seconds=30
        ;;
    small)
        size_web=1G size_db=2G size_app=1G
        packages_web=nginx-light,python3
        packages_db=postgresql
        packages_app=nodejs,git
        pgbench_scale=5 pgbench_seconds=5
        ;;
esac

# Runs a command inside a root folder as the user postgres.
as_postgres() { # root command...
    local root=$1
    shift
    chroot "$root" su postgres -c "cd / && $*"
}

# Runs `body` (a function) with the server of the root folder running, and stops the server cleanly.
with_postgres() { # root body
    local root=$1 data pg
    mount -t proc proc "$root/proc"
    mount -t tmpfs -o mode=755 tmpfs "$root/dev"
    mkdir -m 1777 "$root/dev/shm"
    local n
    for n in null zero random urandom; do : >"$root/dev/$n" && mount --bind "/dev/$n" "$root/dev/$n"; done
    mount -t tmpfs -o mode=755 tmpfs "$root/run"
    chroot "$root" install -d -o postgres -g postgres /run/postgresql
    data=$(cd "$root" && echo var/lib/postgresql/*/main)
    pg=$(cd "$root" && echo usr/lib/postgresql/*/bin)
    [ -d "$root/$data" ] || { say "no postgres cluster in $root"; exit 1; }
    local conf=/etc/postgresql/$(basename "$(dirname "$data")")/main/postgresql.conf
    as_postgres "$root" "/$pg/pg_ctl -s -w -t 120 -D /$data -l /var/log/postgresql/bench.log \
        -o '-c config_file=$conf -c listen_addresses=' start" >&2
    "$2" "$root" "/$pg"
    as_postgres "$root" "/$pg/pg_ctl -s -w -t 120 -m fast -D /$data stop" >&2
    umount -R "$root/run" "$root/dev" "$root/proc"
}

db_day1() {
    as_postgres "$1" "$2/createdb bench"
    as_postgres "$1" "$2/pgbench -q -i -s $pgbench_scale bench" >&2
    as_postgres "$1" "psql -q -c checkpoint bench"
}

db_day2() {
    as_postgres "$1" "$2/pgbench -c 4 -T $pgbench_seconds bench" >&2
    as_postgres "$1" "psql -q -c checkpoint bench"
}

# A day of a machine that is not a database: some documentation goes, a Python tree is copied, logs are written.
files_day2() { # root python-tree
    local root=$1
    find "$root/usr/share/doc" -mindepth 1 -maxdepth 1 -name '[a-l]*' -exec rm -r {} +
    mkdir -p "$root/srv/release-2" "$root/var/log/app"
    cp -a "$2" "$root/srv/release-2/"
    local i
    for i in $(seq 200); do
        awk -v seed="$i$RANDOM$RANDOM" 'BEGIN {
            srand(seed); lines = 200 + int(rand() * 1200)
            for (i = 0; i < lines; i++)
                printf "2026-02-%02dT%02d:%02d:%02d.%06dZ %s request=%08x%08x took=%dus path=/v1/item/%d\n", 1 + rand() * 28,
                    rand() * 24, rand() * 60, rand() * 60, rand() * 1e6, rand() < 0.9 ? "info" : "warn",
                    rand() * 4294967295, rand() * 4294967295, rand() * 1e5, rand() * 1e7
        }' >"$root/var/log/app/worker-$i.log"
    done
}

# One machine, both days, in `work`; inside its own namespaces.
build_one() { # name
    local name=$1 work=$out/.work/$1 size packages
    size=size_$name packages=packages_$name
    rm -rf "$work"
    mkdir -p "$work"
    say "$name: installing ${!packages}"
    # systemd-sysv and the like ask for no service here: mmdebstrap keeps services from starting by its own policy-rc.d.
    mmdebstrap --quiet --mode=root --variant=minbase --include="${!packages}" "$suite" "$work/root" \
        >"$work/install.log" 2>&1 || { tail -20 "$work/install.log" >&2; exit 1; }
    echo "$name" >"$work/root/etc/hostname"
    [ "$name" != db ] || with_postgres "$work/root" db_day1

    say "$name: day 1"
    truncate -s "${!size}" "$work/day1.img"
    mke2fs -q -t ext4 -L "$name" -d "$work/root" "$work/day1.img"
    if [ "$name" = web ]; then
        cp -a "$work/root"/usr/lib/python3.* "$out/.work/python.part"
        mv "$out/.work/python.part" "$out/.work/python"
    fi

    say "$name: day 2"
    cp --sparse=always --reflink=auto "$work/day1.img" "$work/day2.img"
    mkdir "$work/mnt"
    mount -o loop "$work/day2.img" "$work/mnt"
    case $name in
        db) with_postgres "$work/mnt" db_day2 ;;
        *)
            # The Python tree is the web server's, for both: wait for it.
            until [ -e "$out/.work/python" ]; do
                [ ! -e "$out/.work/failed" ] || exit 1
                sleep 1
            done
            files_day2 "$work/mnt" "$out/.work/python"
            ;;
    esac
    umount "$work/mnt"
    e2fsck -fn "$work/day2.img" >/dev/null 2>&1 || { say "$name: day 2 is not a clean file system"; exit 1; }
    rm -rf "$work/root"
}

if [ -n "$inner" ]; then
    trap '[ $? = 0 ] || touch "$out/.work/failed"' EXIT
    build_one "$inner"
    exit 0
fi

if [ -z "$rebuild" ] && [ -f "$out/done" ]; then
    echo "$out"
    exit 0
fi
[ "$(id -u)" = 0 ] || { say "needs root (sudo -E $0 …): it mounts images and installs systems"; exit 1; }
for tool in mmdebstrap mke2fs e2fsck unshare; do
    command -v $tool >/dev/null || { say "$tool is missing: scripts/install-deps.sh --bench"; exit 1; }
done
mkdir -p "$out"
exec 9>"$out/.lock"
flock 9
if [ -z "$rebuild" ] && [ -f "$out/done" ]; then # another run built them meanwhile
    echo "$out"
    exit 0
fi
rm -rf "$out/done" "$out/.work"
mkdir -p "$out/.work"
pids=()
clean_up() {
    [ ${#pids[@]} = 0 ] || kill -KILL "${pids[@]}" 2>/dev/null || true # unshare ignores softer signals; its namespaces go with it
    wait
    rm -rf --one-file-system "$out/.work"
}
trap clean_up EXIT
trap 'exit 130' INT TERM

# One machine after another would wait for the mirror most of the time.
for name in web db app; do
    unshare --mount --pid --fork --kill-child -- bash "$0" "--$set_name" --inner $name 9>&- &
    pids+=($!)
done
failed=
for pid in "${pids[@]}"; do wait "$pid" || failed=1; done
if [ -n "$failed" ]; then
    say "a machine could not be built"
    exit 1
fi
for day in 1 2; do
    mkdir -p "$out/day$day"
    for name in web db app; do mv "$out/.work/$name/day$day.img" "$out/day$day/$name.raw"; done
done
sync -f "$out"
date -u +%FT%TZ >"$out/done"
say "$(du -shc "$out"/day1/*.raw | tail -1 | cut -f1) on disk of $(du -shc --apparent-size "$out"/day1/*.raw | tail -1 | cut -f1) on day 1"
echo "$out"
