#!/usr/bin/env bash
# ./dev bench [--profile] [FLAGS...]: starts a postkeeperd with its embedded ZooKeeper on free ports of 127.0.0.1, with
# data in a temporary folder, measures it beside the ceilings of this machine, and takes everything away again.
#
# FLAGS go to postkeeper_bench (--quick, --output json, --rounds 5, --only enqueue ...; --help shows them).
# --profile runs each workload alone under perf and writes where postkeeperd's time went to build/bench-profile/.
# POSTKEEPER_PROGRAMS names a folder with programs that are built already; otherwise they are built here.
#
# The result is on stdout, everything else on stderr.
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/common.sh

readonly start_timeout_s=60 stop_timeout_s=40
readonly profile_seconds=10 profile_folder="build/bench-profile"

is_profiling=false
flags=()
for argument in "$@"; do
  case "$argument" in
    --profile) is_profiling=true ;;
    *) flags+=("$argument") ;;
  esac
done

programs="${POSTKEEPER_PROGRAMS:-}"
if [[ -z $programs ]]; then
  programs=build/release
  step "configure" cmake --preset release --log-level=WARNING >&2
  step "build postkeeperd and postkeeper_bench" build_targets release postkeeperd postkeeper_bench >&2
fi
for argument in "${flags[@]}"; do
  if [[ $argument == --help || $argument == -h ]]; then
    exec "$programs/postkeeper_bench" --help
  fi
done
if $is_profiling && [[ " ${flags[*]} " == *" --only"* ]]; then
  echo "bench.sh: --profile looks at its own three workloads; leave --only out" >&2
  exit 2
fi
if $is_profiling && ! command -v perf >/dev/null; then
  echo "bench.sh: --profile needs perf. Install it: apt-get install linux-perf" >&2
  exit 1
fi

# Settings of the caller's own server are not meant for this one.
while read -r name; do
  unset "$name"
done < <(compgen -e | grep '^POSTKEEPER_' || true)

folder=$(mktemp -d "${TMPDIR:-/tmp}/postkeeper-bench.XXXXXX")
server_pid=""
bench_pid=""
perf_pid=""

stop_all() {
  local waited=0
  if [[ -n $perf_pid ]]; then
    kill -INT "$perf_pid" 2>/dev/null || true
  fi
  if [[ -n $bench_pid ]]; then
    kill -TERM "$bench_pid" 2>/dev/null || true
  fi
  if [[ -n $server_pid ]]; then
    kill -TERM "$server_pid" 2>/dev/null || true
    while kill -0 "$server_pid" 2>/dev/null && ((waited < stop_timeout_s * 10)); do
      sleep 0.1
      waited=$((waited + 1))
    done
    # Its ZooKeeper dies with it.
    kill -KILL "$server_pid" 2>/dev/null || true
  fi
  rm -rf "$folder"
}
trap stop_all EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# log_field EVENT FIELD: from the server's log, which has one JSON object a line.
log_field() {
  grep -F "\"$1\"" "$folder/log" | head -n 1 | sed -nE "s/.*\"$2\": ?\"?([^\",}]*).*/\1/p"
}

start_server() {
  local waited=0
  : >"$folder/log"
  "$programs/postkeeperd" --listen 127.0.0.1:0 --metrics-listen 127.0.0.1:0 --data-dir "$folder/data" \
    --log-format json 2>"$folder/log" >/dev/null </dev/null &
  server_pid=$!
  until grep -qF '"ready"' "$folder/log"; do
    if ! kill -0 "$server_pid" 2>/dev/null || ((waited >= start_timeout_s * 10)); then
      echo "bench.sh: postkeeperd did not start:" >&2
      cat "$folder/log" >&2
      exit 1
    fi
    sleep 0.1
    waited=$((waited + 1))
  done
}

# Starts postkeeper_bench; the caller waits for bench_pid, so that a signal ends this script at once.
start_bench() {
  "$programs/postkeeper_bench" --address "$(log_field listening grpc)" --metrics "$(log_field listening metrics)" \
    --zookeeper "$(log_field "ZooKeeper runs" address)" --postkeeperd-pid "$server_pid" \
    --zookeeper-pid "$(log_field "ZooKeeper runs" pid)" "$@" &
  bench_pid=$!
}

finish_bench() {
  local pid=$bench_pid code=0
  wait "$pid" || code=$?
  bench_pid=""
  if ((code != 0)); then
    echo "What postkeeperd logged last:" >&2
    tail -n 10 "$folder/log" >&2
  fi
  return "$code"
}

# profile WORKLOAD: perf looks on while the workload runs.
profile() {
  local name="$profile_folder/${1//+/-}"
  start_bench --no-ceilings --rounds 1 --warm-up 2 --seconds "$((profile_seconds + 1))" --messages-max 5000000 \
    --only "$1" "${flags[@]}" >"$name.rate"
  sleep 2.5
  perf record --quiet -F 499 --call-graph dwarf,8192 -p "$server_pid" -o "$name.data" -- sleep "$profile_seconds" &
  perf_pid=$!
  wait "$perf_pid" || true
  perf_pid=""
  finish_bench
  perf report --stdio --no-children -g none --percent-limit 0.3 -i "$name.data" >"$name.txt" 2>/dev/null
  perf report --stdio --no-children -g none --sort comm --percent-limit 0.3 -i "$name.data" >"$name.threads" 2>/dev/null
  cat "$name.rate"
  grep -v '^#' "$name.txt" | grep -v '^$' | head -n 30
  echo
}

start_server
if $is_profiling; then
  mkdir -p "$profile_folder"
  for workload in enqueue enqueue+consume+ack unary; do
    profile "$workload"
  done
  echo "More: perf report -i $profile_folder/enqueue.data" >&2
else
  start_bench "${flags[@]}"
  finish_bench
fi
