#!/usr/bin/env bash
# buf in the release that tools/buf pins: scripts/buf.sh ARGUMENT...
#
# The first call fetches it from npm's registry into build/buf; npm compares it with the checksum in package-lock.json,
# and nothing from the package is run at installation. Later calls need no network.
set -euo pipefail

root="$(cd "$(dirname "$0")/.." && pwd)"
home="$root/build/buf"
case "$(uname -m)" in
  x86_64) program="$home/node_modules/@bufbuild/buf-linux-x64/bin/buf" ;;
  *) program="$home/node_modules/@bufbuild/buf-linux-$(uname -m)/bin/buf" ;;
esac

if [[ ! -x $program ]] || ! cmp -s "$root/tools/buf/package-lock.json" "$home/package-lock.json"; then
  rm -rf "$home"
  mkdir -p "$home"
  cp "$root/tools/buf/package.json" "$root/tools/buf/package-lock.json" "$home/"
  # npm counts a package that it couldn't fetch, but that is for some platforms only, as a success: look for it.
  if ! (cd "$home" && npm ci --ignore-scripts --fetch-retry-mintimeout=1000 --fetch-retry-maxtimeout=5000 \
    --loglevel=verbose >npm.log 2>&1) || [[ ! -x $program ]]; then
    rm -f "$home/package-lock.json"
    echo "buf can't be fetched from $(npm config get registry 2>/dev/null) (it needs the network once; build/buf/npm.log says more)" >&2
    exit 1
  fi
fi

# Nothing is looked up elsewhere: the protos depend on nothing outside this folder.
BUF_CACHE_DIR="$home/cache" exec "$program" "$@"
