#!/usr/bin/env bash
# ./dev demo [--keep] [FILE]: counts the words of a real text with four workers, kills one of them in the middle, restarts
# the server with messages waiting, and measures rates. Every command behind "$" is run as it stands there.
#
#   FILE      the text (default: a licence under /usr/share/common-licenses); at least 200 lines
#   --keep    leave the server up at the end, and say how to stop it
#   --bin DIR where postkeeperd and postkeeper are (default: build/release)
#
# Exit code 0 only if the words were counted right although a worker was killed, its messages came again, and the restart
# lost nothing. Server, ZooKeeper and data are on free ports and in a folder of their own; nothing is left of them.
set -euo pipefail

readonly lines_min=200 held_min=10 lease_s=5
root="$(cd "$(dirname "$0")/.." && pwd)"
bin="$root/build/release"
text=""
is_kept=0
server_pid=""
zookeeper_pid=""
worker_pids=()
folder=""

usage_error() {
  echo "demo: $1. See: scripts/demo.sh [--keep] [--bin DIR] [FILE]" >&2
  exit 2
}

while (($#)); do
  case "$1" in
    --keep) is_kept=1 ;;
    --bin) bin=$(realpath -- "${2:?--bin needs a folder}") && shift ;;
    -*) usage_error "no option $1" ;;
    *)
      [[ -z $text ]] || usage_error "one text is enough"
      text=$1
      ;;
  esac
  shift
done
if [[ -z $text ]]; then
  text=/usr/share/common-licenses/GPL-3
  [[ -f $text ]] || text=$root/LICENSE
fi
[[ -f $text && -r $text ]] || usage_error "there is no file $text"
text=$(realpath -- "$text")
quoted_text=$(printf '%q' "$text")
(($(wc -l <"$text") >= lines_min)) ||
  usage_error "$text has less than $lines_min lines; a worker that is killed should hold some"
for program in postkeeperd postkeeper; do
  [[ -x $bin/$program ]] || usage_error "$bin/$program is not there. Build it: ./dev build"
done

# A person's own settings for postkeeper are not the demo's.
while read -r name; do
  unset "$name"
done < <(compgen -e | grep '^POSTKEEPER_' || true)
export LC_ALL=C PATH="$bin:$PATH"
folder=$(mktemp -d "${TMPDIR:-/tmp}/postkeeper-demo.XXXXXX")
cd "$folder"

# --- telling what is done -------------------------------------------------------------------------------------------

heading() {
  printf '\n== %s\n' "$*"
}

note() {
  printf '   %s\n' "$*"
}

# show COMMAND: prints a command as a person would type it, runs it, and prints what it said.
show() {
  printf '   $ %s\n' "$1"
  eval "$1" 2>&1 | sed 's/^/   /'
}

# show_in_background COMMAND: the same for a command that goes on; its pid is in $!.
show_in_background() {
  printf '   $ %s\n' "$1"
  eval "exec $1" &
}

fail() {
  printf '\nFAILED: %s\n' "$*" >&2
  exit 1
}

# wait_until SECONDS WHAT COMMAND...: until the command succeeds.
wait_until() {
  local deadline=$((SECONDS + $1)) what="$2"
  shift 2
  until "$@"; do
    ((SECONDS < deadline)) || fail "$what did not happen in time"
    sleep 0.05
  done
}

# --- nothing is left running ----------------------------------------------------------------------------------------

is_running() {
  [[ -n $1 && -d /proc/$1 ]] && ! grep -q '^State:.Z' "/proc/$1/status" 2>/dev/null
}

has_ended() {
  ! is_running "$1"
}

# stop SECONDS PID: asks it to end, and kills it if it doesn't.
stop() {
  local deadline=$((SECONDS + $1)) pid="$2"
  is_running "$pid" || return 0
  kill -TERM "$pid" 2>/dev/null || true
  while is_running "$pid" && ((SECONDS < deadline)); do sleep 0.05; done
  kill -KILL "$pid" 2>/dev/null || true
}

clean_up() {
  local code=$?
  trap - EXIT INT TERM HUP
  local pid
  for pid in "${worker_pids[@]}"; do stop 10 "$pid"; done
  if ((code != 0)) && [[ -f $folder/server.log ]]; then
    echo "the server's last words:" >&2
    tail -n 20 "$folder/server.log" >&2
  fi
  if ((is_kept && code == 0)); then
    heading "The server stays up"
    note "use it:   export PATH=$bin:\$PATH POSTKEEPER_ADDRESS=$POSTKEEPER_ADDRESS"
    note "stop it:  kill $server_pid"
    note "its data: $folder (rm -r it afterwards)"
  else
    stop 30 "$server_pid"
    # The embedded ZooKeeper ends with its parent; it is waited for, so that "nothing is left" is true.
    [[ -z $zookeeper_pid ]] || stop 10 "$zookeeper_pid"
    cd /
    rm -rf "$folder"
  fi
  exit "$code"
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

# --- the steps --------------------------------------------------------------------------------------------------------

# start_server ADDRESS: and waits until it is ready.
start_server() {
  : >server.log
  show_in_background "postkeeperd --listen $1 --metrics-listen 127.0.0.1:0 --data-dir data 2>>server.log"
  server_pid=$!
  wait_until 180 "the server's start" is_ready
  zookeeper_pid=$(sed -n 's/.* ZooKeeper runs .*pid=\([0-9]*\).*/\1/p' server.log | tail -n 1)
}

is_ready() {
  is_running "$server_pid" || fail "postkeeperd ended: $(tail -n 1 server.log)"
  grep -q ' info ready' server.log
}

ready_count() {
  postkeeper stats "$1" --output json | sed 's/.*"ready":\([0-9]*\).*/\1/'
}

leased_count() {
  postkeeper stats "$1" --output json | sed 's/.*"leased":\([0-9]*\).*/\1/'
}

holds_enough() {
  (($(leased_count lines) >= held_min))
}

has_begun() {
  [[ -s worker-$1.log ]]
}

start_worker() {
  show_in_background "postkeeper consume lines --exec ./count-words --publish-output counts --prefetch 20 \
--lease ${lease_s}s --until-empty 2>worker-$1.log"
  worker_pids+=($!)
}

count_words() {
  heading "1. Start a server with a ZooKeeper of its own"
  start_server 127.0.0.1:0
  POSTKEEPER_ADDRESS=$(sed -n 's/.*\bgrpc=\([^ ]*\).*/\1/p' server.log | head -n 1)
  show "export POSTKEEPER_ADDRESS=$POSTKEEPER_ADDRESS"
  export POSTKEEPER_ADDRESS
  show "postkeeper health"

  heading "2. Put every line of a text into a queue"
  show "postkeeper queue create lines"
  show "postkeeper topic create counts"
  show "postkeeper enqueue lines --file $quoted_text"
  show "postkeeper stats lines"

  heading "3. Four workers count words; worker 1 is killed while it holds at least $held_min messages"
  # What a worker runs for each message. The pause stands for real work; the attempt goes to the worker's log.
  cat >count-words <<'END'
#!/bin/sh
echo "attempt $POSTKEEPER_ATTEMPT of message $POSTKEEPER_MESSAGE_ID" >&2
sleep 0.05
LC_ALL=C wc -w
END
  chmod +x count-words
  show "cat count-words"
  start_worker 1
  # It is alone, so what is leased is what it holds.
  wait_until 30 "that worker 1 holds $held_min messages" holds_enough
  local worker held
  held=$(leased_count lines)
  for worker in 2 3 4; do start_worker "$worker"; done
  for worker in 2 3 4; do wait_until 30 "the start of worker $worker" has_begun "$worker"; done
  note "worker 1 alone held $held messages, and takes a new one for each that it is done with"
  disown "${worker_pids[0]}"  # or bash would tell its death in words of its own
  show "kill -9 ${worker_pids[0]}"
  note "what it held comes again to the others when its leases of $lease_s s have lapsed"
  for worker in 2 3 4; do
    wait "${worker_pids[worker - 1]}" || fail "worker $worker failed: $(tail -n 3 "worker-$worker.log")"
  done
  worker_pids=()
  for worker in 1 2 3 4; do
    note "worker $worker: $(grep -c '^attempt' "worker-$worker.log") messages, $(grep -c '^attempt [2-9]' \
      "worker-$worker.log" || true) of them at attempt 2$( ((worker > 1)) || echo ', killed')"
  done
  show "postkeeper stats lines"
}

# Adds each message's count once, by the id of the line that it is the count of.
add_once() {
  awk '
    {
      if (!match($0, /"source-message-id":"[^"]*"/)) { print "a count without a source: " $0; exit 1 }
      id = substr($0, RSTART, RLENGTH)
      if (id in seen) { repeats++; next }
      seen[id] = 1
      if (!match($0, /"body":" *[0-9]+/)) { print "no count: " $0; exit 1 }
      count = substr($0, RSTART, RLENGTH)
      gsub(/[^0-9]/, "", count)
      sum += count
      lines++
    }
    END { print sum + 0, lines + 0, repeats + 0 }'
}

check_sum() {
  local expected sum lines repeats redelivered
  heading "4. A subscriber adds the count of each line once"
  printf '   $ %s\n' "postkeeper subscribe counts --from earliest --until-caught-up --output json | head -n 2"
  postkeeper subscribe counts --from earliest --until-caught-up --output json >counts.json
  head -n 2 counts.json | sed 's/^/   /'
  read -r sum lines repeats < <(add_once <counts.json)
  show "LC_ALL=C wc -w <$quoted_text"
  expected=$(wc -w <"$text")
  redelivered=$(cat worker-[234].log | grep -c '^attempt [2-9]' || true)
  note "the subscriber's sum: $sum words in $lines lines; $repeats repeats seen and left out"
  note "messages that came again after the kill: $redelivered"
  ((sum == expected)) || fail "the subscriber's sum is $sum, but the text has $expected words"
  ((redelivered >= held_min)) || fail "only $redelivered messages came again, though worker 1 held $held_min when killed"
}

check_restart() {
  local code=0
  heading "5. Restart the server with 1,000 messages waiting"
  show "seq 1000 | postkeeper enqueue waiting"
  show "kill -TERM $server_pid"
  wait "$server_pid" || code=$?
  note "the server ended with exit code $code"
  ((code == 0)) || fail "the server did not stop in order"
  wait_until 10 "the end of ZooKeeper" has_ended "$zookeeper_pid"
  start_server "$POSTKEEPER_ADDRESS"
  show "postkeeper stats waiting"
  (($(ready_count waiting) == 1000)) || fail "after the restart $(ready_count waiting) messages are ready, not 1000"
  show "postkeeper consume waiting --until-empty >found"
  show "seq 1000 | cmp - found && echo 'all 1,000 found, in order'"
  seq 1000 | cmp -s - found || fail "what was found after the restart is not what was enqueued"
}

check_nothing_left() {
  stop 30 "$server_pid"
  wait_until 10 "the end of ZooKeeper" has_ended "$zookeeper_pid"
  note "server and ZooKeeper have ended; nothing is left running"
}

count_words
check_sum
check_restart
heading "6. How fast, five seconds each, on this machine with everything on it"
# shellcheck source=scripts/demo_rates.sh
source "$root/scripts/demo_rates.sh"
measure_rates

heading "Done: all words counted once, though a worker was killed; nothing lost by a restart. $SECONDS s"
((is_kept)) || check_nothing_left
