#!/usr/bin/env bash
# Twenty minutes of real faults with a new seed, or what else ./dev chaos is given: chaos.sh --minutes 60 --seed 7
set -euo pipefail
cd "$(dirname "$0")/../.."
(($#)) || set -- --minutes 20
exec ./dev chaos "$@"
