#!/usr/bin/env bash
# Installs, upgrades, removes and purges the package above a throw-away layer of this machine's own file system; the machine stays as it is.
#
#   deploy/debian/check.sh PACKAGE
#
# Needs root, overlayfs and Debian. Ends with 77 where a layer cannot be had.
set -euo pipefail

[ $# = 1 ] || { sed -n '2,6p' "$0" | sed 's/^# \{0,1\}//' >&2; exit 2; }
if [ -z "${TRESOR_DEB_CHECK:-}" ]; then
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    cp "$1" "$work/tresor.deb"
    cp "$0" "$work/check.sh"
    mkdir "$work/layer"
    code=0
    TRESOR_DEB_CHECK=$work unshare --mount --pid --fork bash "$work/check.sh" "$work/tresor.deb" || code=$?
    exit $code
fi

# From here on in a mount namespace of its own.
layer=$TRESOR_DEB_CHECK/layer
mount --make-rprivate /
# An overlay cannot lie on an overlay: its upper half is in memory.
mount -t tmpfs tmpfs "$layer" || exit 77
mkdir "$layer/upper" "$layer/work" "$layer/root"
mount -t overlay overlay -o "lowerdir=/,upperdir=$layer/upper,workdir=$layer/work" "$layer/root" 2>/dev/null || {
    echo "no overlay file system can be had here" >&2
    exit 77
}
root=$layer/root
cp "$1" "$root/tresor.deb"
mount -t proc proc "$root/proc"
# A dpkg that runs elsewhere has its own lock; and a machine may have the package or its user already.
in_root() { chroot "$root" env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin DEBIAN_FRONTEND=noninteractive LC_ALL=C "$@"; }
fail() { echo "check: $*" >&2; exit 1; }

in_root dpkg -i --force-depends tresor.deb >"$layer/log" 2>&1 || { cat "$layer/log" >&2; fail "it cannot be installed"; }
in_root getent passwd tresor >/dev/null || fail "there is no user tresor"
[ "$(in_root stat -c '%U:%G %a' /var/lib/tresor)" = 'tresor:tresor 750' ] || fail "/var/lib/tresor is not the services' own"
[ "$(in_root stat -c '%U:%G %a' /etc/tresor/worker.env)" = 'root:tresor 640' ] || fail "settings are open or cannot be read"
in_root setpriv --reuid tresor --regid tresor --clear-groups tresor --home /var/lib/tresor config show >/dev/null \
    || fail "the services' user cannot read the settings"
if [ -e "$root/etc/systemd/system/multi-user.target.wants/tresor-worker.service" ]; then fail "a unit was enabled"; fi
in_root tresor --version >/dev/null || fail "the program does not run"
in_root test -s /usr/share/man/man1/tresor-worker-start.1.gz || in_root grep -q path-exclude -r /etc/dpkg || fail "there are no manual pages"
in_root bash -c 'source /usr/share/bash-completion/completions/tresor && complete -p tresor' >/dev/null || fail "bash does not complete"
if command -v systemd-analyze >/dev/null; then
    in_root systemd-analyze verify --man=no /usr/lib/systemd/system/tresor-{coordinator,worker,node}.service \
        || fail "the installed units are wrong"
fi

# Somebody uses it: settings and keys are there.
echo 'TRESOR_LOG=debug' >>"$root/etc/tresor/worker.env"
in_root install -d -o tresor -g tresor -m 700 /var/lib/tresor/keys
echo secret >"$root/var/lib/tresor/keys/key"

in_root dpkg -i --force-depends --force-confold tresor.deb >"$layer/log" 2>&1 || { cat "$layer/log" >&2; fail "it cannot be upgraded"; }
grep -q TRESOR_LOG=debug "$root/etc/tresor/worker.env" || fail "an upgrade took settings away"
in_root dpkg --remove tresor >"$layer/log" 2>&1 || { cat "$layer/log" >&2; fail "it cannot be removed"; }
[ -e "$root/etc/tresor/worker.env" ] || fail "a removal took settings away"
in_root dpkg --purge tresor >"$layer/log" 2>&1 || { cat "$layer/log" >&2; fail "it cannot be purged"; }
[ ! -e "$root/etc/tresor/worker.env" ] || fail "a purge left settings"
[ "$(cat "$root/var/lib/tresor/keys/key")" = secret ] || fail "a purge took a key away"
grep -q '/var/lib/tresor stays' "$layer/log" || fail "a purge does not say what it left"
echo "installed, upgraded, removed and purged; keys stayed"
