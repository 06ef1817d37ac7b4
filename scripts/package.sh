#!/usr/bin/env bash
# ./dev package: makes dist/postkeeper_VERSION_ARCH.deb from build/release: both programs, the systemd unit, a sample
# configuration, man pages made from --help, the public protos and the service config. ./dev has built the programs.
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/common.sh

version=$(cat VERSION)
architecture=$(dpkg --print-architecture)
readonly version architecture
readonly root="build/package/root"
readonly package="dist/postkeeper_${version}_${architecture}.deb"

install_files() {
  rm -rf build/package
  install -D -m 0755 -s build/release/postkeeperd "$root/usr/bin/postkeeperd"
  install -D -m 0755 -s build/release/postkeeper "$root/usr/bin/postkeeper"
  install -D -m 0644 packaging/postkeeperd.service "$root/lib/systemd/system/postkeeperd.service"
  install -D -m 0644 LICENSE "$root/usr/share/doc/postkeeper/copyright"
  install -D -m 0644 NOTICE "$root/usr/share/doc/postkeeper/NOTICE"
  install -D -m 0644 CHANGELOG.md "$root/usr/share/doc/postkeeper/CHANGELOG.md"
  install -D -m 0644 -t "$root/usr/share/postkeeper/protos/postkeeper/v1" protos/postkeeper/v1/*
}

# Every knob with its default, all commented out: the file changes nothing until somebody edits it.
write_sample_configuration() {
  mkdir -p "$root/etc/postkeeper"
  {
    echo "# Configuration of postkeeperd. What each knob means: postkeeperd --help. Flags and POSTKEEPER_* variables win."
    env -i HOME=/root PATH="$PATH" build/release/postkeeperd --print-config | sed 's/^\([a-z]\)/# \1/'
  } >"$root/etc/postkeeper/postkeeper.toml"
  chmod 0644 "$root/etc/postkeeper/postkeeper.toml"
}

write_man_pages() {
  local program
  mkdir -p "$root/usr/share/man/man1"
  for program in postkeeper postkeeperd; do
    help2man --no-info --no-discard-stderr --source="postkeeper $version" \
      --name="$(head -n 1 packaging/description.txt)" "build/release/$program" |
      gzip -9n >"$root/usr/share/man/man1/$program.1.gz"
  done
}

# The shared libraries that the programs were linked with, as packages with versions.
library_dependencies() {
  mkdir -p build/package/debian
  printf 'Source: postkeeper\n\nPackage: postkeeper\nArchitecture: any\n' >build/package/debian/control
  (cd build/package && dpkg-shlibdeps -O root/usr/bin/postkeeper root/usr/bin/postkeeperd 2>/dev/null) |
    sed -n 's/^shlibs:Depends=//p'
}

write_control() {
  mkdir -p "$root/DEBIAN"
  cat >"$root/DEBIAN/control" <<END
Package: postkeeper
Version: $version
Architecture: $architecture
Maintainer: the postkeeper engineers <postkeeper@localhost>
Section: net
Priority: optional
Installed-Size: $(du -sk "$root" | cut -f1)
Depends: $(library_dependencies)
Recommends: default-jre-headless, libzookeeper-java
Description: $(cat packaging/description.txt)
END
  echo /etc/postkeeper/postkeeper.toml >"$root/DEBIAN/conffiles"
}

build_package() {
  mkdir -p dist
  dpkg-deb --root-owner-group --build "$root" "$package"
}

step "install the files" install_files
step "write the sample configuration" write_sample_configuration
step "write the man pages" write_man_pages
step "write the control file" write_control
step "build the package" build_package
