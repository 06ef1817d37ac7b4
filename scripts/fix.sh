#!/usr/bin/env bash
# ./dev fix: repairs what ./dev check finds, where a machine can: format, trailing blanks, ends of files, and what is made
# from other files: pages from the code, dashboards, the chart's table of values.
set -euo pipefail
cd "$(dirname "$0")/.."

git -c safe.directory='*' ls-files -z --cached --others --exclude-standard -- '*.h' '*.cc' |
  while IFS= read -r -d '' file; do
    [[ ! -f $file ]] || printf '%s\0' "$file"
  done | xargs -0 --no-run-if-empty -n 16 -P "$(nproc)" clang-format-16 -i
/usr/bin/python3 tools/chart_values.py --fix || echo "The rest needs a person."
scripts/reference_pages.sh write
tools/dashboards.py write
/usr/bin/python3 tools/check_tidiness.py --fix || echo "The rest needs a person."
