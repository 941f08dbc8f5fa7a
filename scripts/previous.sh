#!/usr/bin/env bash
# Builds the `tresor` of the version before this tree, for the story of an upgrade (tests/tests/processes/upgrade.rs):
# the newest tag v* before it or, while there is none, the commit named below. It is put beside the target folder's
# `debug`, as previous/tresor; a clone without that history builds nothing, and the story is skipped by name.
#
# In a target folder of its own, since cargo takes two checkouts of one workspace for the same one; with hard links to
# what is compiled of other crates, so that only Tresor's own are.
set -euo pipefail
cd "$(dirname "$0")/.."

# The first version that says which forms of entries it knows comes after this one.
first=6e137a5b844ed2090f75e06c5acb21d9cd121625

target=${CARGO_TARGET_DIR:-$PWD/target}
place=$target/previous
say() { echo "previous: $*" >&2; }

name=$(git describe --tags --match 'v*' --abbrev=0 HEAD 2>/dev/null || echo "$first")
if ! commit=$(git rev-parse --quiet --verify "$name^{commit}" 2>/dev/null); then
    say "no commit $name in this clone: nothing is built"
    rm -rf "$place"
    exit 0
fi
if [ -x "$place/tresor" ] && [ "$(cat "$place/commit" 2>/dev/null)" = "$commit" ]; then
    exit 0
fi
say "builds $name"
rm -rf "$place"
mkdir -p "$place/source" "$place/target/debug/deps"
trap 'rm -rf "$place/source" "$place/target"' EXIT
git archive "$commit" | tar -x -C "$place/source"
if [ -d "$target/debug/.fingerprint" ]; then
    others() { find "$target/debug/$1" -mindepth 1 -maxdepth 1 ! -iname '*tresor*' -print0; }
    mkdir -p "$place/target/debug/build" "$place/target/debug/.fingerprint"
    others deps | xargs -0 cp -al -t "$place/target/debug/deps"
    others build | xargs -0 cp -al -t "$place/target/debug/build"
    others .fingerprint | xargs -0 cp -a -t "$place/target/debug/.fingerprint"
fi
(cd "$place/source" && CARGO_TARGET_DIR=$place/target CARGO_INCREMENTAL=0 cargo build --locked -p tresor --bin tresor)
mv "$place/target/debug/tresor" "$place/tresor"
echo "$commit" >"$place/commit"
