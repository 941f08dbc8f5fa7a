#!/usr/bin/env bash
# Runs the comparison with the other tools: `make bench` and `make bench-full` call it.
#
#   scripts/bench.sh small|full
#
# TOOLS=tresor,restic,borg,rustic   ROUNDS=2   DISKS=folder with day1/*.raw and day2/*.raw   WORK=folder for repositories
set -euo pipefail
cd "$(dirname "$0")/.."
cache=${XDG_CACHE_HOME:-$HOME/.cache}/tresor
release=${CARGO_TARGET_DIR:-target}/release
set_name=${1:-small}

disks=${DISKS:-}
if [ -z "$disks" ]; then
    if [ -f "$cache/disks/$set_name/done" ] || [ "$(id -u)" = 0 ]; then
        disks=$(scripts/disks.sh "--$set_name")
    else # mounting and installing need root; the home stays ours, so that the cache is the same
        disks=$(sudo env HOME="$HOME" XDG_CACHE_HOME="${XDG_CACHE_HOME:-$HOME/.cache}" scripts/disks.sh "--$set_name")
    fi
fi
work=${WORK:-$cache/bench}
mkdir -p "$work"
trap 'rm -rf "$work/run"' EXIT
options=(--disks "$disks" --work "$work" --tresor "$release/tresor" --rounds "${ROUNDS:-2}" --set "$set_name" --out benches/results)
[ -z "${TOOLS:-}" ] || options+=(--tools "$TOOLS")
"$release/tresor-bench" "${options[@]}"
