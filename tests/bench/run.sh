#!/usr/bin/env bash
# Installs what the benchmark needs, builds, and measures Runnel beside its peers: every row of every table in turn, round
# by round, medians. Writes build/bench/report.md (tables for the README), raw.json and chart.svg.
#
#   tests/bench/run.sh [--quick] [--workloads=W1,W1s,W2|all] [--peers=floor,sse,...] [--seconds=4] [--rounds=3]
#
#   --quick   a smoke run of two minutes: few streams, a second each, one round
#
# The default, the main table, takes about a quarter of an hour. Figures of one round may be compared; those of two runs
# only if the machine did nothing else.

set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
# shellcheck source=deploy/local/env.sh
. "$root/deploy/local/env.sh"

say() { printf 'bench: %s\n' "$*"; }

build() {
  say "building"
  cmake --preset release >/dev/null
  cmake --build "$root/build/release" --target bench_all | tail -n 1
}

case ${1-} in
  -h | --help)
    sed -n '2,/^$/s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
    exit 0
    ;;
esac

cd "$root"
build
exec /usr/bin/python3 "$here/driver/bench.py" --build "$root/build/release" --out "$root/build/bench" "$@"
