# shellcheck shell=bash
# What the scripts of ./dev share. Sourced, never run; the caller stands in the project's root.

# Precompiled headers and a sanitized C++ file take up to 1.5 GB in the compiler: fewer jobs where memory is short.
parallel_jobs() {
  local cores memory_kib by_memory
  cores=$(nproc)
  memory_kib=$(awk '/^MemTotal:/ { print $2 }' /proc/meminfo)
  by_memory=$((memory_kib / 1572864))
  echo $((by_memory < 1 ? 1 : by_memory < cores ? by_memory : cores))
}

# ccache stops the build where it can't write its folder (a home that isn't there or is read-only); do without it then.
prepare_ccache() {
  local folder="${CCACHE_DIR:-${XDG_CACHE_HOME:-${HOME:-/nonexistent}/.cache}/ccache}"
  if ! mkdir -p "$folder" 2>/dev/null || [[ ! -w $folder ]]; then
    export CCACHE_DISABLE=1
  fi
}

# build_targets PRESET [TARGET...]: all of them when none is named.
build_targets() {
  local preset="$1"
  shift
  prepare_ccache
  cmake --build --preset "$preset" --parallel "$(parallel_jobs)" ${1:+--target "$@"}
}

# Runs a command, prints how long it took, and leaves its exit code in last_code. It runs in a subshell of its own.
# Call it as a plain command only: behind "||", "&&" or "if" bash would ignore `set -e` inside the command.
step_times=()
last_code=0
run_timed() {
  local name="$1" started=$SECONDS line
  shift
  echo "--- $name"
  set +e
  (
    set -e
    "$@"
  )
  last_code=$?
  set -e
  line=$(printf '%5d s  %s' "$((SECONDS - started))" "$name")
  ((last_code == 0)) || line+=" (failed)"
  step_times+=("$line")
  echo "$line"
}

# step NAME COMMAND...: a step without which the next ones make no sense.
step() {
  run_timed "$@"
  return "$last_code"
}

# try_step NAME COMMAND...: a step after which the next ones go on; failed_steps collects the names.
failed_steps=()
try_step() {
  run_timed "$@"
  ((last_code == 0)) || failed_steps+=("$1")
}

print_step_times() {
  echo "--- where the time went"
  printf '%s\n' "${step_times[@]}"
}

# A seed that nobody has run before.
fresh_seed() {
  echo "$(($(date +%s%N) / 1000 % 1000000000000))"
}

# sim_seeds PROGRAM COUNT FIRST REPORT: so many simulated clusters, on all cores. What each process says goes to
# REPORT.<n>.log, its counts to REPORT.<n>.json and its exit code to REPORT.<n>.exit.
sim_seeds() {
  local program="$1" count="$2" first="$3" report="$4" shards shard code=0 pids=() pid
  shards=$(nproc)
  ((shards <= count)) || shards=$count
  echo "seeds $first to $((first + count - 1))"
  for ((shard = 0; shard < shards; shard++)); do
    (
      failed=0
      "$program" --seeds "$(((count + shards - 1 - shard) / shards))" --step "$shards" --report "$report.$shard.json" \
        --traces "$(dirname "$report")" "$((first + shard))" >"$report.$shard.log" 2>&1 </dev/null || failed=$?
      echo "$failed" >"$report.$shard.exit"
      exit "$failed"
    ) &
    pids+=($!)
  done
  for pid in "${pids[@]}"; do
    wait "$pid" || code=1
  done
  grep -hv '^seeds ' "$report".*.log || true
  return "$code"
}
