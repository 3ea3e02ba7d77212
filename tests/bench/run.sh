#!/usr/bin/env bash
# Installs what the benchmark needs, builds, and compares Runnel with its peers: runs every row of every table in
# interleaved rounds and takes medians. Writes build/bench/report.md (tables), raw.json and chart.svg.
#
#   tests/bench/run.sh [--quick] [--workloads=W1,W1s,W2,...|all] [--peers=floor,sse,...] [--seconds=4] [--rounds=3]
#
#   --quick   smoke run of two minutes: few streams, one second each, one round
#
# The default, the main table, takes about 15 minutes. Figures of one run are comparable; those of two runs only if the
# machine was idle otherwise.

set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
script_name=bench
# shellcheck source=deploy/local/lib.sh
. "$root/deploy/local/lib.sh"

# The driver skips the rows of a peer that could not be installed, and reports them.
install_all() {
  local status=0 model=--without-model
  if [[ " $*" == *engine* || " $*" == *=all* ]]; then model=; fi
  "$root/deploy/local/install.sh" --with-bench ${model:+"$model"} </dev/null || status=$?
  if ((status == 1)); then exit 1; fi
  # shellcheck source=deploy/local/env.sh
  . "$root/deploy/local/env.sh"
  install_npm_packages tests/bench/peers/node || say "WITHOUT THE NODE PEER: its packages could not be installed"
  if [[ " $*" == *W8* || " $*" == *=all* ]]; then install_proxies; fi
  install_npm_packages tests/e2e/browser || say "WITHOUT THE BROWSER: its packages could not be installed"
}

# The proxies of W8 that are Python packages.
install_proxies() {
  local name requirements venv
  for name in vllm-router litellm; do
    requirements=$here/peers/upstream_proxies/requirements-$name.txt
    venv=$(runnel_cache)/bench-$name
    if cmp -s "$requirements" "$venv/installed"; then continue; fi
    say "installing $name"
    if pinned_venv "$venv" "$requirements" --only-binary :all:; then
      cp "$requirements" "$venv/installed"
    else
      rm -rf "$venv"
      say "WITHOUT $name: its packages could not be installed"
    fi
  done
}

build() {
  say "building"
  cmake --preset release >/dev/null
  cmake --build "$root/build/release" --target bench_all | tail -n 1
  if [[ -n $(command -v go) ]]; then
    "$here/peers/go/build.sh" "$root/build/release/bench" || say "WITHOUT THE GO PEER: it could not be built"
  fi
}

case ${1-} in
  -h | --help)
    usage
    exit 0
    ;;
esac

cd "$root"
install_all "$@"
build
exec /usr/bin/python3 "$here/driver/bench.py" --build "$root/build/release" --out "$root/build/bench" \
  --model "$(model_path)" --cache "$(runnel_cache)" "$@"
