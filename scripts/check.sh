#!/usr/bin/env bash
# ./dev check: every check, each with its time; all of them run, then the exit code tells whether one failed. Nothing is
# changed. `./dev fix` repairs format and tidiness as far as a machine can; the other findings say what to do.
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/common.sh

our_git() {
  git -c safe.directory='*' "$@"
}

# Prints, with a NUL behind each, our files whose name matches one of the patterns.
our_files() {
  our_git ls-files -z --cached --others --exclude-standard -- "$@" | while IFS= read -r -d '' file; do
    [[ ! -f $file ]] || printf '%s\0' "$file"
  done
}

check_format() {
  local complaints
  if complaints=$(our_files '*.h' '*.cc' |
    xargs -0 --no-run-if-empty -n 16 -P "$(nproc)" clang-format-16 --dry-run -Werror 2>&1); then
    return 0
  fi
  grep -oE '^[^: ]+:[0-9]+:[0-9]+: error' <<<"$complaints" | cut -d: -f1 | sort | uniq -c |
    awk '{ print $2 ": not formatted in " $1 " place(s); ./dev fix formats it"; any = 1 }
         END { exit !any }' || echo "$complaints"
  return 1
}

check_shell_scripts() {
  our_files dev .ci/run '*.sh' | xargs -0 --no-run-if-empty shellcheck --external-sources
}

check_protos() {
  (cd protos && ../scripts/buf.sh lint)
}

# Against the last release: what is stored and what clients were built with must go on working.
check_protos_compatible() {
  local tag
  if ! tag=$(our_git describe --tags --abbrev=0 --match 'v*' 2>/dev/null); then
    echo "no release tag in this clone, nothing to compare with"
    return 0
  fi
  local released=build/buf-released
  rm -rf "$released"
  mkdir -p "$released"
  our_git archive "$tag" protos | tar -x -C "$released"
  (cd protos && ../scripts/buf.sh breaking --against "../$released/protos")
}

check_version() {
  local version
  version=$(cat VERSION)
  if [[ ! $version =~ ^[0-9]+\.[0-9]+\.[0-9]+$ ]]; then
    echo "VERSION is not a semantic version: $version"
    return 1
  fi
  if ! grep -qF "## $version" CHANGELOG.md; then
    echo "CHANGELOG.md has no section \"## $version\""
    return 1
  fi
}

try_step "format (clang-format)" check_format
try_step "shell scripts (shellcheck)" check_shell_scripts
try_step "layers (tools/check_layers.py)" /usr/bin/python3 tools/check_layers.py
try_step "tidiness (tools/check_tidiness.py)" /usr/bin/python3 tools/check_tidiness.py
try_step "the chart's values, their table and schema" /usr/bin/python3 tools/chart_values.py
try_step "pages made from the code (docs/METRICS.md, docs/CONFIGURATION.md)" scripts/reference_pages.sh check
try_step "dashboards are what tools/dashboards.py makes" tools/dashboards.py check
try_step "version and changelog agree" check_version
try_step "protos (buf lint)" check_protos
try_step "protos still fit the last release (buf breaking)" check_protos_compatible

if ((${#failed_steps[@]})); then
  echo "check failed: $(printf '%s; ' "${failed_steps[@]}" | sed 's/; $//')"
  exit 1
fi
echo "all checks passed"
