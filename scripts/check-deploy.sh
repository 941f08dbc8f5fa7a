#!/usr/bin/env bash
# Checks deploy/ with the tools that are there, and names what it could not check. Changes nothing on the machine.
#
#   scripts/check-deploy.sh [BINARY]      (a tresor to make the Debian package of; without it the newest in the target folder)
#
# scripts/deploy-tools.sh installs most of the tools; systemd, dpkg-dev and promtool are used when the machine has them.
set -euo pipefail
cd "$(dirname "$0")/.."

cache=${XDG_CACHE_HOME:-$HOME/.cache}/tresor
tools=${TRESOR_DEPLOY_TOOLS:-$cache/deploy-tools}
export PATH=$tools/python/bin:$PATH
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# Ansible keeps what it likes in the home, and nothing of it counts here.
export ANSIBLE_HOME=$work/ansible XDG_CACHE_HOME=$work/cache

passed=() skipped=() failed=()
have() { command -v "$1" >/dev/null 2>&1; }
skip() { skipped+=("$1 ($2)"); }
# A check that ends with 77 says itself, in its last line, why it could not be made.
check() { # name command...
    local name=$1 code=0 log=$work/log start=$SECONDS
    shift
    "$@" >"$log" 2>&1 || code=$?
    case $code in
        0) passed+=("$name $((SECONDS - start))s") ;;
        77) skip "$name" "$(tail -n 1 "$log")" ;;
        *) failed+=("$name"); printf -- '-- %s\n' "$name"; sed 's/^/   /' "$log" ;;
    esac
}
with() { # tool name command...
    local tool=$1
    shift
    if have "$tool"; then check "$@"; else skip "$1" "no $tool"; fi
}

shell_scripts() {
    mapfile -t scripts < <(git ls-files --cached --others --exclude-standard deploy scripts/*deploy*.sh | while read -r file; do
        if head -c 64 "$file" | grep -qE '^#!.*(bash|sh)$'; then echo "$file"; fi
    done)
    # At info level it guesses, about which words are meant to be split.
    shellcheck --severity=warning "${scripts[@]}"
}

units() {
    mkdir -p "$work/units"
    for unit in deploy/systemd/*.service; do
        # The program need not be installed here.
        sed 's#^ExecStart=/usr/bin/tresor#ExecStart=/bin/true#' "$unit" >"$work/units/$(basename "$unit")"
    done
    local said
    said=$(systemd-analyze verify --man=no "$work"/units/*.service 2>&1) || { echo "$said"; return 1; }
    [ -z "$said" ] || { echo "$said"; return 1; }
}

# Exposure in tenths, as systemd counts it. A worker has more: it reads block devices and other people's files.
exposure() {
    local unit limit
    for unit in coordinator:15 worker:22 node:22; do
        limit=${unit#*:} unit=tresor-${unit%:*}.service
        systemd-analyze security --offline=true --threshold="$limit" --no-pager "$work/units/$unit" >"$work/exposure" || {
            tail -n 1 "$work/exposure"
            return 1
        }
    done
}

debian_package() { # binary
    local package
    package=$(TRESOR_DEB_COMPRESSION=none deploy/debian/build.sh "$1" "$work")
    dpkg-deb --contents "$package" >"$work/contents"
    for path in usr/bin/tresor usr/share/man/man1/tresor.1.gz usr/share/man/man1/tresor-worker-start.1.gz \
        usr/share/bash-completion/completions/tresor usr/lib/systemd/system/tresor-worker.service etc/tresor/worker.env; do
        grep -q " \./$path\$" "$work/contents" || { echo "the package lacks $path"; return 1; }
    done
}

debian_install() {
    [ "$(id -u)" = 0 ] || { echo "needs root"; return 77; }
    deploy/debian/check.sh "$work"/tresor_*.deb
}

dockerfile() { hadolint deploy/docker/Dockerfile; }

compose() {
    # Secrets are files that a person makes; the check needs none of them.
    docker-compose -f deploy/docker/compose.yaml --profile command config --quiet
    docker-compose -f deploy/docker/compose.yaml --profile command config >"$work/compose.yaml"
    # Whoever is told to drop capabilities and to keep its root as it is, does so.
    python3 - "$work/compose.yaml" <<'EOF'
import sys, yaml
services = yaml.safe_load(open(sys.argv[1]))["services"]
wrong = [
    name
    for name, service in services.items()
    if service["image"].startswith("tresor:")
    and (not service.get("read_only") or service.get("cap_drop") != ["ALL"] or service.get("privileged"))
]
floating = [name for name, s in services.items() if not s["image"].startswith("tresor:") and s["image"].rpartition(":")[2] in ("", "latest")]
for name in wrong + floating:
    print(f"{name}: writes to its root, keeps capabilities, or has an image without a version")
sys.exit(bool(wrong or floating))
EOF
}

helm() {
    mkdir -p "$work/chart"
    local archive
    archive=$(deploy/helm/package.sh "$work/chart")
    python3 deploy/helm/check.py "$archive"
}

ansible() {
    (
        cd deploy/ansible
        ansible-playbook -i inventory/example.yml --syntax-check site.yml upgrade.yml >/dev/null
        ansible-lint --offline -q --nocolor
    )
}

yaml_files() {
    # How it looks is prettier's business; a key that is there twice is not.
    mapfile -t files < <(git ls-files --cached --others --exclude-standard deploy | grep -E '\.ya?ml$' | grep -v /templates/)
    yamllint -d '{rules: {key-duplicates: enable, indentation: {spaces: consistent, indent-sequences: whatever}, trailing-spaces: enable}}' "${files[@]}"
}

prometheus() {
    [ -e deploy/prometheus/tresor-alerts.yaml ] || { echo 'no alerts'; return 77; }
    # Its rules are where the container has them.
    sed "s#/etc/prometheus/#$PWD/deploy/prometheus/#" deploy/prometheus/prometheus.yaml >"$work/prometheus.yaml"
    promtool check config "$work/prometheus.yaml"
}

binary=${1:-$(ls -t "${CARGO_TARGET_DIR:-$cache/target}"/{debug,release}/tresor 2>/dev/null | head -n 1 || true)}

with shellcheck 'shell scripts' shell_scripts
with systemd-analyze units units
if have systemd-analyze && systemd-analyze --help | grep -q -- --threshold; then
    check 'exposure of units' exposure
else
    skip 'exposure of units' 'no systemd-analyze security --threshold'
fi
if [ -z "$binary" ]; then
    skip 'Debian package' 'no binary'
elif ! have dpkg-shlibdeps; then
    skip 'Debian package' 'no dpkg-dev'
else
    check 'Debian package' debian_package "$binary"
    check 'Debian package, installed and purged' debian_install
fi
with hadolint Dockerfile dockerfile
with docker-compose compose.yaml compose
if python3 -c 'import helm_python, kubernetes_validate' 2>/dev/null; then
    check 'Helm chart' helm
else
    skip 'Helm chart' 'no helm-python-sdk or kubernetes-validate'
fi
with ansible-lint Ansible ansible
with yamllint 'YAML files' yaml_files
with promtool prometheus.yaml prometheus

printf 'deploy: checked:'
printf ' %s;' "${passed[@]}"
echo
for name in "${skipped[@]}"; do printf 'deploy: SKIPPED: %s\n' "$name"; done
# What no check here can see: see deploy/README.md.
[ ${#failed[@]} = 0 ] || { printf 'deploy: FAILED: %s\n' "${failed[@]}"; exit 1; }
