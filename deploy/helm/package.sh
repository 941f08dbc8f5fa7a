#!/usr/bin/env bash
# Makes the chart's archive, with the alerts and the dashboards that are kept beside it.
#
#   deploy/helm/package.sh FOLDER
#
# Prints the archive's path. `helm install` takes it; so does any repository of charts.
set -euo pipefail

[ $# = 1 ] || { sed -n '2,6p' "$0" | sed 's/^# \{0,1\}//' >&2; exit 2; }
folder=$(realpath "$1")
deploy=$(cd "$(dirname "$0")/.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

cp -R "$deploy/helm/tresor" "$work/tresor"
mkdir -p "$work/tresor/files/dashboards"
[ ! -e "$deploy/prometheus/tresor-alerts.yaml" ] || cp "$deploy/prometheus/tresor-alerts.yaml" "$work/tresor/files/"
for file in "$deploy"/grafana/dashboards/*.json; do
    [ ! -e "$file" ] || cp "$file" "$work/tresor/files/dashboards/"
done
version=$(sed -n 's/^version: //p' "$work/tresor/Chart.yaml")
archive=$folder/tresor-$version.tgz
tar --create --gzip --file "$archive" --directory "$work" --owner=0 --group=0 --numeric-owner --sort=name tresor
echo "$archive"
