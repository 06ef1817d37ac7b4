#!/bin/bash
# What tests/nightly/package_install.sh runs inside the clean root. Knows nothing of the source tree.
set -euo pipefail
export DEBIAN_FRONTEND=noninteractive LC_ALL=C.UTF-8

fail() {
  echo "FAILED: $*" >&2
  [[ ! -f /root/server.log ]] || tail -n 20 /root/server.log >&2
  exit 1
}

# A port of its own: the root shares the network of the machine.
start_server() {
  : >/root/server.log
  postkeeperd --listen 127.0.0.1:0 --metrics-listen off --data-dir /root/data 2>>/root/server.log &
  server_pid=$!
  local deadline=$((SECONDS + 60))
  until grep -q ' info ready' /root/server.log; do
    kill -0 "$server_pid" 2>/dev/null || fail "postkeeperd has ended"
    ((SECONDS < deadline)) || fail "postkeeperd was not ready within 60 s"
    sleep 0.1
  done
  POSTKEEPER_ADDRESS=$(sed -n 's/.*\bgrpc=\([^ ]*\).*/\1/p' /root/server.log | head -n 1)
  export POSTKEEPER_ADDRESS
}

stop_server() {
  kill "$server_pid"
  wait "$server_pid" || fail "postkeeperd ended with $?"
}

server_pid=""
trap '[[ -z $server_pid ]] || kill "$server_pid" 2>/dev/null || true' EXIT

apt-get update -q
apt-get install -qy --no-install-recommends /root/postkeeper_*.deb

for file in /lib/systemd/system/postkeeperd.service /usr/share/postkeeper/protos/postkeeper/v1/message.proto \
  /usr/share/postkeeper/protos/postkeeper/v1/service_config.json /etc/postkeeper/postkeeper.toml; do
  [[ -f $file ]] || fail "$file is missing"
done
for program in postkeeper postkeeperd; do
  "$program" --version
  "$program" --version | head -n 1 | grep -Eqx "$program [0-9.]+" || fail "$program does not tell its version"
  gzip -dc "/usr/share/man/man1/$program.1.gz" | grep -q '^[.]SH' || fail "there is no man page of $program"
done

# The sample says nothing but defaults, also when every line of it is made to count.
defaults=$(postkeeperd --print-config | sed 's/ *#.*//')
sed 's/^#\([a-z]\)/\1/' /etc/postkeeper/postkeeper.toml >/root/all.toml
[[ $(postkeeperd --config /root/all.toml --print-config | sed 's/ *#.*//') == "$defaults" ]] ||
  fail "the sample configuration is not the defaults"
postkeeperd --config /root/all.toml --print-config | grep -q '^listen .*# file$' || fail "the sample was not read"

# Without Java it says what to install; then that is enough.
if postkeeperd --listen 127.0.0.1:0 --metrics-listen off --data-dir /root/data 2>/root/refusal; then
  fail "postkeeperd runs without Java"
fi
cat /root/refusal
packages=$(sed -n 's/.*apt-get install \([a-z0-9 -]*\)\..*/\1/p' /root/refusal)
[[ -n $packages ]] || fail "it does not say what to install"
# shellcheck disable=SC2086  # several words are meant
apt-get install -qy --no-install-recommends $packages

start_server
postkeeper queue create loaves
postkeeper enqueue loaves 'one loaf' 'another loaf'
[[ $(postkeeper dequeue loaves --ack) == 'one loaf' ]] || fail "the first message did not come"
stop_server
start_server
[[ $(postkeeper dequeue loaves --ack) == 'another loaf' ]] || fail "the second message did not survive a restart"
stop_server
server_pid=""

# Removing it leaves what was stored and, until it is purged, the configuration.
apt-get remove -qy postkeeper
[[ -f /etc/postkeeper/postkeeper.toml && -d /root/data ]] || fail "removing it took too much"
apt-get purge -qy postkeeper
[[ ! -e /etc/postkeeper ]] || fail "purging it left its configuration"
