#!/usr/bin/env bash
# ./dev sim: whole clusters in one thread on virtual time, each from its seed (docs/TESTING.md).
#
#   ./dev sim                    one seed that nobody has run before
#   ./dev sim --seeds 1000       so many, on all cores; their first one is printed
#   ./dev sim [--seeds N] SEED   from this one on: the same seed and program give the same run
#
# A seed that fails says which promise was broken, and what was done with the message in question.
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/common.sh

count=1 first=""
while (($#)); do
  case "$1" in
    --seeds)
      count="${2:-}"
      shift 2 || break
      ;;
    *)
      first="$1"
      shift
      ;;
  esac
done
if [[ ! $count =~ ^[1-9][0-9]*$ || ! ${first:-0} =~ ^[0-9]+$ ]]; then
  echo "usage: ./dev sim [--seeds N] [SEED]" >&2
  exit 2
fi

step "configure for release" cmake --preset release --log-level=WARNING
step "build postkeeper_sim" build_targets release postkeeper_sim
mkdir -p build/sim
sim_seeds build/release/postkeeper_sim "$count" "${first:-$(fresh_seed)}" build/sim/seeds
