"""One readable page about a run."""

import collections

from faults import KILL, KINDS, STOP
from history import ACK, ALREADY_SETTLED, OK, Delivered, FaultBegan, FaultEnded, Received, Settled, Sent, lines_about, told

# A pause is put down to a fault that was alone if it begins no earlier than so long before it (which is what readers wait
# for a message anyway), and before the next one, but at most so long after it.
NORMAL_PAUSE_S = 2
PAUSE_WINDOW_S = 60
VIOLATIONS_SHOWN = 5
LINES_SHOWN = 40


def pauses_after(events, kind):
    """[seconds]: for each lone fault of the kind, the longest that a Consume stream's reader waited for its next
    delivery, from one reopened stream to the next, until the next fault."""
    begins = [event for event in events if isinstance(event, FaultBegan)]
    deliveries = collections.defaultdict(list)
    for event in events:
        if isinstance(event, Delivered) and event.stream:
            deliveries[event.consumer].append(event.at)
    found = []
    for index, fault in enumerate(begins):
        if fault.kind != kind or not fault.is_alone:
            continue
        until = begins[index + 1].at if index + 1 < len(begins) else fault.at + PAUSE_WINDOW_S
        until = min(until, fault.at + PAUSE_WINDOW_S)
        longest = max((after - before for times in deliveries.values() for before, after in zip(times, times[1:])
                       if fault.at - NORMAL_PAUSE_S <= before < until - NORMAL_PAUSE_S and after > fault.at),
                      default=None)
        if longest is not None:
            found.append(longest)
    return found


def quiet_pause(events):
    """The longest between two deliveries to one reader before the first fault: what the load itself makes."""
    first = min((event.at for event in events if isinstance(event, FaultBegan)), default=float("inf"))
    longest, last = 0.0, {}
    for event in events:
        if isinstance(event, Delivered) and event.stream and event.at < first:
            longest = max(longest, event.at - last.get(event.consumer, event.at))
            last[event.consumer] = event.at
    return longest


def describe(seconds):
    if not seconds:
        return "none was alone"
    ordered = sorted(seconds)
    return f"{ordered[-1]:.1f} s (median {ordered[len(ordered) // 2]:.1f} s of {len(ordered)})"


def rows(events, verdicts, topics):
    """[(what, figure)]"""
    fired = collections.Counter(event.kind for event in events if isinstance(event, FaultEnded) and event.had_effect)
    calls = {event.call: event for event in events if isinstance(event, Sent)}
    accepted = collections.Counter()
    for event in events:
        if getattr(event, "outcome", "") == OK and hasattr(event, "message_ids"):
            accepted[calls[event.call].log in topics] += len(event.message_ids)
    acked = {event.message_id for event in events
             if isinstance(event, Settled) and event.verb == ACK and event.outcome in (OK, ALREADY_SETTLED)}

    def broken(*names):
        return sum(len(verdicts[name].violations) for name in names)
    table = [(f"faults: {kind}", fired[kind]) for kind in KINDS]
    table += [("faults, all kinds", sum(fired.values())),
              ("enqueued (answered OK)", accepted[False]),
              ("delivered by queues", sum(isinstance(event, Delivered) for event in events)),
              ("acked", len(acked)),
              ("published (answered OK)", accepted[True]),
              ("received by subscribers", sum(isinstance(event, Received) for event in events))]
    for verdict in verdicts.values():
        table += verdict.counts.items()
    table += [("lost", broken("nothing_is_lost")),
              ("delivered after ack", broken("ack_is_final")),
              ("settled twice", broken("held_by_one")),
              ("duplicates", broken("written_once")),
              ("half a call written", broken("calls_are_whole")),
              ("order violations", broken("log_order", "delivery_order")),
              ("gaps and repeats of subscribers", broken("no_silent_gap")),
              ("refused, yet written; never answered", broken("known_or_said")),
              ("mishaps", broken("all_goes_on")),
              ("longest pause of a Consume stream, no fault", f"{quiet_pause(events):.1f} s"),
              ("longest pause of a Consume stream, replica killed", describe(pauses_after(events, KILL))),
              ("longest pause of a Consume stream, stopped in good order", describe(pauses_after(events, STOP)))]
    return table


def table(pairs):
    width = max(len(str(what)) for what, _ in pairs)
    figures = max(len(str(figure)) for _, figure in pairs)
    lines = [f"| {what:<{width}} | {figure!s:>{figures}} |" for what, figure in pairs]
    return "\n".join([f"| {'':<{width}} | {'':>{figures}} |", f"| {'-' * width} | {'-' * (figures - 1)}: |"] + lines)


def what_is_missing(events, verdicts):
    """Why this run proves too little, if it does."""
    fired = {event.kind for event in events if isinstance(event, FaultEnded) and event.had_effect}
    return [f"no fault of this kind took effect: {kind}" for kind in KINDS if kind not in fired] + \
           [f"nothing was judged: {verdict.promise}" for verdict in verdicts.values() if not verdict.judged]


def violations(events, verdicts):
    """Lines: each promise that is broken, with what the history says about the first ones."""
    lines = []
    for verdict in verdicts.values():
        if not verdict.violations:
            continue
        lines.append(f"BROKEN: {verdict.promise}: {len(verdict.violations)} of {verdict.judged}")
        for violation in verdict.violations[:VIOLATIONS_SHOWN]:
            lines.append(f"  {violation.text}")
            lines += [f"    {told(event)}" for event in lines_about(events, violation.keys)[:LINES_SHOWN]]
    return lines
