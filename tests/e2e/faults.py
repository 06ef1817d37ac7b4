"""Faults of a real cluster, planned from one seed, and done."""

import dataclasses
import random
import threading
import time

import tcp_proxy
from cluster import SIZE, START_TIMEOUT_S, STOP_TIMEOUT_S, wait_until
from history import FaultBegan, FaultEnded, Mishap

# Of what a fault takes hold of: at most one of each at a time, so that a majority of the ensemble goes on.
REPLICA, MEMBER, LINKS = "replica", "member", "links"

KILL, STOP, PAUSE = "replica killed", "replica stopped in good order", "replica paused"
KILL_ALL = "all replicas killed"
KILL_MEMBER, PAUSE_MEMBER = "member killed", "member paused"
SLOW_LINKS, SILENT_LINKS = "links slow", "links silent"
REFUSED_LINKS, RESET_LINKS, MUTE_LINKS = "links refused", "links reset", "replies lost"

CLASS_OF = {KILL: REPLICA, STOP: REPLICA, PAUSE: REPLICA, KILL_ALL: REPLICA, KILL_MEMBER: MEMBER, PAUSE_MEMBER: MEMBER,
            SLOW_LINKS: LINKS, SILENT_LINKS: LINKS, REFUSED_LINKS: LINKS, RESET_LINKS: LINKS, MUTE_LINKS: LINKS}
KINDS = tuple(CLASS_OF)

# One fault in so many comes together with one of another class.
PAIRED_ONE_IN = 4
QUIET_S = (1, 3)  # between faults
PAUSE_MEASURED_S = 5  # that much more, and a session, after a lone one whose pause the report gives
EFFECT_TIMEOUT_S = 10  # a fault on links waits so long for traffic to hit


@dataclasses.dataclass(frozen=True)
class Fault:
    number: int
    kind: str
    target: int  # 1 to SIZE
    lasts_s: float


@dataclasses.dataclass(frozen=True)
class Step:
    """Faults that are there at the same time, and the quiet before them."""
    quiet_s: float
    faults: tuple


def duration_of(kind, rng, session_timeout_s):
    """Long ones last longer than a session, short ones do not."""
    if kind in (PAUSE, SILENT_LINKS, REFUSED_LINKS):
        return session_timeout_s * (rng.uniform(1.3, 2) if rng.random() < 0.6 else rng.uniform(0.1, 0.9))
    if kind == PAUSE_MEMBER:
        return rng.uniform(1, 2 * session_timeout_s)
    if kind == MUTE_LINKS:
        return rng.uniform(0.2, 1.5)
    if kind == RESET_LINKS:
        return 0.0
    if kind == SLOW_LINKS:
        return rng.uniform(2, 5)
    return rng.uniform(0.2, 4)  # how long what was killed or stopped is away


def plan(seed, session_timeout_s):
    """Steps without end. Each kind comes once before any comes again; the same seed gives the same steps."""
    rng = random.Random(seed)
    number, measured_s = 0, 0
    while True:
        deck = list(KINDS)
        rng.shuffle(deck)
        while deck:
            kinds = [deck.pop(0)]
            if rng.randrange(PAIRED_ONE_IN) == 0:
                others = [kind for kind in deck if CLASS_OF[kind] != CLASS_OF[kinds[0]]]
                # A replica that stops in good order must be able to: its links are left alone. So are all links when
                # all replicas are killed.
                if not {STOP, KILL_ALL} & {*kinds, *others[:1]} and others:
                    kinds.append(others[0])
                    deck.remove(others[0])
            faults = []
            for kind in kinds:
                number += 1
                faults.append(Fault(number, kind, rng.randint(1, SIZE), duration_of(kind, rng, session_timeout_s)))
            yield Step(measured_s + rng.uniform(*QUIET_S), tuple(faults))
            measured_s = session_timeout_s + PAUSE_MEASURED_S if kinds in ([KILL], [STOP]) else 0


class Injector:
    """Does what is planned. run() belongs to one thread; the faults of a step have threads of their own."""

    def __init__(self, cluster, proxies, history, seed, session_timeout_s, tell=lambda line: None):
        self.cluster, self.proxies, self.history, self.tell = cluster, proxies, history, tell
        self.steps = plan(seed, session_timeout_s)
        self.fired = {kind: 0 for kind in KINDS}
        self.lock = threading.Lock()
        self.slow_delay_s = random.Random(seed).uniform(0.02, 0.2)

    def run(self, seconds, faults_min, seconds_max):
        """Until this time is over, so many faults have fired, and each kind at least once; no longer than the maximum."""
        began = time.monotonic()

        def spent_s():
            return time.monotonic() - began
        while spent_s() < seconds_max and (spent_s() < seconds or sum(self.fired.values()) < faults_min or
                                           not all(self.fired.values())):
            self.note_ends()
            step = next(self.steps)
            time.sleep(step.quiet_s)
            threads = [threading.Thread(target=self.inject, args=(fault, len(step.faults) == 1), daemon=True)
                       for fault in step.faults]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()

    def inject(self, fault, is_alone):
        target = {REPLICA: f"postkeeperd-{fault.target}", MEMBER: f"zookeeper-{fault.target}",
                  LINKS: f"links of postkeeperd-{fault.target}"}[CLASS_OF[fault.kind]]
        if fault.kind == KILL_ALL:
            target = "all"
        detail = ""
        if CLASS_OF[fault.kind] == MEMBER:
            detail = self.cluster.members[fault.target - 1].role()
        self.history.add(FaultBegan, number=fault.number, kind=fault.kind, target=target, is_alone=is_alone,
                         detail=detail)
        self.tell(f"{self.history.now():7.1f} s  {fault.kind}: {target}{detail and f' ({detail})'}, "
                  f"{fault.lasts_s:.1f} s{'' if is_alone else ', with another'}")
        had_effect = False
        try:
            had_effect = self._do(fault)
        except RuntimeError as error:
            self.mishap(str(error))
        with self.lock:
            self.fired[fault.kind] += had_effect
        self.history.add(FaultEnded, number=fault.number, kind=fault.kind, had_effect=had_effect)

    def mishap(self, what):
        self.tell(f"{self.history.now():7.1f} s  MISHAP: {what}")
        self.history.add(Mishap, what=what)

    def _do(self, fault):
        """True if there was something for it to hurt."""
        replica, member = self.cluster.replicas[fault.target - 1], self.cluster.members[fault.target - 1]
        done = {KILL: lambda: self._kill([replica], fault.lasts_s),
                KILL_ALL: lambda: self._kill(self.cluster.replicas, fault.lasts_s),
                STOP: lambda: self._stop(replica, fault.lasts_s),
                PAUSE: lambda: self._pause(replica, fault.lasts_s),
                KILL_MEMBER: lambda: self._kill([member], fault.lasts_s),
                PAUSE_MEMBER: lambda: self._pause(member, fault.lasts_s)}.get(fault.kind, lambda: self._hurt_links(fault))()
        if CLASS_OF[fault.kind] == MEMBER:
            # The next member may only be hurt when all serve: a majority must stand.
            wait_until(lambda: all(one.role() for one in self.cluster.members), "all members serve", START_TIMEOUT_S)
        return done

    def _kill(self, processes, away_s):
        if not all(process.is_running for process in processes):
            return False
        for process in processes:
            process.kill()
        time.sleep(away_s)
        self._start(processes)
        return True

    def _stop(self, replica, away_s):
        if not replica.is_running:
            return False
        code = replica.terminate(STOP_TIMEOUT_S)
        if code is None:
            self.mishap(f"{replica.name} did not end within {STOP_TIMEOUT_S} s of SIGTERM")
        elif code != 0:
            self.mishap(f"{replica.name} was told to stop and ended with exit code {code}")
        time.sleep(away_s)
        self._start([replica])
        return True

    def _pause(self, process, lasts_s):
        if not process.is_running:
            return False
        process.pause()
        time.sleep(lasts_s)
        process.resume()
        return True

    def _start(self, processes):
        for process in processes:
            process.start()
        for process in processes:
            process.wait_until_ready()

    def _hurt_links(self, fault):
        group = fault.target
        before = self.proxies.touched(group)
        if fault.kind == RESET_LINKS:
            self.proxies.reset(group)
        else:
            self.proxies.set(group, {SLOW_LINKS: tcp_proxy.DELAY, SILENT_LINKS: tcp_proxy.HANG,
                                     REFUSED_LINKS: tcp_proxy.REFUSE, MUTE_LINKS: tcp_proxy.MUTE}[fault.kind],
                             self.slow_delay_s)
            time.sleep(fault.lasts_s)
            give_up_at = time.monotonic() + EFFECT_TIMEOUT_S
            while self.proxies.touched(group) == before and time.monotonic() < give_up_at:
                time.sleep(0.1)
            self.proxies.set(group, tcp_proxy.PASS)
        return self.proxies.touched(group) > before

    def heal(self):
        """Everything runs, and every link passes. Processes that ended by themselves are mishaps, and started again."""
        for group in list(self.proxies.links):
            self.proxies.set(group, tcp_proxy.PASS)
        for process in self.cluster.processes:
            process.resume()
        self.note_ends()
        for process in self.cluster.processes:
            if not process.is_running:
                process.start()
        for process in self.cluster.processes:
            process.wait_until_ready()

    def note_ends(self):
        """A program that ended by itself is a mishap; it is started again."""
        for process in self.cluster.processes:
            if not process.is_running and not process.expects_end:
                try:
                    process.check_alive()
                except RuntimeError as error:
                    self.mishap(str(error))
                process.start()
