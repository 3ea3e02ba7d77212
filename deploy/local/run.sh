#!/usr/bin/env bash
# Installs, builds and starts Runnel on this machine, prints its addresses, and stops it on Ctrl-C.
#
#   deploy/local/run.sh [FLAG...]
#
#   --engine llama|scripted|upstream  source of the tokens (default llama; scripted generates fixed words)
#   --model PATH                      GGUF file (default: SmolLM2-135M-Instruct, downloaded)
#   --upstream-url URL                OpenAI-compatible server, for --engine upstream
#   --sse-port N, --ws-port N         ports of the bridges, for browsers (default 8080, 8081)
#   --grpc-port N                     port of the inference service, for gRPC clients (default 50051)
#   --inference-admin-port N, --sse-admin-port N, --ws-admin-port N
#                                     ports of /livez, /readyz and /metrics (default 9090, 9091, 9092)
#   --ready-timeout SECONDS           longest time until a process is ready (default 60)
#   --help
#
# All processes listen on 127.0.0.1 only; their logs are in build/run/. If llama.cpp or the model cannot be installed,
# it prints a message and starts the scripted engine. Exits with 0 after Ctrl-C or SIGTERM, and with 1 if a process
# fails to start or ends.

set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
script_name=run
# shellcheck source=deploy/local/lib.sh
. "$root/deploy/local/lib.sh"

bin=$root/build/release/bin
logs=$root/build/run

engine=llama
model=
upstream_url=
grpc_port=50051
sse_port=8080
ws_port=8081
inference_admin_port=9090
sse_admin_port=9091
ws_admin_port=9092
ready_timeout=60

# Longer than the processes' --drain_timeout (30 s) and the time to say goodbye to their clients.
readonly STOP_SECONDS=40

declare -A pids=()

# --- Arguments ---------------------------------------------------------------------------------

# Sets the variable `name` for "--name value" and "--name=value".
parse_args() {
  local name
  while (($# > 0)); do
    case $1 in
      -h | --help)
        usage
        exit 0
        ;;
      --*=*) set -- "${1%%=*}" "${1#*=}" "${@:2}" ;;
    esac
    case $1 in
      --engine | --model | --upstream-url | --*-port | --ready-timeout) ;;
      *) die "unknown argument '$1' (see --help)" ;;
    esac
    if (($# < 2)); then die "$1 needs a value"; fi
    name=${1#--}
    name=${name//-/_}
    if [[ ! -v $name ]]; then die "unknown argument '$1' (see --help)"; fi
    printf -v "$name" %s "$2"
    shift 2
  done
}

check_args() {
  local name
  case $engine in
    llama | scripted) ;;
    upstream) [[ -n $upstream_url ]] || die "--engine upstream needs --upstream-url URL" ;;
    *) die "--engine is '$engine': expected llama, scripted or upstream" ;;
  esac
  for name in grpc_port sse_port ws_port inference_admin_port sse_admin_port ws_admin_port ready_timeout; do
    if [[ ! ${!name} =~ ^[1-9][0-9]{0,4}$ ]] || ((${!name} > 65535)); then
      die "--${name//_/-} is '${!name}': expected a number from 1 to 65535"
    fi
  done
  if [[ -n $model && $engine == llama ]]; then
    [[ -r $model ]] || die "cannot read --model $model"
    model=$(realpath "$model")
  fi
}

# --- Install and build -------------------------------------------------------------------------

install_all() {
  local status=0
  local -a args=()
  if [[ $engine != llama ]]; then
    args=(--without-llama)
  elif [[ -n $model ]]; then
    args=(--without-model)
  fi
  "$root/deploy/local/install.sh" "${args[@]}" || status=$?
  # shellcheck source=deploy/local/env.sh
  . "$root/deploy/local/env.sh"
  case $status in
    0) ;;
    3) fall_back "llama.cpp could not be installed" ;;
    4) fall_back "the model could not be installed" ;;
    *) die "installing failed" ;;
  esac
  if [[ $engine == llama && -z $model ]]; then model=$RUNNEL_MODEL; fi
}

fall_back() {
  say "$1: starting the SCRIPTED engine, which generates fixed words without a model"
  engine=scripted
}

build() {
  say "building (takes some minutes the first time)"
  mkdir -p "$logs"
  cd "$root"
  cmake --preset release >"$logs/configure.log" 2>&1 || {
    tail -n 20 "$logs/configure.log" >&2
    die "configuring failed; the whole log is in $logs/configure.log"
  }
  cmake --build build/release --target runnel-inference runnel-sse runnel-ws runnel-client
}

# --- Start and stop ----------------------------------------------------------------------------

# start NAME COMMAND...
start() {
  local name=$1
  shift
  # In a new session, so that a terminal's Ctrl-C reaches only this script, which then stops the processes in order.
  setsid "$@" >"$logs/$name.log" 2>&1 </dev/null &
  pids[$name]=$!
}

alive() { kill -0 "${pids[$1]}" 2>/dev/null; }

# not_started NAME WHY
not_started() {
  say "$1 $2; the end of $logs/$1.log:" >&2
  tail -n 20 "$logs/$1.log" >&2
  exit 1
}

# wait_ready NAME ADMIN_PORT
wait_ready() {
  local deadline=$((SECONDS + ready_timeout))
  until curl --silent --fail --noproxy '*' --max-time 2 --output /dev/null "http://127.0.0.1:$2/readyz"; do
    alive "$1" || not_started "$1" "ended while starting"
    if ((SECONDS >= deadline)); then not_started "$1" "is not ready after $ready_timeout s"; fi
    sleep 0.1
  done
  # Another program may have answered on that port.
  alive "$1" || not_started "$1" "ended while starting"
  say "$1 is ready (admin port $2, log $logs/$1.log)"
}

start_inference() {
  local -a args=(--engine="$engine")
  case $engine in
    llama) args+=(--model="$model") ;;
    upstream) args+=(--upstream_url="$upstream_url") ;;
  esac
  start inference "$bin/runnel-inference" --listen="127.0.0.1:$grpc_port" \
    --admin_listen="127.0.0.1:$inference_admin_port" --reflection "${args[@]}"
  wait_ready inference "$inference_admin_port"
}

start_bridges() {
  start sse "$bin/runnel-sse" --listen="127.0.0.1:$sse_port" --admin_listen="127.0.0.1:$sse_admin_port" \
    --inference="127.0.0.1:$grpc_port" --websocket_url="ws://127.0.0.1:$ws_port/v1/ws"
  start ws "$bin/runnel-ws" --listen="127.0.0.1:$ws_port" --admin_listen="127.0.0.1:$ws_admin_port" \
    --inference="127.0.0.1:$grpc_port" \
    --allowed_origins="http://127.0.0.1:$sse_port,http://localhost:$sse_port"
  wait_ready sse "$sse_admin_port"
  wait_ready ws "$ws_admin_port"
}

# shellcheck disable=SC2317  # stop_all calls it
# stop SIGNAL SECONDS NAME...: sends the signal; fails if the processes have not ended in time.
stop() {
  local signal=$1 deadline=$((SECONDS + $2)) name
  shift 2
  for name in "$@"; do
    if [[ -v pids[$name] ]]; then kill "-$signal" "${pids[$name]}" 2>/dev/null || true; fi
  done
  for name in "$@"; do
    while [[ -v pids[$name] ]] && alive "$name"; do
      if ((SECONDS >= deadline)); then return 1; fi
      sleep 0.05
    done
  done
}

# shellcheck disable=SC2317  # a trap calls it
# Bridges first: they ask browsers to reconnect while the service still generates what they stream.
stop_all() {
  trap - EXIT
  trap 'say "killed"; stop KILL 5 sse ws inference || true; exit 1' INT TERM
  if ((${#pids[@]} == 0)); then return; fi
  say "stopping (press Ctrl-C again to stop immediately)"
  stop TERM "$STOP_SECONDS" sse ws || say "the bridges did not stop in $STOP_SECONDS s"
  stop TERM "$STOP_SECONDS" inference || say "inference did not stop in $STOP_SECONDS s"
  stop KILL 5 sse ws inference || true
  say "stopped"
}

# Blocks until a process ends, which is always a failure.
watch_processes() {
  local ended name status=0
  wait -n -p ended "${pids[@]}" || status=$?
  for name in "${!pids[@]}"; do
    if [[ ${pids[$name]} == "${ended:-}" ]]; then
      say "$name ended with status $status; the end of $logs/$name.log:" >&2
      tail -n 20 "$logs/$name.log" >&2
    fi
  done
  exit 1
}

# --- What to try -------------------------------------------------------------------------------

command_for_grpc() {
  if [[ -x $bin/runnel-client ]]; then
    echo "build/release/bin/runnel-client --target=127.0.0.1:$grpc_port 'What is a runnel?'"
  else
    echo "grpcurl -plaintext -d '{\"prompt\":\"Hi\"}' 127.0.0.1:$grpc_port runnel.v1.InferenceService/Generate"
  fi
}

banner() {
  local what=$engine
  if [[ $engine == llama ]]; then what="llama.cpp with $(basename "$model")"; fi
  cat <<END

  Runnel is running. Engine: $what

    http://127.0.0.1:$sse_port/

  Or from another terminal:

    curl -N http://127.0.0.1:$sse_port/v1/generations -H 'Content-Type: application/json' -d '{"stream":true,"messages":[{"role":"user","content":"What is a runnel?"}]}'
    deploy/local/ws.py --url ws://127.0.0.1:$ws_port/v1/ws 'What is a runnel?'
    $(command_for_grpc)

  Press Ctrl-C to stop it.

END
}

main() {
  parse_args "$@"
  check_args
  install_all
  build
  trap stop_all EXIT
  trap 'exit 0' INT TERM HUP
  start_inference
  start_bridges
  banner
  watch_processes
}

main "$@"
