#!/usr/bin/env bash
# Installs the .deb in dist/ (made if it isn't there) with apt into a clean Debian 12 root made for this test, and runs
# both programs there: first without Java, then with the packages it recommends, as far as a message enqueued, dequeued
# and still there after a restart. Needs root, the network, and mmdebstrap.
set -euo pipefail
cd "$(dirname "$0")/../.."

package="dist/postkeeper_$(cat VERSION)_$(dpkg --print-architecture).deb"
[[ -f $package ]] || ./dev package
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
command -v mmdebstrap >/dev/null || apt-get install -y --no-install-recommends mmdebstrap >/dev/null

# The hooks run while the root is being made, with the package sources of this machine.
# shellcheck disable=SC2016  # mmdebstrap gives the root as $1 to each hook
mmdebstrap --variant=minbase --include=ca-certificates \
  --customize-hook="copy-in $package tests/support/package_in_root.sh /root" \
  --customize-hook='chroot "$1" /root/package_in_root.sh' \
  bookworm "$work/root.tar"
echo "the package installs into a clean root, and both programs work there"
