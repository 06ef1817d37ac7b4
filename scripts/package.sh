#!/usr/bin/env bash
# ./dev package: makes dist/postkeeper_VERSION_ARCH.deb from build/release: both programs, the systemd unit, a sample
# configuration, man pages made from --help, the public protos and the service config. ./dev has built the programs.
# Installing it starts and enables nothing; an update restarts a server that runs (packaging/postinst).
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

# Every knob with its meaning and its default, made from the table that --help-markdown prints: a row is
# | `--name`<br>`POSTKEEPER_NAME` | unit | default | bounds | meaning |
# All are commented out: the file changes nothing until somebody edits it.
write_sample_configuration() {
  mkdir -p "$root/etc/postkeeper"
  {
    echo "# Configuration of postkeeperd. Flags and POSTKEEPER_* variables win over it; the systemd unit gives --data-dir."
    echo "# What is in force, and where it came from: postkeeperd --print-config"
    build/release/postkeeperd --help-markdown | awk -F ' *[|] *' '
      /^## / { printf "\n# === %s ===\n", substr($0, 4) }
      /^[|] `--/ {
        split($2, names, "`")
        printf "\n# %s\n# %s%s\n", $6, $3, $5 == "" ? "" : "; " $5
        printf "#%s = \"%s\"\n", substr(names[2], 3), $4 == "empty" ? "" : $4
      }' | fold -s -w 118 | sed 's/ *$//; s/^[^#]/# &/'
  } >"$root/etc/postkeeper/postkeeper.toml"
  chmod 0644 "$root/etc/postkeeper/postkeeper.toml"
}

# Roff that shows text as it is.
verbatim() {
  printf '.nf\n'
  sed 's/\\/\\e/g; s/-/\\-/g; s/^[.'\'']/\\\&&/'
  printf '.fi\n'
}

subcommands() {
  awk '/^Subcommands:/ { is_on = 1; next } !NF { is_on = 0 } is_on { print $1 }'
}

# command_pages [PARENT]: every command's own --help, in the order of postkeeper --help.
command_pages() {
  local command help
  for command in $(build/release/postkeeper "$@" --help | subcommands); do
    help=$(build/release/postkeeper "$@" "$command" --help)
    if [[ -n $(subcommands <<<"$help") ]]; then
      command_pages "$@" "$command"
    else
      printf '.SS "%s"\n' "postkeeper $* $command" | tr -s ' '
      verbatim <<<"$help"
    fi
  done
}

# help2man asks a program for its --help. Examples need a prompt there, or they are filled like prose.
write_man_page() {
  local program="$1" name="$2" asked="build/package/man/$1"
  mkdir -p "$root/usr/share/man/man1"
  printf '#!/bin/sh\nbuild/release/%s "$@" | sed "s/^  %s [a-zA-Z]/  $ &/; s/^  [$]   /  $ /"\n' "$program" "$program" >"$asked"
  chmod +x "$asked"
  help2man --no-info --no-discard-stderr --version-string="$version" --source="postkeeper $version" --name="$name" \
    --include=build/package/man/include "$asked" | gzip -9n >"$root/usr/share/man/man1/$program.1.gz"
}

write_man_pages() {
  mkdir -p build/package/man
  {
    printf '[COMMANDS]\n'
    command_pages
    printf '[SEE ALSO]\n.BR postkeeperd (1)\n'
  } >build/package/man/include
  write_man_page postkeeper "command line of postkeeper: durable queues and publish/subscribe over gRPC"
  printf '[FILES]\n.I /etc/postkeeper/postkeeper.toml\n[SEE ALSO]\n.BR postkeeper (1)\n' >build/package/man/include
  write_man_page postkeeperd "$(head -n 1 packaging/description.txt)"
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
  install -m 0755 -t "$root/DEBIAN" packaging/postinst packaging/prerm packaging/postrm
  (cd "$root" && find . -type f -not -path './DEBIAN/*' -printf '%P\0' | sort -z | xargs -0 md5sum) >"$root/DEBIAN/md5sums"
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
