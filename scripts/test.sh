#!/usr/bin/env bash
# Everything CI runs, one step after another; `make test` installs what it needs and calls this. Stops at the first
# step that fails. Every step uses the dev profile with the default features, so that nothing is compiled twice.
set -euo pipefail
cd "$(dirname "$0")/.."
[ "${CI:-}" != true ] || export NEXTEST_PROFILE=ci TRESOR_REQUIRE_SERVERS=1

timings=()
step() { # title command...
    local title=$1 start=$SECONDS
    shift
    printf '\n==> %s: %s\n' "$title" "$*"
    "$@" || { printf '\nFAILED: %s (%s)\n' "$title" "$*"; exit 1; }
    timings+=("$title $((SECONDS - start))s")
}

step format cargo fmt --all -- --check
step lints cargo clippy --workspace --all-targets --locked -- -D warnings
# The binaries first: stories in tests/ start the real `tresor`, and one of them the version before it.
step build cargo build --workspace --bins --locked
step previous scripts/previous.sh
step tests cargo nextest run --workspace --locked
step doctests cargo test --workspace --doc --locked --quiet
step docs env RUSTDOCFLAGS='-D warnings' cargo doc --workspace --no-deps --locked --quiet
step deployment scripts/check-deploy.sh
step licences cargo deny --offline --log-level error check bans licenses sources

printf '\nall passed in %ds:' "$SECONDS"
printf ' %s,' "${timings[@]}" | sed 's/,$//'
echo
