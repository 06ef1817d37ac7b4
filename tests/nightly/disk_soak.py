#!/usr/bin/python3
"""Shows that the disk use of the embedded ZooKeeper stays bounded, and that nothing is lost by it.

    disk_soak.py [--host PATH/TO/embedded_zookeeper_host] [--gib 4] [--live-mib 100] [--heap-mib 1024]

Writes --gib of batches of 500 KB through a real embedded ZooKeeper as fast as it takes them, deleting them so that
--live-mib stay, and looks at the data directory all the time. Then kills everything with SIGKILL, starts it again and
reads every batch that should be there. Exit code 1 if the disk ever held more than stated, or a batch is missing or
wrong. Without --host the host is built. With less than 1.5 GiB there are hardly any snapshots to be removed.
"""
import argparse
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import zlib

from kazoo.client import KazooClient

ROOT = pathlib.Path(__file__).resolve().parents[2]
BATCH = 500_000
SNAPSHOT_LOG_MIB = 512  # the default of EmbeddedZooKeeper::Options
IN_FLIGHT = 8


def built_host():
    for arguments in (["--preset", "asan"], ["--build", "--preset", "asan", "--target", "embedded_zookeeper_host"]):
        subprocess.run(["cmake", *arguments], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    return str(ROOT / "build/asan/tests/embedded_zookeeper_host")


class Host:
    def __init__(self, program, directory, heap_mib):
        self.process = subprocess.Popen(
            [program, directory, "--heap-mib", str(heap_mib)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        line = self.process.stdout.readline().split()
        if len(line) != 2:
            sys.exit("the host did not start")
        self.port, self.zookeeper = int(line[0]), int(line[1])

    def kill(self):
        self.process.kill()
        self.process.wait()

    def memory_mib(self):
        try:
            with open(f"/proc/{self.zookeeper}/status", encoding="ascii") as status:
                return int(next(line for line in status if line.startswith("VmHWM")).split()[1]) >> 10
        except (OSError, StopIteration):
            return 0


class DiskWatch(threading.Thread):
    """Looks every 50 ms at what the files really take."""

    def __init__(self, directory):
        super().__init__(daemon=True)
        self.directory, self.most, self.now, self.files_most = directory, 0, 0, 0
        self.snapshots_seen, self.is_over = set(), False

    def run(self):
        while not self.is_over:
            self.look()
            time.sleep(0.05)

    def look(self):
        total, files = 0, 0
        try:
            with os.scandir(self.directory) as entries:
                for entry in entries:
                    if entry.name.startswith("snapshot."):
                        self.snapshots_seen.add(entry.name)
                    try:
                        total += entry.stat().st_blocks * 512
                        files += 1
                    except FileNotFoundError:
                        pass
        except FileNotFoundError:
            return
        self.now, self.most, self.files_most = total, max(self.most, total), max(self.files_most, files)


def contents(number):
    seed = zlib.crc32(str(number).encode())
    return (b"%08x" % seed) * (BATCH // 8)


def connect(port):
    client = KazooClient(f"127.0.0.1:{port}", timeout=30)
    client.start(timeout=60)
    return client


def write(client, count, live):
    client.ensure_path("/soak")
    pending = []
    for number in range(count):
        pending.append(client.create_async(f"/soak/{number}", contents(number)))
        if number >= live:
            pending.append(client.delete_async(f"/soak/{number - live}"))
        while len(pending) > IN_FLIGHT:
            pending.pop(0).get(timeout=60)
    for one in pending:
        one.get(timeout=60)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--host")
    parser.add_argument("--gib", type=float, default=4)
    parser.add_argument("--live-mib", type=int, default=100)
    parser.add_argument("--heap-mib", type=int, default=1024)
    args = parser.parse_args()
    program = args.host or built_host()
    count, live = int(args.gib * 2**30 / BATCH), max(1, int(args.live_mib * 2**20 / BATCH))
    directory = tempfile.mkdtemp(prefix="postkeeper-soak-")
    host = None
    watch = DiskWatch(directory + "/zookeeper/data/version-2")
    try:
        host = Host(program, directory, args.heap_mib)
        watch.start()
        client = connect(host.port)
        began = time.monotonic()
        write(client, count, live)
        seconds = time.monotonic() - began
        client.stop()
        print(f"wrote {args.gib} GiB in {seconds:.0f} s ({args.gib * 1024 / seconds:.0f} MiB/s), "
              f"{args.live_mib} MiB live; snapshots seen: {len(watch.snapshots_seen)}")
        print(f"ZooKeeper's memory at most {host.memory_mib()} MiB (heap {args.heap_mib} MiB)")
        time.sleep(3)
        # Three snapshots kept and one being written; the logs since the oldest, one interval being written, and what
        # comes in while a snapshot is synced and checked.
        bound_mib = 5 * SNAPSHOT_LOG_MIB + 4.5 * args.live_mib + 512
        print(f"disk at most {watch.most >> 20} MiB in {watch.files_most} files, at the end {watch.now >> 20} MiB; "
              f"stated bound {bound_mib:.0f} MiB")
        watch.is_over = True
        host.kill()
        began = time.monotonic()
        host = Host(program, directory, args.heap_mib)
        print(f"after kill -9 it was back in {time.monotonic() - began:.1f} s")
        client = connect(host.port)
        there = {int(name) for name in client.get_children("/soak")}
        wanted = set(range(count - live, count))
        wrong = [number for number in wanted & there if client.get(f"/soak/{number}")[0] != contents(number)]
        client.stop()
        print(f"{len(there)} batches are there, {len(wanted - there)} missing, {len(there - wanted)} too many, "
              f"{len(wrong)} wrong")
        is_good = there == wanted and not wrong and watch.most <= bound_mib * 2**20
        print("ok" if is_good else "FAILED")
        return 0 if is_good else 1
    finally:
        if host is not None:
            host.kill()
        time.sleep(0.5)  # until ZooKeeper, which is killed with its parent, is gone
        shutil.rmtree(directory)


if __name__ == "__main__":
    sys.exit(main())
