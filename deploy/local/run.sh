#!/usr/bin/env bash
# Installs, builds and starts Runnel on this machine, prints its addresses, and stops it on Ctrl-C.
#
#   deploy/local/run.sh [FLAG...]
#
#   --engine llama|scripted|upstream  source of the tokens (default llama; scripted generates fixed words)
#   --model PATH                      GGUF file (default: SmolLM2-135M-Instruct, downloaded)
#   --upstream-url URL                OpenAI-compatible server, for --engine upstream
#   --replicas N                      number of inference services, from 1 to 9 (default 1)
#   --log memory|redis                where generations are kept (default memory: in their replica). redis starts a
#                                     redis-server too, so that they survive their replica: try it with --replicas 2
#   --sse-port N, --ws-port N         ports of the bridges, for browsers (default 8080, 8081)
#   --grpc-port N                     port of the (first) inference service, for gRPC clients (default 50051)
#   --inference-admin-port N, --sse-admin-port N, --ws-admin-port N
#                                     ports of /livez, /readyz and /metrics (default 9090, 9091, 9092)
#   --ready-timeout SECONDS           longest time until a process is ready (default 60)
#   --help
#
# All processes listen on 127.0.0.1 only; their logs are in build/run/. If llama.cpp or the model cannot be installed,
# it prints a message and starts the scripted engine. Exits with 0 after Ctrl-C or SIGTERM, and with 1 if a process
# fails to start or ends. One of several replicas may end: it is started again.

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
replicas=1
log=memory
grpc_port=50051
sse_port=8080
ws_port=8081
inference_admin_port=9090
sse_admin_port=9091
ws_admin_port=9092
ready_timeout=60

# Longer than the processes' --drain_timeout (30 s) and the time to say goodbye to their clients.
readonly STOP_SECONDS=40

# Names of the inference services, and of each the ports of gRPC and administration.
declare -a services=()
declare -A pids=() grpc_ports=() admin_ports=()
port_of_redis=

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
      --engine | --model | --upstream-url | --replicas | --log | --*-port | --ready-timeout) ;;
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
  [[ $log == memory || $log == redis ]] || die "--log is '$log': expected memory or redis"
  [[ $replicas =~ ^[1-9]$ ]] || die "--replicas is '$replicas': expected a number from 1 to 9"
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
  if [[ $log == redis ]] && ! redis_server >/dev/null; then args+=(--with-redis); fi
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
  if [[ $log == redis ]] && ! redis_server >/dev/null; then
    die "--log redis needs redis-server or valkey-server on PATH: install the package redis-server"
  fi
}

redis_server() { command -v redis-server || command -v valkey-server; }

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

# free_ports COUNT: prints ports that nothing listens on now.
free_ports() {
  /usr/bin/python3 -c 'import socket, sys
sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(int(sys.argv[1]))]
print(*(each.getsockname()[1] for each in sockets), sep="\n")' "$1"
}

# The first service has the ports of the arguments, the others get free ones.
choose_ports() {
  local -a free
  local i name
  mapfile -t free < <(free_ports $((2 * replicas + 1)))
  ((${#free[@]} == 2 * replicas + 1)) || die "found no free ports"
  port_of_redis=${free[0]}
  for ((i = 1; i <= replicas; i++)); do
    name=inference
    if ((replicas > 1)); then name+=-$i; fi
    services+=("$name")
    grpc_ports[$name]=${free[2 * i - 1]}
    admin_ports[$name]=${free[2 * i]}
  done
  grpc_ports[${services[0]}]=$grpc_port
  admin_ports[${services[0]}]=$inference_admin_port
}

# On loopback, without a password and without a file: it lives as long as this script.
start_redis() {
  local deadline=$((SECONDS + ready_timeout))
  start redis "$(redis_server)" --bind 127.0.0.1 --port "$port_of_redis" --dir "$logs" --save '' --appendonly no \
    --maxmemory 256mb --maxmemory-policy noeviction
  until [[ $(ping_redis) == +PONG* ]]; do
    alive redis || not_started redis "ended while starting"
    if ((SECONDS >= deadline)); then not_started redis "is not ready after $ready_timeout s"; fi
    sleep 0.1
  done
  say "redis is ready (port $port_of_redis, log $logs/redis.log)"
}

# Needs no client of Redis: prints the reply.
ping_redis() {
  local reply=
  {
    exec 3<>"/dev/tcp/127.0.0.1/$port_of_redis" && printf 'PING\r\n' >&3 && read -r -t 2 reply <&3
  } 2>/dev/null || true
  printf '%s\n' "$reply"
}

# start_inference NAME
start_inference() {
  local -a args=(--engine="$engine")
  case $engine in
    llama) args+=(--model="$model") ;;
    upstream) args+=(--upstream_url="$upstream_url") ;;
  esac
  if [[ $log == redis ]]; then args+=(--log="redis://127.0.0.1:$port_of_redis"); fi
  start "$1" "$bin/runnel-inference" --listen="127.0.0.1:${grpc_ports[$1]}" \
    --admin_listen="127.0.0.1:${admin_ports[$1]}" --reflection "${args[@]}"
  wait_ready "$1" "${admin_ports[$1]}"
}

# Prints the addresses of all services, separated by commas.
inference_addresses() {
  local name addresses=
  for name in "${services[@]}"; do addresses+=,127.0.0.1:${grpc_ports[$name]}; done
  printf '%s\n' "${addresses#,}"
}

start_bridges() {
  local inference
  inference=$(inference_addresses)
  start sse "$bin/runnel-sse" --listen="127.0.0.1:$sse_port" --admin_listen="127.0.0.1:$sse_admin_port" \
    --inference="$inference" --websocket_url="ws://127.0.0.1:$ws_port/v1/ws"
  start ws "$bin/runnel-ws" --listen="127.0.0.1:$ws_port" --admin_listen="127.0.0.1:$ws_admin_port" \
    --inference="$inference" \
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
  trap 'say "killed"; stop KILL 5 "${!pids[@]}" || true; exit 1' INT TERM
  if ((${#pids[@]} == 0)); then return; fi
  say "stopping (press Ctrl-C again to stop immediately)"
  stop TERM "$STOP_SECONDS" sse ws || say "the bridges did not stop in $STOP_SECONDS s"
  stop TERM "$STOP_SECONDS" "${services[@]}" || say "inference did not stop in $STOP_SECONDS s"
  stop TERM 5 redis || say "redis did not stop in 5 s"
  stop KILL 5 "${!pids[@]}" || true
  say "stopped"
}

# Blocks until a process ends, which is a failure, unless it is one of several replicas.
watch_processes() {
  local ended name status
  while :; do
    status=0
    # Without bash's own line about a process that was killed.
    { wait -n -p ended "${pids[@]}" || status=$?; } 2>/dev/null
    for name in "${!pids[@]}"; do
      if [[ ${pids[$name]} == "${ended:-}" ]]; then break; fi
    done
    if [[ $name != inference-* ]]; then
      say "$name ended with status $status; the end of $logs/$name.log:" >&2
      tail -n 20 "$logs/$name.log" >&2
      exit 1
    fi
    say "$name ended with status $status; starting it again"
    start_inference "$name"
    say "to kill it: kill -9 ${pids[$name]}"
  done
}

# --- What to try -------------------------------------------------------------------------------

command_for_grpc() {
  if [[ -x $bin/runnel-client ]]; then
    echo "build/release/bin/runnel-client --target=127.0.0.1:$grpc_port 'What is a runnel?'"
  else
    echo "grpcurl -plaintext -d '{\"prompt\":\"Hi\"}' 127.0.0.1:$grpc_port runnel.v1.InferenceService/Generate"
  fi
}

# What to try with several replicas.
how_to_kill() {
  if ((replicas == 1)); then return; fi
  local name what="With --log redis, the response would continue on another replica."
  if [[ $log == redis ]]; then what="The response continues on another replica."; fi
  printf '\n\n  Kill the replica that generates a response while you read it; it is started again. %s\n\n' "$what"
  for name in "${services[@]}"; do printf '    kill -9 %-8s # %s\n' "${pids[$name]}" "$name"; done
}

banner() {
  local what=$engine
  if [[ $engine == llama ]]; then what="llama.cpp with $(basename "$model")"; fi
  if ((replicas > 1)); then what+=", $replicas replicas"; fi
  if [[ $log == redis ]]; then what+=". Log: Redis on port $port_of_redis"; fi
  cat <<END

  Runnel is running. Engine: $what

    http://127.0.0.1:$sse_port/

  Or from another terminal:

    curl -N http://127.0.0.1:$sse_port/v1/generations -H 'Content-Type: application/json' -d '{"stream":true,"messages":[{"role":"user","content":"What is a runnel?"}]}'
    deploy/local/ws.py --url ws://127.0.0.1:$ws_port/v1/ws 'What is a runnel?'
    $(command_for_grpc)$(how_to_kill)

  Press Ctrl-C to stop it.

END
}

main() {
  local name
  parse_args "$@"
  check_args
  install_all
  build
  trap stop_all EXIT
  trap 'exit 0' INT TERM HUP
  choose_ports
  if [[ $log == redis ]]; then start_redis; fi
  for name in "${services[@]}"; do start_inference "$name"; done
  start_bridges
  banner
  watch_processes
}

main "$@"
