#!/usr/bin/env bash
# Installs what scripts/check-deploy.sh checks with: linters, Compose and Helm's engine, as Python packages of deploy/requirements.txt.
#
# They live in $TRESOR_DEPLOY_TOOLS, by default ${XDG_CACHE_HOME:-$HOME/.cache}/tresor/deploy-tools, outside the tree, shared by clones.
# Running it again when they are there takes a moment and no network. On a bare Debian or Ubuntu it installs Python as root.
set -euo pipefail
cd "$(dirname "$0")/.."

tools=${TRESOR_DEPLOY_TOOLS:-${XDG_CACHE_HOME:-$HOME/.cache}/tresor/deploy-tools}
mkdir -p "$tools"

# Two runs at once (two clones on one machine) would install over each other.
exec 9>"$tools/.lock"
if command -v flock >/dev/null; then flock 9; fi

say() { printf 'deploy tools: %s\n' "$*"; }

wanted=$(sha256sum deploy/requirements.txt | cut -d ' ' -f 1)
# The stamp is written last, so that an interrupted installation is done again, from nothing.
if [ "$(cat "$tools/stamp" 2>/dev/null)" != "$wanted" ] || ! [ -x "$tools/python/bin/python" ]; then
    if ! python3 -c 'import ensurepip, venv' 2>/dev/null; then
        command -v apt-get >/dev/null || { say "please install python3 with venv" >&2; exit 1; }
        sudo=
        [ "$(id -u)" = 0 ] || sudo=sudo
        say "installing python3-venv"
        $sudo apt-get update -qq
        DEBIAN_FRONTEND=noninteractive $sudo apt-get install -y -qq --no-install-recommends python3 python3-venv >/dev/null
    fi
    say "installing the packages of deploy/requirements.txt"
    rm -rf "$tools/python" "$tools/stamp"
    python3 -m venv "$tools/python"
    # Prebuilt ones only: nothing is compiled for a linter, and no source that downloads a binary of its own is run.
    "$tools/python/bin/python" -m pip install --quiet --disable-pip-version-check --only-binary :all: -r deploy/requirements.txt
    echo "$wanted" >"$tools/stamp"
fi

say "they are in $tools"
