# shellcheck shell=bash
# Images and containers, with Docker where its daemon answers, else with buildah and podman. Sourced by what stands in the
# project's root; prepare_containers comes first. CONTAINERS=podman leaves Docker alone.

# shellcheck disable=SC2034  # for whoever sources this
run_image="postkeeper:$(cat VERSION)"
# shellcheck disable=SC2034
dev_image="postkeeper:$(cat VERSION)-dev"
readonly container_files="$PWD/build/image" base_image="localhost/debian:bookworm-slim"

has_docker() {
  [[ ${CONTAINERS:-} != podman ]] && command -v docker >/dev/null && docker info >/dev/null 2>&1
}

# What Debian leaves out of its slim image, and so do we: Perl (the package usrmerge needs it, where the folders aren't
# merged from the start), manuals, and waiting for the disk.
readonly slim=(--hook-dir=/usr/share/mmdebstrap/hooks/merged-usr --include=usr-is-merged --dpkgopt=force-unsafe-io
  --aptopt='APT::Install-Recommends "false"' --dpkgopt='path-exclude=/usr/share/man/*'
  --dpkgopt='path-exclude=/usr/share/info/*'
  --dpkgopt='path-exclude=/usr/share/locale/*' --dpkgopt='path-exclude=/usr/share/doc/*'
  --dpkgopt='path-exclude=/usr/share/lintian/*' --dpkgopt='path-include=/usr/share/doc/*/copyright')

prepare_containers() {
  if has_docker; then
    return 0
  fi
  mkdir -p "$container_files"
  # Neither systemd nor a journal is needed; the limits are below what a container that runs this may have itself.
  cat >"$container_files/containers.conf" <<'CONF'
[containers]
default_ulimits = ["nofile=8192:8192", "nproc=8192:8192"]
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
runtime = "runc"
CONF
  if ! containers image exists "$base_image"; then
    mmdebstrap --variant=minbase "${slim[@]}" bookworm "$container_files/base.tar"
    containers import --change 'ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin' \
      "$container_files/base.tar" "$base_image"
    rm "$container_files/base.tar"
  fi
}

# containers ARGUMENT...: the engine's own command line; docker and podman agree on what is used here.
containers() {
  if has_docker; then
    docker "$@"
  else
    CONTAINERS_CONF="$container_files/containers.conf" podman --log-level fatal --root "$container_files/storage" \
      --runroot "$container_files/run" "$@"
  fi
}

# build_container_image ARGUMENT...: from the Dockerfile. The compiler's cache of this machine is used, if there is one.
build_container_image() {
  if has_docker; then
    docker build "$@" .
    return
  fi
  local cache="${CCACHE_DIR:-${XDG_CACHE_HOME:-${HOME:-/nonexistent}/.cache}/ccache}" mounts=()
  if [[ -d $cache ]]; then
    mounts=(--volume "$cache:/root/.cache/ccache")
  fi
  # The format is Docker's, since the other one knows no health check.
  CONTAINERS_CONF="$container_files/containers.conf" buildah --root "$container_files/storage" \
    --runroot "$container_files/run" bud --isolation chroot --pull-never --layers --format docker \
    --build-arg "BASE=$base_image" "${mounts[@]}" "$@" .
}

image_bytes() {
  containers inspect --type image --format '{{.Size}}' "$1"
}
