#!/usr/bin/python3
"""How long a scrape takes when every one of many queues has series of its own: scrape_time.py [--queues 10000].

Prints the time and size of each of five scrapes of a real postkeeperd, and of five with the default of --metrics-queues-max.
Exit code 1 if one takes a second or more.
"""

import argparse
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


def scrape(server):
    """(seconds, bytes) as Prometheus sees it: compressed on the way."""
    address = server.wait_for_log(r"\bmetrics=(\S+)")[1]
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    request = urllib.request.Request(f"http://{address}/metrics", headers={"Accept-Encoding": "gzip"})
    started = time.monotonic()
    with opener.open(request, timeout=30) as answer:
        size = len(answer.read())
    return time.monotonic() - started, size


def measure(server, what):
    slowest = 0.0
    for _ in range(SCRAPES):
        seconds, size = scrape(server)
        slowest = max(slowest, seconds)
        print(f"{what}: {seconds:.3f} s, {size / 1024:.0f} KiB compressed", flush=True)
    page = MetricsPage.of(server)
    print(f"{what}: {len(page.samples)} series, {len(page.text) / (1 << 20):.1f} MiB")
    return slowest < SECONDS_MAX


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--queues", type=int, default=10_000)
    queues = parser.parse_args().queues
    zookeeper = Zookeeper(heap_mib=1024)
    is_good = True
    try:
        for what, flags in (("series of their own", ("--metrics-queues-max", str(queues))), ("the default maximum", ())):
            server = Postkeeperd("--zookeeper", zookeeper.hosts, "--session-timeout", "20s", *flags,
                                 metrics_listen="127.0.0.1:0")
            try:
                client = Client(server.address)
                for first in range(0, queues, CREATING_AT_A_TIME):
                    create(client, first, min(first + CREATING_AT_A_TIME, queues))
                client.close()
                until(lambda s=server: MetricsPage.of(s).sum("postkeeper_logs_owned", kind="queue") == queues,
                      "all are owned", PATIENCE_S)
                is_good &= measure(server, f"{queues} queues, {what}")
            finally:
                server.close()
    finally:
        zookeeper.close()
    return 0 if is_good else 1


if __name__ == "__main__":
    sys.exit(main())
