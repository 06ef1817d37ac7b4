#!/usr/bin/env bash
# ./dev nightly: what takes too long for every change. All of it runs, also after a failure; the exit code tells.
#
#   ./dev nightly                        the package, the image, the benchmark, and everything in tests/nightly
#   ./dev nightly NAME [ARGUMENT...]     only that program of tests/nightly, e.g. disk_soak.py --gib 2, or nightly_tests
#   ./dev nightly sim [COUNT [FIRST]]    only simulated clusters: 5,000 seeds that no other night runs, or these
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/common.sh

# The C++ tests in tests/nightly.
nightly_tests() {
  cmake --preset asan --log-level=WARNING
  build_targets asan nightly_tests
  build/asan/tests/nightly_tests "$@"
}

# Simulated clusters.
sim() {
  ./dev sim --seeds "${1:-5000}" "${2:-$((($(date +%s) / 86400 % 100000) * 5000 + 1))}"
}

# postkeeperd and postkeeper are on the PATH of the programs; what else they need they build themselves.
run_one() {
  local name="$1"
  shift
  if [[ $name == nightly_tests || $name == sim ]]; then
    "$name" "$@"
  else
    PATH="$PWD/build/release:$PATH" "tests/nightly/$name" "$@"
  fi
}

programs=(nightly_tests sim)
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
try_step "image" ./dev image
try_step "benchmark" ./dev bench
for program in "${programs[@]}"; do
  try_step "$program" run_one "$program"
done

print_step_times
if ((${#failed_steps[@]})); then
  echo "nightly failed: $(printf '%s; ' "${failed_steps[@]}" | sed 's/; $//')"
  exit 1
fi
