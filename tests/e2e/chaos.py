#!/usr/bin/python3
"""./dev chaos --minutes N [--seed S] [--keep]: real faults on a real cluster, and what became of its promises.

Three postkeeperd before a ZooKeeper ensemble of three serve producers, consumers, publishers and subscribers, while
programs are killed, stopped and paused, and the links between the two are slowed, silenced, refused and reset. Then all
is healed, everything must be worked off, all replicas are killed once more, and what the clients saw is judged. Exit code
0: every promise was kept, every kind of fault took effect, and every checker had something to judge.

postkeeperd is found on the PATH. See docs/TESTING.md.
"""

import argparse
import dataclasses
import pathlib
import random
import shutil
import sys
import threading
import time
import traceback

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/support"))

import checkers  # noqa: E402
import report  # noqa: E402
from cluster import Cluster, require_programs  # noqa: E402
from faults import KILL_ALL, Fault, Injector  # noqa: E402
from history import History, Mishap  # noqa: E402
from processes import free_ports  # noqa: E402
from tcp_proxy import Proxies  # noqa: E402
from workload import TOPICS, Load  # noqa: E402

RUNS = ROOT / "build/chaos"
SESSION_TIMEOUT_S = 4
# Appends fill segments of this size quickly, so that segments are sealed and deleted under faults, too.
FLAGS = ("--session-timeout", f"{SESSION_TIMEOUT_S}s", "--segment-batches-max", "64", "--drain-timeout", "10s",
         "--log-level", "info")
QUIET_S = 5  # before the first fault, and after the last kill
# On a machine that stands still now and then the faults may take so much longer, in all.
LONGER_S = 300


@dataclasses.dataclass
class Result:
    events: list
    verdicts: dict
    missing: list
    folder: pathlib.Path

    @property
    def is_good(self):
        return not self.missing and not any(verdict.violations for verdict in self.verdicts.values())


def connect_by_proxies(proxies):
    """For Cluster: gives each replica links of its own to the members."""
    def hosts(number, addresses):
        ports = free_ports(len(addresses))
        for port, address in zip(ports, addresses):
            proxies.add(number, port, int(address.rpartition(":")[2]))
        return ",".join(f"127.0.0.1:{port}" for port in ports)
    return hosts


def run(seconds, seed, faults_min=10, tell=print):
    """The whole of it. The folder of the Result is gone if it is good; else logs and history are there."""
    require_programs()
    folder = RUNS / f"{time.strftime('%Y%m%d-%H%M%S')}-seed-{seed}"
    folder.mkdir(parents=True)
    tell(f"seed {seed}; logs in {folder.relative_to(ROOT)}")
    history, proxies, cluster, load = History(), Proxies(), None, None
    # A worker that dies of a bug of its own proves nothing any more.
    threading.excepthook = lambda died: history.add(
        Mishap, what="".join(traceback.format_exception(died.exc_type, died.exc_value, died.exc_traceback)))
    try:
        cluster = Cluster(folder, FLAGS, zookeeper_hosts=connect_by_proxies(proxies))
        cluster.start()
        load = Load(history, [(replica.name, replica.address) for replica in cluster.replicas], cluster.zookeeper_hosts,
                    seed)
        history.began = time.monotonic()
        load.start()
        time.sleep(QUIET_S)
        injector = Injector(cluster, proxies, history, seed, SESSION_TIMEOUT_S, tell)
        injector.run(seconds, faults_min, seconds + LONGER_S)
        finish(load, injector, tell)
    except RuntimeError as error:
        history.add(Mishap, what=str(error))
    finally:
        threading.excepthook = threading.__excepthook__
        if load is not None:
            load.close()
        if cluster is not None:
            cluster.close()
        proxies.close()
    history.write(folder / "history.jsonl")
    verdicts = checkers.judge(history.events, TOPICS)
    return Result(history.events, verdicts, report.what_is_missing(history.events, verdicts), folder)


def finish(load, injector, tell):
    """All is healed and worked off. What is durable then must be so without anybody's memory."""
    tell(f"{injector.history.now():7.1f} s  healed; working off what is left")
    injector.heal()
    load.stop_producing()
    load.work_off()
    injector.inject(Fault(0, KILL_ALL, 1, 0.5), is_alone=False)
    load.work_off()
    time.sleep(QUIET_S)
    injector.note_ends()
    load.end()


def tell_result(result, tell=print):
    tell("\n" + report.table(report.rows(result.events, result.verdicts, TOPICS)) + "\n")
    for verdict in result.verdicts.values():
        tell(f"{'BROKEN' if verdict.violations else 'kept  '}  {verdict.promise} ({verdict.judged} judged)")
    for line in report.violations(result.events, result.verdicts) + result.missing:
        tell(line)
    if result.is_good:
        tell("every promise was kept")
    else:
        tell(f"FAILED. Logs and history.jsonl are kept in {result.folder.relative_to(ROOT)}")


def main():
    parser = argparse.ArgumentParser(prog="./dev chaos", description=__doc__.split("\n\n")[1],
                                     usage="./dev chaos [--minutes N] [--seed S] [--keep]")
    parser.add_argument("--minutes", type=float, default=5, help="how long there are faults (default: 5)")
    parser.add_argument("--seed", type=int, help="of the faults (default: a new one, which is printed)")
    parser.add_argument("--keep", action="store_true", help="keep logs and history.jsonl of a good run, too")
    arguments = parser.parse_args()
    if not 0 < arguments.minutes <= 24 * 60:
        parser.error("--minutes: above 0, at most 1440")
    seed = random.SystemRandom().randrange(1, 1_000_000) if arguments.seed is None else arguments.seed
    try:
        result = run(arguments.minutes * 60, seed, tell=lambda line: print(line, flush=True))
    except RuntimeError as error:
        sys.exit(f"chaos: {error}")
    tell_result(result)
    if result.is_good and not arguments.keep:
        shutil.rmtree(result.folder)
    return 0 if result.is_good else 1


if __name__ == "__main__":
    sys.exit(main())
