#!/usr/bin/env bash
# The Debian packages in cmake/debian-packages.txt.
#
#   scripts/packages.sh list SECTION...      prints the packages of these sections
#   scripts/packages.sh missing SECTION...   prints those that aren't installed
#   scripts/packages.sh ensure SECTION...    installs those; without root, says how to and exits 1
#
# With every package present, `ensure` needs neither root nor network. Its test puts its own dpkg-query, apt-get and id
# first on the PATH and names its own os-release file in DEV_OS_RELEASE; nothing else sets that variable.
set -euo pipefail

list_file="$(dirname "$0")/../cmake/debian-packages.txt"

# Prints "package" or "package command" a line: the command that makes the package unnecessary.
entries() {
  local section
  for section in "$@"; do
    if ! grep -qxF "[$section]" "$list_file"; then
      echo "packages.sh: no section [$section] in cmake/debian-packages.txt" >&2
      return 2
    fi
  done
  awk -v wanted=" $* " '
    { sub(/#.*/, "") }
    /^\[/ { is_wanted = index(wanted, " " substr($1, 2, length($1) - 2) " "); next }
    is_wanted && NF { sub(/^\?/, "", $2); print $1, $2 }' "$list_file" | sort -u
}

list() {
  local found
  found=$(entries "$@")
  awk '{ print $1 }' <<<"$found"
}

missing() {
  local found package command
  found=$(entries "$@")
  local names
  mapfile -t names < <(awk '{ print $1 }' <<<"$found")
  # dpkg-query complains about names it has never seen and exits 1; those are simply not installed.
  local installed
  installed=$(dpkg-query --show --showformat='${Package} ${db:Status-Status}\n' "${names[@]}" 2>/dev/null || true)
  while read -r package command; do
    if [[ -n $command ]] && command -v "$command" >/dev/null; then
      continue
    fi
    grep -qxF "$package installed" <<<"$installed" || echo "$package"
  done <<<"$found"
}

require_debian_12() {
  local release="${DEV_OS_RELEASE:-/etc/os-release}" id="" version=""
  if [[ -r $release ]]; then
    id=$(awk -F= '$1 == "ID" { gsub(/["'\'']/, "", $2); print $2 }' "$release")
    version=$(awk -F= '$1 == "VERSION_ID" { gsub(/["'\'']/, "", $2); print $2 }' "$release")
  fi
  if [[ "$id $version" != "debian 12" ]]; then
    echo "./dev needs Debian 12; this is ${id:-an unknown system}${version:+ $version}. In a container: docker run -it -v \"\$PWD:/src\" -w /src debian:12 ./dev help" >&2
    return 1
  fi
}

ensure() {
  require_debian_12
  local absent
  absent=$(missing "$@")
  if [[ -z $absent ]]; then
    return 0
  fi
  local names
  mapfile -t names <<<"$absent"
  if [[ $(id -u) != 0 ]]; then
    echo "Packages are missing. Install them with: sudo apt-get update && sudo apt-get install -y --no-install-recommends ${names[*]}" >&2
    return 1
  fi
  echo "Installing from Debian: ${names[*]}"
  export DEBIAN_FRONTEND=noninteractive
  apt-get update </dev/null
  apt-get install -y --no-install-recommends "${names[@]}" </dev/null
}

case "${1:-}" in
  list | missing | ensure)
    if (($# < 2)); then
      echo "usage: scripts/packages.sh list|missing|ensure SECTION..." >&2
      exit 2
    fi
    "$@"
    ;;
  *)
    echo "usage: scripts/packages.sh list|missing|ensure SECTION..." >&2
    exit 2
    ;;
esac
