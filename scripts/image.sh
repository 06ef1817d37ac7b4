#!/usr/bin/env bash
# ./dev image: builds the images postkeeper (target run) and postkeeper:dev, and shows that they serve: as a user without
# rights, with a read-only root, without capabilities. Ends with their sizes; fails if the first is over 150 MB.
#
#   --build-only   doesn't run them
#
# With a Docker daemon the images are left with it. Without one, buildah builds and podman runs them, all below
# build/image; that needs root and Debian's packages, but no registry: the base image is made of packages, too.
# The containers have no network but a loopback of their own, so nothing is left behind in this machine's.
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/common.sh
source scripts/containers.sh

readonly size_max_bytes=150000000 patience_s=120
version=$(cat VERSION)
revision=$(git -c safe.directory='*' rev-parse HEAD 2>/dev/null || echo unknown)

build_image() {
  build_container_image --target "$1" --tag "$2" --build-arg "VERSION=$version" --build-arg "REVISION=$revision"
}

# Everything that a container may do without is taken away. Podman would put something that can be written to on /tmp.
run_confined() {
  local read_only=(--read-only)
  has_docker || read_only+=(--read-only-tmpfs=false)
  containers run "${read_only[@]}" --cap-drop ALL --security-opt no-new-privileges "$@"
}

postkeeper_in() {
  local container="$1"
  shift
  containers exec "$container" postkeeper "$@"
}

wait_until_healthy() {
  local deadline=$((SECONDS + patience_s))
  until postkeeper_in "$@" health >/dev/null 2>&1; do
    if ((SECONDS >= deadline)) || [[ $(containers inspect --format '{{.State.Running}}' "$1") != true ]]; then
      echo "image.sh: $1 is not ready:" >&2
      containers logs "$1" >&2
      return 1
    fi
    sleep 0.2
  done
}

# expect WHAT WANTED GOT
expect() {
  if [[ $2 != "$3" ]]; then
    printf 'image.sh: %s: expected "%s", got "%s"\n' "$1" "$2" "$3" >&2
    return 1
  fi
}

# The dev image serves with its ZooKeeper; the small one is a second replica on it. Both are in one network namespace.
serve_a_client() {
  local dev="postkeeper-image-dev-$$" small="postkeeper-image-run-$$" place
  # The small one depends on the network of the other. The names are meant as they are now.
  # shellcheck disable=SC2064
  trap "for name in $small $dev; do containers rm --force --volumes \$name >/dev/null 2>&1 || true; done" EXIT
  run_confined --detach --name "$dev" --network none "$dev_image" \
    --listen 127.0.0.1:7421 --metrics-listen off --embedded-zookeeper-port 2181 --stored-bytes-max 64MiB >/dev/null
  wait_until_healthy "$dev" --address 127.0.0.1:7421
  run_confined --detach --name "$small" --network "container:$dev" "$run_image" \
    --zookeeper 127.0.0.1:2181 --advertise 127.0.0.1:7411 >/dev/null
  wait_until_healthy "$small"

  expect "the user" 65532 "$(containers exec "$small" id -u)"
  for place in /usr/bin /etc /tmp /var/lib/postkeeper; do
    if containers exec "$small" sh -c "echo x >$place/written" 2>/dev/null; then
      echo "image.sh: $place can be written to" >&2
      return 1
    fi
  done
  if containers exec "$small" sh -c 'command -v java' >/dev/null; then
    echo "image.sh: there is Java in the small image" >&2
    return 1
  fi
  postkeeper_in "$small" queue create loaves >/dev/null
  postkeeper_in "$small" enqueue loaves 'one loaf' 'another loaf' >/dev/null
  expect "what the small image enqueued comes from the other one" 'one loaf' \
    "$(postkeeper_in "$dev" --address 127.0.0.1:7421 dequeue loaves --ack)"
  expect "what is left" 'another loaf' "$(postkeeper_in "$small" dequeue loaves --ack)"
  health_check "$small"

  containers stop --time 40 "$small" >/dev/null
  expect "the exit code after SIGTERM" 0 "$(containers inspect --format '{{.State.ExitCode}}' "$small")"
  containers stop --time 40 "$dev" >/dev/null
  expect "the exit code of the dev image" 0 "$(containers inspect --format '{{.State.ExitCode}}' "$dev")"
  echo "serves as user 65532 with a read-only root and no capabilities"
}

# The image's own health check. Docker runs it every few seconds; podman does when it is told to.
health_check() {
  local deadline=$((SECONDS + patience_s))
  if ! has_docker; then
    containers healthcheck run "$1"
    return
  fi
  until [[ $(containers inspect --format '{{.State.Health.Status}}' "$1") == healthy ]]; do
    if ((SECONDS >= deadline)); then
      echo "image.sh: $1 is not healthy" >&2
      return 1
    fi
    sleep 0.5
  done
}

check_labels() {
  local label format
  for label in title description licenses version revision; do
    format="{{index .Config.Labels \"org.opencontainers.image.$label\"}}"
    if [[ -z $(containers inspect --type image --format "$format" "$run_image") ]]; then
      echo "image.sh: no label $label" >&2
      return 1
    fi
  done
}

check_size() {
  local bytes
  printf '%-16s %4d MB\n' "$dev_image" "$(($(image_bytes "$dev_image") / 1000000))"
  bytes=$(image_bytes "$run_image")
  printf '%-16s %4d MB (at most %d)\n' "$run_image" "$((bytes / 1000000))" "$((size_max_bytes / 1000000))"
  ((bytes <= size_max_bytes))
}

step "make ready" prepare_containers
step "build the image" build_image run "$run_image"
step "build the image for development" build_image dev "$dev_image"
step "labels" check_labels
if [[ ${1:-} != --build-only ]]; then
  step "serve a client" serve_a_client
fi
step "size" check_size
