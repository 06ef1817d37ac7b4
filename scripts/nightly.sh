#!/usr/bin/env bash
# ./dev nightly: what takes too long for every change. All of it runs, also after a failure; the exit code tells.
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/common.sh

try_step "package" ./dev package
try_step "benchmark" ./dev bench
# postkeeperd and postkeeper are on their PATH; what else they need they build themselves.
export PATH="$PWD/build/release:$PATH"
for script in tests/nightly/*.sh; do
  [[ -e $script ]] || continue
  try_step "$script" "$script"
done

print_step_times
if ((${#failed_steps[@]})); then
  echo "nightly failed: $(printf '%s; ' "${failed_steps[@]}" | sed 's/; $//')"
  exit 1
fi
