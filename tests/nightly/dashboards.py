#!/usr/bin/python3
"""A real Prometheus reads two real postkeeperd under load: dashboards.py [--seconds N].

Every variable of the dashboards must find its values, every expression must return a number (what only shows when logs change
hands: when a replica is stopped at the end), and every alert rule must be evaluated without an error. Prometheus is Debian's
package prometheus.
"""

import argparse
import json
import pathlib
import re
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse
import urllib.request

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "support"))

from client import Client, duration, grpc  # noqa: E402
from expressions import ALERTS, DASHBOARDS, dashboard_expressions, with_values  # noqa: E402
from postkeeperd import Postkeeperd, find_program, until  # noqa: E402
from zookeeper import Zookeeper  # noqa: E402

SCRAPE_EVERY_S = 1
RATE = "10s"
QUEUE, TOPIC = "namespaces/default/queues/orders", "namespaces/default/topics/prices"


class Prometheus:
    """Scrapes the servers, until it is closed."""

    def __init__(self, servers):
        self.folder = tempfile.TemporaryDirectory(prefix="postkeeper-prometheus-")
        targets = [server.wait_for_log(r"\bmetrics=(\S+)")[1] for server in servers]
        config = {"global": {"scrape_interval": f"{SCRAPE_EVERY_S}s", "evaluation_interval": "1s"},
                  "rule_files": [str(path) for path in ALERTS],
                  "scrape_configs": [{"job_name": "postkeeper", "static_configs": [
                      {"targets": targets, "labels": {"namespace": "messaging"}}]}]}
        file = pathlib.Path(self.folder.name, "prometheus.yaml")
        file.write_text(json.dumps(config), encoding="utf-8")
        self.log = open(pathlib.Path(self.folder.name, "log"), "w+", encoding="utf-8")
        self.opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        self.process = subprocess.Popen(
            [find_program("prometheus"), f"--config.file={file}", f"--storage.tsdb.path={self.folder.name}/data",
             "--web.listen-address=127.0.0.1:0", "--log.level=info"],
            stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log)
        # The port that the kernel has chosen stands in no log line that can be relied upon.
        self.address = until(self._listening, "prometheus listens")

    def _listening(self):
        if self.process.poll() is not None:
            raise RuntimeError(pathlib.Path(self.log.name).read_text(encoding="utf-8"))
        inodes = set()
        for link in pathlib.Path(f"/proc/{self.process.pid}/fd").iterdir():
            try:
                if match := re.fullmatch(r"socket:\[(\d+)\]", str(link.readlink())):
                    inodes.add(match[1])
            except OSError:
                continue  # closed meanwhile
        for line in pathlib.Path("/proc/net/tcp").read_text(encoding="ascii").splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and fields[9] in inodes:
                return f"127.0.0.1:{int(fields[1].split(':')[1], 16)}"
        return None

    def ask(self, path, **parameters):
        query = urllib.parse.urlencode(parameters, doseq=True)
        with self.opener.open(f"http://{self.address}/api/v1/{path}?{query}", timeout=30) as answer:
            return json.load(answer)["data"]

    def values(self, expression):
        return self.ask("query", query=expression)["result"]

    def is_ready(self):
        try:
            return len(self.values("up == 1")) == 2
        except OSError:
            return False

    def close(self):
        self.process.terminate()
        self.process.wait(30)
        self.log.close()
        self.folder.cleanup()


class Load:
    """Producers, consumers who ack, give back and forget, publishers and subscribers, through both replicas."""

    def __init__(self, servers):
        self.servers = servers
        self.is_over = threading.Event()
        work = [self.produce, self.consume, self.dequeue, self.publish, self.subscribe, self.ask_wrongly]
        self.threads = [threading.Thread(target=self.repeat, args=(one, server), daemon=True)
                        for one in work for server in servers]
        for thread in self.threads:
            thread.start()

    def repeat(self, work, server):
        """Until the end; a replica that is stopped is no reason to end."""
        while not self.is_over.is_set():
            client = Client(server.address)
            try:
                work(client)
            except (grpc.RpcError, AssertionError, StopIteration):
                time.sleep(0.2)
            finally:
                client.close()

    def produce(self, client):
        while not self.is_over.is_set():
            client.enqueue("orders", *range(10), timeout=5)
            client.enqueue("orders", "later", delay=duration(5), timeout=5)
            time.sleep(0.05)

    def consume(self, client):
        consumer = client.consume("orders", 20, lease=1)
        try:
            for number in range(10_000):
                delivery = consumer.deliveries(1, timeout_s=5)[0]
                if number % 20 == 0:
                    continue  # its lease lapses
                consumer.ack(delivery)
                if self.is_over.is_set():
                    break
        finally:
            consumer.cancel()

    def dequeue(self, client):
        while not self.is_over.is_set():
            deliveries = client.dequeue("orders", 10, wait=1).deliveries
            if deliveries:
                client.nack("orders", deliveries[0])
                client.ack("orders", deliveries[1:])

    def publish(self, client):
        while not self.is_over.is_set():
            client.publish("prices", "x", timeout=5)
            time.sleep(0.05)

    def subscribe(self, client):
        subscriber = client.subscribe("prices")
        try:
            while not self.is_over.is_set():
                subscriber.messages(1, timeout_s=5)
        finally:
            subscriber.cancel()

    def ask_wrongly(self, client):
        try:
            client.enqueue("No Queue", "x", timeout=5)
        finally:
            time.sleep(0.5)

    def end(self):
        self.is_over.set()
        for thread in self.threads:
            thread.join(60)


def check_variables(prometheus):
    """Finds what each variable offers, as Grafana asks for it."""
    for path in DASHBOARDS:
        for variable in json.loads(path.read_text(encoding="utf-8"))["templating"]["list"]:
            if variable["type"] != "query":
                continue
            series, label = re.fullmatch(r"label_values\((.*), (\w+)\)", variable["definition"]).groups()
            found = prometheus.ask(f"label/{label}/values", **{"match[]": with_values(series)})
            print(f"{path.name}: ${variable['name']}: {len(found)}")
            if not found:
                raise AssertionError(f"{path.name}: no value for ${variable['name']}")


def without_a_number(prometheus, expressions):
    """Those that return nothing, or nothing but NaN."""
    found = []
    for where, expression in expressions:
        values = prometheus.values(with_values(expression, QUEUE, TOPIC, RATE))
        if all(series["value"][1] == "NaN" for series in values):
            found.append((where, expression))
    return found


def check_rules(prometheus):
    rules = [rule for group in prometheus.ask("rules")["groups"] for rule in group["rules"]]
    unwell = [rule["name"] for rule in rules if rule["health"] != "ok"]
    print(f"{len(rules)} alert rules evaluated, {len(unwell)} with an error; "
          f"{sum(rule['state'] != 'inactive' for rule in rules)} pending or firing")
    if unwell or not rules:
        raise AssertionError(unwell)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60, help="how long there is load before anything is asked")
    seconds = parser.parse_args().seconds
    closing = []
    try:
        zookeeper = Zookeeper()
        closing.append(zookeeper.close)
        servers = []
        for _ in range(2):
            servers.append(Postkeeperd("--zookeeper", zookeeper.hosts, "--auto-create", "on", "--balance-after", "2s",
                                       metrics_listen="127.0.0.1:0"))
            closing.append(servers[-1].close)
        prometheus = Prometheus(servers)
        closing.append(prometheus.close)
        until(prometheus.is_ready, "both are scraped", 60)
        load = Load(servers)
        closing.append(load.end)
        time.sleep(seconds)
        check_variables(prometheus)
        expressions = dashboard_expressions()
        missing = without_a_number(prometheus, expressions)
        print(f"{len(expressions)} expressions, {len(missing)} without a number while all is well:",
              *(where for where, _ in missing), sep="\n  ")
        servers[1].stop()
        until(lambda: not without_a_number(prometheus, missing), f"a number for each of {missing}", 60)
        check_rules(prometheus)
    finally:
        for close in reversed(closing):
            close()
    print("every expression returns a number")


if __name__ == "__main__":
    main()
