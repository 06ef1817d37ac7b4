#!/usr/bin/env bash
# docs/METRICS.md and docs/CONFIGURATION.md, which are made from the code:
#
#   scripts/reference_pages.sh check    tells which of them is not as the code says
#   scripts/reference_pages.sh write    makes them anew
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/common.sh

build() {
  cmake --preset release --log-level=WARNING
  build_targets release reference_pages
}

mkdir -p build
if ! build >build/reference_pages.log 2>&1; then
  tail -n 50 build/reference_pages.log
  exit 1
fi

code=0
for page in METRICS CONFIGURATION; do
  build/release/reference_pages "${page,,}" >"build/$page.md"
  if [[ $1 == write ]]; then
    cmp -s "build/$page.md" "docs/$page.md" || cp "build/$page.md" "docs/$page.md"
  elif ! diff -u "docs/$page.md" "build/$page.md"; then
    echo "docs/$page.md is not what the code says; ./dev fix makes it anew"
    code=1
  fi
done
exit "$code"
