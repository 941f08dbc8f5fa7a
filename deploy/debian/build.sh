#!/usr/bin/env bash
# Makes the Debian package of a binary that is there already; no network, no root.
#
#   deploy/debian/build.sh BINARY FOLDER
#
# Manual pages and completions are written by the binary itself. Prints the package's path. Needs dpkg-dev.
# TRESOR_DEB_REVISION=2 for another package of the same version; TRESOR_DEB_COMPRESSION=none for one that is only tried out.
set -euo pipefail

[ $# = 2 ] || { sed -n '2,7p' "$0" | sed 's/^# \{0,1\}//' >&2; exit 2; }
binary=$(realpath "$1") folder=$(realpath "$2")
here=$(cd "$(dirname "$0")" && pwd)
deploy=$(dirname "$here")
cd "$deploy/.."

version=$("$binary" --version | cut -d ' ' -f 2)
package_version=$version-${TRESOR_DEB_REVISION:-1}
architecture=$(dpkg --print-architecture)
# The same input makes the same package, byte for byte: all times are those of the last commit.
if [ -z "${SOURCE_DATE_EPOCH:-}" ]; then
    SOURCE_DATE_EPOCH=$(git log -1 --format=%ct 2>/dev/null || date +%s)
fi
export SOURCE_DATE_EPOCH

stage=$(mktemp -d)
trap 'rm -rf "$stage"' EXIT
root=$stage/root
put() { # mode source target
    install -D -m "$1" "$2" "$root/$3"
}
packed() { # target, of standard input
    mkdir -p "$(dirname "$root/$1")"
    gzip -9n >"$root/$1"
    chmod 644 "$root/$1"
}

install -D -m 755 "$binary" "$root/usr/bin/tresor"
# Symbols are nine tenths of it.
strip --strip-unneeded --remove-section=.comment --remove-section=.note "$root/usr/bin/tresor"

"$binary" man "$stage/man"
for page in "$stage"/man/*.1; do
    name=${page##*/}
    packed "usr/share/man/man1/$name.gz" <"$page"
done
mkdir -p "$stage/completion"
for shell in bash zsh fish; do "$binary" completion "$shell" >"$stage/completion/$shell"; done
put 644 "$stage/completion/bash" usr/share/bash-completion/completions/tresor
put 644 "$stage/completion/zsh" usr/share/zsh/vendor-completions/_tresor
put 644 "$stage/completion/fish" usr/share/fish/vendor_completions.d/tresor.fish

for unit in coordinator worker node; do
    put 644 "$deploy/systemd/tresor-$unit.service" "usr/lib/systemd/system/tresor-$unit.service"
    put 640 "$deploy/etc/$unit.env" "etc/tresor/$unit.env"
done
put 640 "$deploy/etc/config.toml" etc/tresor/config.toml
put 644 "$deploy/systemd/tresor.sysusers" usr/lib/sysusers.d/tresor.conf
put 644 "$deploy/systemd/tresor.tmpfiles" usr/lib/tmpfiles.d/tresor.conf
for example in "$deploy"/systemd/examples/*; do
    put 644 "$example" "usr/share/doc/tresor/examples/$(basename "$example")"
done
put 644 "$here/copyright" usr/share/doc/tresor/copyright
put 644 "$here/README.Debian" usr/share/doc/tresor/README.Debian
packed usr/share/doc/tresor/changelog.gz <CHANGELOG.md
packed usr/share/doc/tresor/changelog.Debian.gz <<EOF
tresor ($package_version) unstable; urgency=medium

  * Version $version; what is new is in changelog.gz.

 -- Tresor maintainers <maintainers@localhost>  $(LC_ALL=C date -u -R -d "@$SOURCE_DATE_EPOCH")
EOF
for document in cli install operations control-plane fault-model; do
    [ ! -f "docs/$document.md" ] || put 644 "docs/$document.md" "usr/share/doc/tresor/$document.md"
done

mkdir -p "$root/DEBIAN" "$stage/debian"
for script in postinst prerm postrm; do install -m 755 "$here/$script" "$root/DEBIAN/$script"; done
(cd "$root" && find etc -type f -printf '/%p\n' | sort) >"$root/DEBIAN/conffiles"
(cd "$root" && find usr -type f -print0 | sort -z | xargs -0 md5sum) >"$root/DEBIAN/md5sums"

# Which versions of the C and C++ libraries the binary needs is read from it.
printf 'Source: tresor\nPackage: tresor\nArchitecture: any\n' >"$stage/debian/control"
depends=$(cd "$stage" && dpkg-shlibdeps -O --warnings=0 root/usr/bin/tresor 2>/dev/null | sed -n 's/^shlibs:Depends=//p')
[ -n "$depends" ] || { echo "build: dpkg-shlibdeps tells no libraries of $binary" >&2; exit 1; }
size=$(du -sk --apparent-size --exclude=DEBIAN "$root" | cut -f 1)
cat >"$root/DEBIAN/control" <<EOF
Package: tresor
Version: $package_version
Architecture: $architecture
Maintainer: Tresor maintainers <maintainers@localhost>
Installed-Size: $size
Depends: $depends, systemd | systemd-standalone-sysusers | systemd-sysusers, systemd | systemd-standalone-tmpfiles | systemd-tmpfiles
Recommends: ca-certificates
Suggests: qemu-utils
Section: admin
Priority: optional
Description: backup of virtual machines for large clusters
 Workers stream disks into a vault: deduplicated, encrypted, content-addressed
 objects in any object storage (files, S3, Azure, GCS). Every recovery point is
 complete, incremental for ever, and restores to another format, disk or place.
 .
 One program is command, coordinator and worker. The units of this package are
 started by nobody before they are configured.
EOF
chmod -R u+rwX,go+rX,go-w "$root"
chmod 640 "$root"/etc/tresor/*
find "$root" -newermt "@$SOURCE_DATE_EPOCH" -print0 | xargs -0r touch --no-dereference --date="@$SOURCE_DATE_EPOCH"

package=$folder/tresor_${package_version}_$architecture.deb
dpkg-deb --root-owner-group "-Z${TRESOR_DEB_COMPRESSION:-xz}" --build "$root" "$package" >/dev/null
echo "$package"
