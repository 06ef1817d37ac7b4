# shellcheck shell=bash
# The rates that ./dev demo shows. Sourced by scripts/demo.sh; uses its show and note.
#
# Everything goes through the command line program, as the commands say, so these are rates of one client process with
# its pipes. ./dev bench measures the service itself, beside the ceilings of the machine.

readonly rate_s=5 rate_messages_max=2000000

# A message of 100 bytes; many of them a line each.
rate_body=$(printf 'a message of 100 bytes %077d' 0)

# For so many seconds, or as many messages as every machine has room for.
rate_lines() {
  (
    set +o pipefail
    timeout $rate_s yes "$rate_body" | head -n $rate_messages_max
  )
}

rate_of() {
  awk -v count="$1" -v seconds="$2" 'BEGIN { printf "%.0f", count / seconds }'
}

measure_enqueue() {
  local started enqueued
  show "postkeeper queue create rates --max-messages 10000000 --max-bytes 1GiB --quiet"
  echo "   \$ timeout $rate_s yes '(100 bytes)' | postkeeper enqueue rates"
  started=$EPOCHREALTIME
  enqueued=$(rate_lines | postkeeper enqueue rates)
  note "$enqueued: $(rate_of "${enqueued%% *}" "$(awk "BEGIN { print $EPOCHREALTIME - $started }")") per second, each durable"
  show "postkeeper queue purge rates --quiet"
}

measure_all_the_way() {
  local producer done_count
  echo "   \$ timeout $rate_s yes '(100 bytes)' | postkeeper enqueue rates &"
  { rate_lines | postkeeper enqueue rates --quiet; } &
  producer=$!
  # What is held at a time, divided by the time until an ack is durable, is the rate: the 100 that a consumer that prints
  # holds by itself would measure the disk, not the service.
  echo "   \$ timeout $rate_s postkeeper consume rates --prefetch 5000 | wc -l"
  # timeout asks it to stop with SIGTERM, and it settles what it has printed.
  done_count=$( (timeout $rate_s postkeeper consume rates --prefetch 5000 || [[ $? == 124 ]]) | wc -l)
  note "$done_count consumed and acked while they were enqueued: $(rate_of "$done_count" $rate_s) per second"
  wait "$producer"
  show "postkeeper queue purge rates --quiet"
}

# One message at a time: written, then its id is waited for, which says that it is durable.
measure_confirm() {
  local started until_us answer input output pid
  echo "   \$ postkeeper enqueue rates --output json     one line in, then wait for its id, and so on"
  coproc CONFIRM { exec postkeeper enqueue rates --output json; }
  # bash forgets these variables when the program ends.
  input=${CONFIRM[1]} output=${CONFIRM[0]} pid=$CONFIRM_PID
  until_us=$((${EPOCHREALTIME/./} + rate_s * 1000000))
  while ((${EPOCHREALTIME/./} < until_us)); do
    started=${EPOCHREALTIME/./}
    echo "$rate_body" >&"$input"
    read -r -t 10 answer <&"$output" || fail "no confirmation within 10 s"
    [[ $answer == *message_id* ]] || fail "no confirmation but: $answer"
    echo $((${EPOCHREALTIME/./} - started))
  done >confirm-us
  eval "exec $input>&-"
  wait "$pid" 2>/dev/null || true
  sort -n confirm-us | awk '
    { us[NR] = $1 }
    END {
      printf "   %d messages, each confirmed durable before the next: p50 %.2f ms, p99 %.2f ms\n", NR,
        us[int((NR + 1) / 2)] / 1000, us[int((NR * 99 + 99) / 100)] / 1000
    }'
}

measure_rates() {
  note "enqueue, 100 bytes a message"
  measure_enqueue
  note "enqueue, consume and ack at the same time"
  measure_all_the_way
  note "confirm latency"
  measure_confirm
}
