#!/usr/bin/env bash
# Installs real inference servers that run the default model on the CPU, and tests the upstream engine with each.
#
#   RUNNEL_BIN=build/release/bin tests/conformance/real_servers.sh
#
# llama.cpp's llama-server is compiled from the same source as the llama engine (15 minutes on one core); xllamacpp is
# downloaded, and the server in Python is the one that deploy/local/install.sh --with-tests installs. All are kept in
# $RUNNEL_CACHE. A server that cannot be installed is left out, and the table says so.

set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
here=$root/tests/conformance
script_name=real_servers
# shellcheck source=deploy/local/lib.sh
. "$root/deploy/local/lib.sh"
# shellcheck source=deploy/local/env.sh
. "$root/deploy/local/env.sh"

if [[ ${1-} == -h || ${1-} == --help ]]; then
  usage
  exit 0
fi

# Prints CMake's arguments: those of the llama engine, but with the server and without its web page.
server_cmake_flags() {
  llama_cmake_flags | grep -v 'LLAMA_BUILD_\(COMMON\|TOOLS\|SERVER\)='
  local on off
  for on in COMMON TOOLS SERVER; do echo "-DLLAMA_BUILD_$on=ON"; done
  for off in BUILD_UI USE_PREBUILT_UI; do echo "-DLLAMA_$off=OFF"; done
}

build_llama_server() {
  local work=$1 target=$2
  local pip=$work/venv/bin/pip
  local -a flags
  mapfile -t flags < <(server_cmake_flags)
  say "llama-server: downloading the source and compiling it"
  rm -rf "$work" && pinned_venv "$work/venv" "$root/deploy/local/requirements-llama-build.txt" || return
  "$pip" --disable-pip-version-check --quiet download --no-deps --require-hashes --no-build-isolation \
    --no-binary llama-cpp-python --dest "$work" --requirement "$root/deploy/local/requirements-llama.txt" || return
  tar -xzf "$work/llama_cpp_python-$RUNNEL_LLAMA_VERSION.tar.gz" -C "$work" --strip-components=1 || return
  cmake -S "$work/vendor/llama.cpp" -B "$work/build" -G Ninja "${flags[@]}" -DCMAKE_C_FLAGS=-w -DCMAKE_CXX_FLAGS=-w \
    >"$work/log" || return
  compile "$work/build" --target llama-server && mv "$work/build/bin/llama-server" "$target"
}

export RUNNEL_LLAMA_SERVER RUNNEL_XLLAMACPP RUNNEL_REAL_SERVERS=1
RUNNEL_LLAMA_SERVER=$(runnel_cache)/llama-server-$RUNNEL_LLAMA_VERSION
RUNNEL_XLLAMACPP=$(runnel_cache)/xllamacpp/bin/python
mkdir -p "$(runnel_cache)"
if [[ ! -x $RUNNEL_LLAMA_SERVER ]]; then
  build_llama_server "$(runnel_cache)/llama-server-work" "$RUNNEL_LLAMA_SERVER" || RUNNEL_LLAMA_SERVER=
  rm -rf "$(runnel_cache)/llama-server-work"
fi
wanted=$here/requirements-xllamacpp.txt
if ! cmp -s "$wanted" "$(runnel_cache)/xllamacpp/installed"; then
  if pinned_venv "$(runnel_cache)/xllamacpp" "$wanted" --only-binary :all:; then
    cp "$wanted" "$(runnel_cache)/xllamacpp/installed"
  else
    RUNNEL_XLLAMACPP=
  fi
fi
exec node --test "$here/real_servers.test.mjs"
