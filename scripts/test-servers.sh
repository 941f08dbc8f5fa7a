#!/usr/bin/env bash
# Installs the servers that tests start: moto_server (S3) and azurite (Azure blobs) for storage/tests, aiosmtpd (mail) for cli/tests/mail.rs.
#
# They live in $TRESOR_TEST_SERVERS, by default ${XDG_CACHE_HOME:-$HOME/.cache}/tresor/servers, outside the tree, shared by clones.
# Running it again when they are there takes a moment and no network. On a bare Debian or Ubuntu it installs Python, node and npm as root.
set -euo pipefail

# Pinned: a stand-in that changes under a test is a test that fails on another day. Raise them on purpose.
MOTO=5.2.5
MAIL=1.4.6
AZURITE=3.37.0

servers=${TRESOR_TEST_SERVERS:-${XDG_CACHE_HOME:-$HOME/.cache}/tresor/servers}
mkdir -p "$servers"

# Two runs at once (two clones on one machine) would install over each other.
exec 9>"$servers/.lock"
if command -v flock >/dev/null; then flock 9; fi

say() { printf 'test servers: %s\n' "$*"; }

# Installs Debian packages, when they are not there already.
packages() {
    command -v apt-get >/dev/null || { say "please install: $*" >&2; exit 1; }
    local sudo=
    if [ "$(id -u)" != 0 ]; then
        command -v sudo >/dev/null || { say "please install as root: $*" >&2; exit 1; }
        sudo=sudo
    fi
    say "installing $*"
    $sudo apt-get update -qq
    DEBIAN_FRONTEND=noninteractive $sudo apt-get install -y -qq --no-install-recommends "$@" >/dev/null
}

# The stamp is written last, so that an interrupted installation is done again, from nothing.
if [ "$(cat "$servers/moto.version" 2>/dev/null)" != "$MOTO" ] || ! [ -x "$servers/python/bin/moto_server" ]; then
    python3 -c 'import ensurepip, venv' 2>/dev/null || packages python3 python3-venv
    say "installing moto $MOTO"
    rm -rf "$servers/python" "$servers/moto.version"
    python3 -m venv "$servers/python"
    "$servers/python/bin/python" -m pip install --quiet --disable-pip-version-check "moto[server]==$MOTO"
    "$servers/python/bin/python" -c 'import moto.server'
    echo "$MOTO" >"$servers/moto.version"
fi

if [ "$(cat "$servers/mail.version" 2>/dev/null)" != "$MAIL" ] || ! "$servers/python/bin/python" -c 'import aiosmtpd' 2>/dev/null; then
    say "installing aiosmtpd $MAIL"
    "$servers/python/bin/python" -m pip install --quiet --disable-pip-version-check "aiosmtpd==$MAIL"
    echo "$MAIL" >"$servers/mail.version"
fi

if [ "$(cat "$servers/azurite.version" 2>/dev/null)" != "$AZURITE" ] || ! [ -x "$servers/node_modules/.bin/azurite-blob" ]; then
    command -v node >/dev/null && command -v npm >/dev/null || packages nodejs npm
    say "installing azurite $AZURITE"
    rm -rf "$servers/node_modules" "$servers/azurite.version"
    npm install --prefix "$servers" --no-save --no-audit --no-fund --loglevel=error "azurite@$AZURITE" >/dev/null
    "$servers/node_modules/.bin/azurite-blob" --version >/dev/null
    echo "$AZURITE" >"$servers/azurite.version"
fi

say "moto $MOTO, aiosmtpd $MAIL and azurite $AZURITE are in $servers"
