#!/usr/bin/env bash
# Installs the .deb in dist/ (made if it isn't there) with apt into a clean Debian 12 root made for this test, and runs
# both programs there. Needs root, the network, and mmdebstrap.
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
  --customize-hook="copy-in $package /root" \
  --customize-hook='chroot "$1" sh -c "apt-get update -q && apt-get install -qy --no-install-recommends /root/postkeeper_*.deb"' \
  --customize-hook='chroot "$1" postkeeperd --version' \
  --customize-hook='chroot "$1" postkeeper --version' \
  --customize-hook='chroot "$1" test -f /lib/systemd/system/postkeeperd.service' \
  --customize-hook='chroot "$1" test -f /usr/share/postkeeper/protos/postkeeper/v1/message.proto' \
  --customize-hook='chroot "$1" test -f /usr/share/postkeeper/protos/postkeeper/v1/service_config.json' \
  --customize-hook='chroot "$1" test -f /etc/postkeeper/postkeeper.toml' \
  --customize-hook='chroot "$1" sh -c "postkeeperd --print-config >/dev/null"' \
  --customize-hook='chroot "$1" sh -c "! postkeeperd 2>/root/refusal; cat /root/refusal; grep -q apt-get /root/refusal"' \
  bookworm "$work/root.tar"
echo "the package installs into a clean root, and both programs run there"
