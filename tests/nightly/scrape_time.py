#!/usr/bin/python3
"""How long a scrape takes with many queues: scrape_time.py [--queues 10000].

Prints the time and size of each of five scrapes of a real postkeeperd with the default of --metrics-queues-max, and of five
when every queue has series of its own. Exit code 1 if one takes a second or more of the server's processor time by default, or
three seconds with all series (Prometheus waits for ten); how long that is by the clock depends on what else the machine does.
"""

import argparse
import os
import pathlib
import sys
import time
import urllib.request

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "support"))

from client import Client, admin_pb2, grpc  # noqa: E402
from metrics_page import MetricsPage  # noqa: E402
from postkeeperd import Postkeeperd, until  # noqa: E402
from zookeeper import Zookeeper  # noqa: E402

SCRAPES = 5
SECONDS_MAX = 1.0
SECONDS_MAX_WITH_ALL = 3.0
CREATING_AT_A_TIME = 16
PATIENCE_S = 300


def create(client, first, last):
    """These queues; again, as often as it takes, what a machine that is busy did not answer."""
    def try_to():
        calls = [client.admin.CreateQueue.future(
            admin_pb2.CreateQueueRequest(queue=admin_pb2.Queue(name=f"q{number}")), timeout=60)
                 for number in range(first, last)]
        return not any(isinstance(call.exception(), grpc.RpcError) for call in calls)
    until(try_to, f"queues {first} to {last} are there", PATIENCE_S)


def cpu_s(server):
    fields = pathlib.Path(f"/proc/{server.process.pid}/stat").read_text(encoding="ascii").split()
    return (int(fields[13]) + int(fields[14])) / os.sysconf("SC_CLK_TCK")


def scrape(server):
    """(seconds, seconds of the processor, bytes) as Prometheus sees it: compressed on the way."""
    address = server.wait_for_log(r"\bmetrics=(\S+)")[1]
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    request = urllib.request.Request(f"http://{address}/metrics", headers={"Accept-Encoding": "gzip"})
    started, cpu_before = time.monotonic(), cpu_s(server)
    with opener.open(request, timeout=30) as answer:
        size = len(answer.read())
    return time.monotonic() - started, cpu_s(server) - cpu_before, size


def measure(server, what, seconds_max):
    slowest = 0.0
    for _ in range(SCRAPES):
        seconds, cpu, size = scrape(server)
        slowest = max(slowest, cpu)
        print(f"{what}: {seconds:.2f} s, {cpu:.2f} s of the processor, {size / 1024:.0f} KiB compressed", flush=True)
    page = MetricsPage.of(server)
    print(f"{what}: {len(page.samples)} series, {len(page.text) / (1 << 20):.1f} MiB")
    return slowest < seconds_max


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--queues", type=int, default=10_000)
    queues = parser.parse_args().queues
    zookeeper = Zookeeper(heap_mib=1024)
    is_good = True
    try:
        for what, seconds_max, flags in (
                ("the default maximum", SECONDS_MAX, ()),
                ("series of their own", SECONDS_MAX_WITH_ALL, ("--metrics-queues-max", str(queues)))):
            server = Postkeeperd("--zookeeper", zookeeper.hosts, "--session-timeout", "20s", *flags,
                                 metrics_listen="127.0.0.1:0")
            try:
                client = Client(server.address)
                for first in range(0, queues, CREATING_AT_A_TIME):
                    create(client, first, min(first + CREATING_AT_A_TIME, queues))
                client.close()
                until(lambda s=server: MetricsPage.of(s).sum("postkeeper_logs_owned", kind="queue") == queues,
                      "all are owned", PATIENCE_S)
                is_good &= measure(server, f"{queues} queues, {what}", seconds_max)
            finally:
                server.close()
    finally:
        zookeeper.close()
    return 0 if is_good else 1


if __name__ == "__main__":
    sys.exit(main())
