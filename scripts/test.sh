#!/usr/bin/env bash
# ./dev test: one build with sanitizers for all tests, one release build of the two programs (for what runs them as a
# user would) and of the simulator (which runs 300 seeds that nobody has run before), then every test. Reports go to build/test; the last line adds them up.
#
# Tests of real processes have limits in time, which mean nothing while the machine stands still. What failed while it did
# (stall_watch.py) runs once more, and the output says so; what failed while it did not has failed.
#
# Unit tests are spread over the cores. Contract and integration tests start real ZooKeeper servers and run side by
# side. Python tests (X_test.py under tests/ and examples/, one process each) find postkeeperd and postkeeper of the
# release build on the PATH. POSTKEEPER_* settings of the caller don't reach the tests.
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/common.sh

readonly reports="$PWD/build/test"
readonly binary_timeout_s=900 python_timeout_s=900 simulated_clusters=300
readonly stalls="$reports/stalls" stall_s=1

while read -r name; do
  unset "$name"
done < <(compgen -e | grep '^POSTKEEPER_' || true)

export ASAN_OPTIONS="detect_stack_use_after_return=1:strict_string_checks=1:check_initialization_order=1"
export UBSAN_OPTIONS="print_stacktrace=1"
if [[ -f tests/lsan-suppressions.txt ]]; then
  export LSAN_OPTIONS="suppressions=$PWD/tests/lsan-suppressions.txt:print_suppressions=0"
fi

# run_logged REPORT COMMAND...: the output goes to REPORT.log, and is shown when the command fails. A test program that
# dies writes no report of its own, so a failure is always noted in REPORT.exit, which count_tests.py reads.
run_logged() {
  local report="$1" code=0
  shift
  "$@" >"$report.log" 2>&1 </dev/null || code=$?
  echo "$code" >"$report.exit"
  if ((code != 0)); then
    echo "$(basename "$report") failed (exit code $code):"
    tail -n 200 "$report.log"
  fi
  return "$code"
}

# stood_still SINCE: tells how long, if that may explain a failure.
stood_still() {
  local longest
  longest=$(/usr/bin/python3 scripts/stall_watch.py longest "$stalls" "$1")
  ((${longest%.*} >= stall_s)) && echo "the machine stood still for $longest s meanwhile; what failed runs again"
}

# run_shard NAME SHARDS SHARD: one process of a GoogleTest program. Of what failed while the machine stood still only the
# failed tests run again, or all if the program died.
run_shard() {
  local name="$1" report="$reports/$1.$3" since
  local command=(timeout --kill-after=10 "$binary_timeout_s" "build/asan/tests/$name" --gtest_brief=1)
  since=$(date +%s)
  GTEST_TOTAL_SHARDS=$2 GTEST_SHARD_INDEX=$3 run_logged "$report" "${command[@]}" --gtest_output="json:$report.json" && return
  stood_still "$since" || return 1
  if [[ -f $report.json ]]; then
    run_logged "$report.again" "${command[@]}" --gtest_output="json:$report.again.json" \
      --gtest_filter="$(/usr/bin/python3 scripts/count_tests.py --failed "$report.json")"
  else
    GTEST_TOTAL_SHARDS=$2 GTEST_SHARD_INDEX=$3 run_logged "$report.again" "${command[@]}" --gtest_output="json:$report.again.json"
  fi
}

# wait_for PID...: 1 if any of them failed.
wait_for() {
  local code=0 pid
  for pid in "$@"; do
    wait "$pid" || code=1
  done
  return "$code"
}

# run_binary NAME SHARDS: a GoogleTest program, as so many processes side by side.
run_binary() {
  local name="$1" shards="$2" shard pids=()
  for ((shard = 0; shard < shards; shard++)); do
    run_shard "$name" "$shards" "$shard" &
    pids+=($!)
  done
  wait_for "${pids[@]}"
}

run_side_by_side() {
  local name pids=()
  for name in "$@"; do
    run_binary "$name" 1 &
    pids+=($!)
  done
  wait_for "${pids[@]}"
}

# run_python_file FILE REPORT: one process. Runs again as a whole if the machine stood still.
run_python_file() {
  local file="$1" report="$2" since
  local command=(timeout --kill-after=10 "$python_timeout_s" /usr/bin/python3 scripts/run_python_test.py "$file")
  since=$(date +%s)
  PATH="$PWD/build/release:$PATH" run_logged "$report" "${command[@]}" "$report.json" && return
  stood_still "$since" || return 1
  PATH="$PWD/build/release:$PATH" run_logged "$report.again" "${command[@]}" "$report.again.json"
}

run_python_tests() {
  local file code=0
  while read -r file; do
    run_python_file "$file" "$reports/$(tr / . <<<"${file%.py}")" || code=1
  done < <(find . -path ./build -prune -o -path ./tests/nightly -prune -o \( -name '*_test.py' -o -name 'test_*.py' \) -printf '%P\n' | grep -E '^(tests|examples)/' | sort)
  return "$code"
}

# A suite whose folder is there must have a program; an empty build must not look like a passed one.
require_binary() {
  [[ -x build/asan/tests/$1 ]] && return
  echo "build/asan/tests/$1 was not built, though $2 is there" >&2
  return 1
}

step "configure with sanitizers" cmake --preset asan --log-level=WARNING
step "build the tests with sanitizers" build_targets asan
step "configure for release" cmake --preset release --log-level=WARNING
step "build postkeeperd, postkeeper and the simulator" build_targets release postkeeperd postkeeper postkeeper_sim

rm -rf "$reports"
mkdir -p "$reports"
touch "$stalls"
/usr/bin/python3 scripts/stall_watch.py watch "$stalls" &
watcher=$!
try_step "unit tests" run_binary unit_tests "$(nproc)"
try_step "$simulated_clusters simulated clusters" sim_seeds build/release/postkeeper_sim "$simulated_clusters" \
  "$(fresh_seed)" "$reports/postkeeper_sim"
suites=()
for suite in contract integration; do
  if [[ -d tests/$suite ]]; then
    require_binary "${suite}_tests" "tests/$suite"
    suites+=("${suite}_tests")
  fi
done
if ((${#suites[@]})); then
  try_step "tests on real ZooKeeper servers: ${suites[*]}" run_side_by_side "${suites[@]}"
fi
try_step "Python tests" run_python_tests

print_step_times
kill "$watcher"
exec /usr/bin/python3 scripts/count_tests.py "$reports"
