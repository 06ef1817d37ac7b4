#!/usr/bin/env bash
# ./dev nightly: what takes too long for every change. All of it runs, also after a failure; the exit code tells.
#
#   ./dev nightly                        the package, the benchmark, and everything in tests/nightly
#   ./dev nightly NAME [ARGUMENT...]     only that program of tests/nightly, e.g. disk_soak.py --gib 2, or nightly_tests
#   ./dev nightly fault_seeds [COUNT [FIRST]]   only the fault tests: 5,000 seeds that no other night runs, or these
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/common.sh

# The C++ tests in tests/nightly.
nightly_tests() {
  cmake --preset asan --log-level=WARNING
  build_targets asan nightly_tests
  build/asan/tests/nightly_tests "$@"
}

# Both fault tests, on all cores.
fault_seeds() {
  local count="${1:-5000}" shards shard code=0 pids=() pid
  local first="${2:-$((($(date +%s) / 86400 % 100000) * 5000 + 1))}"
  shards="$(nproc)"
  cmake --preset asan --log-level=WARNING
  build_targets asan unit_tests
  echo "fault tests: $count seeds from $first on"
  mkdir -p build/nightly
  for ((shard = 0; shard < shards; shard++)); do
    GTEST_TOTAL_SHARDS=$shards GTEST_SHARD_INDEX=$shard POSTKEEPER_FAULT_SEEDS=$count \
      POSTKEEPER_FAULT_FIRST_SEED=$first build/asan/tests/unit_tests --gtest_brief=1 \
      --gtest_filter='*/EngineFaultTest.*:*/TopicFaultTest.*' >"build/nightly/fault_seeds.$shard.log" 2>&1 &
    pids+=($!)
  done
  for pid in "${pids[@]}"; do
    wait "$pid" || code=1
  done
  grep -h -e 'Actual:' -e 'GetParam() =' -e '\[  PASSED  \]' build/nightly/fault_seeds.*.log
  return "$code"
}

# postkeeperd and postkeeper are on the PATH of the programs; what else they need they build themselves.
run_one() {
  local name="$1"
  shift
  if [[ $name == nightly_tests || $name == fault_seeds ]]; then
    "$name" "$@"
  else
    PATH="$PWD/build/release:$PATH" "tests/nightly/$name" "$@"
  fi
}

programs=(nightly_tests fault_seeds)
for file in tests/nightly/*.sh tests/nightly/*.py; do
  programs+=("$(basename "$file")")
done

if (($#)); then
  if [[ " ${programs[*]} " != *" $1 "* ]]; then
    echo "nightly: no \"$1\"; there are: ${programs[*]}" >&2
    exit 2
  fi
  run_one "$@"
  exit
fi

try_step "package" ./dev package
try_step "benchmark" ./dev bench
for program in "${programs[@]}"; do
  try_step "$program" run_one "$program"
done

print_step_times
if ((${#failed_steps[@]})); then
  echo "nightly failed: $(printf '%s; ' "${failed_steps[@]}" | sed 's/; $//')"
  exit 1
fi
