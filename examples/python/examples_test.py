"""producer.py, worker.py and subscriber.py, as a person starts them, against a real postkeeperd."""

import pathlib
import signal
import subprocess
import sys
import tempfile
import threading
import unittest

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1] / "tests/support"))

from postkeeperd import Postkeeperd  # noqa: E402


class Program:
    """A running example. Its output is collected by threads, so that it never waits for us."""

    def __init__(self, server, *arguments):
        self.process = subprocess.Popen(
            [sys.executable, HERE / arguments[0], *arguments[1:]], env=server.environment(), text=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.lines, self.errors = [], []
        self.changed = threading.Condition()
        self.threads = [threading.Thread(target=self.collect, args=(stream, lines))
                        for stream, lines in ((self.process.stdout, self.lines), (self.process.stderr, self.errors))]
        for thread in self.threads:
            thread.start()

    def collect(self, stream, lines):
        with stream:
            for line in stream:
                with self.changed:
                    lines.append(line.rstrip("\n"))
                    self.changed.notify_all()

    def wait_for(self, is_enough, timeout_s=60):
        with self.changed:
            if not self.changed.wait_for(lambda: is_enough(self.lines), timeout_s):
                raise AssertionError(f"what was waited for did not come; {len(self.lines)} lines, the last ones: "
                                     f"{self.lines[-5:]} {self.errors}")
            return list(self.lines)

    def wait_for_lines(self, count):
        return self.wait_for(lambda lines: len(lines) >= count)

    def signal(self, number):
        self.process.send_signal(number)

    def join(self, timeout_s=60):
        self.process.wait(timeout_s)
        for thread in self.threads:
            thread.join()
        return self.process.returncode

    def close(self):
        self.process.kill()
        self.join()


class ExamplesTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.file = f"{folder.name}/position"
        self.server = Postkeeperd()
        self.addCleanup(self.server.close)

    def start(self, *arguments):
        program = Program(self.server, *arguments)
        self.addCleanup(program.close)
        return program

    def produce(self, queue, lines):
        done = subprocess.run([sys.executable, HERE / "producer.py", queue], input="".join(f"{x}\n" for x in lines),
                              env=self.server.environment(), text=True, capture_output=True, timeout=60)
        self.assertEqual(done.returncode, 0, done.stderr)
        return done.stdout

    def stats(self, queue):
        return self.server.cli("stats", queue, "--output", "json")

    # Lines go in, come out in order, and are acked.
    def test_producer_and_worker(self):
        lines = [f"line {i}" for i in range(1200)]
        self.assertEqual(self.produce("orders", lines), "1200 messages enqueued\n")
        worker = self.start("worker.py", "orders")
        self.assertEqual(worker.wait_for_lines(1200), [f"attempt 1: {line}" for line in lines])
        worker.signal(signal.SIGTERM)
        self.assertEqual(worker.join(), 0, worker.errors)
        self.assertIn('"ready":0,"delayed":0,"leased":0', self.stats("orders"))

    # SIGTERM in the middle: every message is either done and acked, or given back as if it had never been delivered.
    def test_worker_drains_at_sigterm(self):
        self.produce("orders", range(5000))
        worker = self.start("worker.py", "orders")
        worker.wait_for_lines(100)
        worker.signal(signal.SIGTERM)
        self.assertEqual(worker.join(), 0, worker.errors)
        done = len(worker.lines)
        self.assertLess(done, 5000)
        self.assertIn(f'"ready":{5000 - done},"delayed":0,"leased":0', self.stats("orders"))
        rest = self.start("worker.py", "orders")
        # What was given back comes after a write of its own, so not in order.
        self.assertEqual(sorted(rest.wait_for_lines(5000 - done)), sorted(f"attempt 1: {i}" for i in range(done, 5000)))

    # SIGTERM to an idle worker ends it at once.
    def test_idle_worker_ends(self):
        worker = self.start("worker.py", "orders")
        self.produce("orders", ["one"])
        worker.wait_for_lines(1)
        worker.signal(signal.SIGTERM)
        self.assertEqual(worker.join(timeout_s=20), 0, worker.errors)

    # A killed worker's messages go to another one as attempt 2.
    def test_messages_of_a_killed_worker_come_again(self):
        self.server.cli("queue", "create", "orders")
        self.produce("orders", range(3000))
        killed = self.start("worker.py", "orders")
        killed.wait_for_lines(50)
        killed.signal(signal.SIGKILL)
        killed.join()
        other = self.start("worker.py", "orders")
        everything = {str(i) for i in range(3000)}

        def has_all(lines):
            return (everything == {line.split(": ")[1] for line in killed.lines + lines}
                    and any(line.startswith("attempt 2:") for line in lines))

        other.wait_for(has_all)

    # A worker goes on by itself after the server was restarted.
    def test_worker_outlives_a_restart_of_the_server(self):
        worker = self.start("worker.py", "orders")
        self.produce("orders", ["before"])
        worker.wait_for_lines(1)
        self.server.restart()
        self.produce("orders", ["after"])
        self.assertEqual(worker.wait_for_lines(2), ["attempt 1: before", "attempt 1: after"])

    # A subscriber that is stopped and started again goes on where it was; nothing is missed.
    def test_subscriber_resumes(self):
        self.server.cli("topic", "create", "news")
        self.server.cli("publish", "news", "1", "2")
        first = self.start("subscriber.py", "news", self.file)
        self.assertEqual(first.wait_for_lines(2), ["1", "2"])
        self.server.cli("publish", "news", "3")
        first.wait_for_lines(3)
        first.signal(signal.SIGINT)
        self.assertEqual(first.join(), 130)
        self.server.cli("publish", "news", "4")
        second = self.start("subscriber.py", "news", self.file)
        second.wait_for(lambda lines: "4" in lines)
        self.server.restart()
        self.server.cli("publish", "news", "5")
        lines = second.wait_for(lambda lines: "5" in lines)
        self.assertIn(lines, (["4", "5"], ["3", "4", "5"]))  # 3 again if its position was not yet noted

    # A position of a deleted topic is refused with the way out, never misread.
    def test_subscriber_of_a_deleted_topic(self):
        self.server.cli("topic", "create", "news")
        self.server.cli("publish", "news", "old")
        first = self.start("subscriber.py", "news", self.file)
        first.wait_for_lines(1)
        self.server.cli("topic", "rm", "news")
        self.assertEqual(first.join(), 1)
        self.assertIn("NOT_FOUND", first.errors[-1])
        self.server.cli("topic", "create", "news")
        second = self.start("subscriber.py", "news", self.file)
        self.assertEqual(second.join(), 1)
        self.assertIn(f"rm {self.file}", second.errors[-1])


if __name__ == "__main__":
    unittest.main()
