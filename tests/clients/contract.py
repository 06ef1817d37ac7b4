"""What the producer, the worker and the subscriber of every language do, as a person starts them, against a real
postkeeperd: the same command line, the same lines, and nothing lost when any of them or the server is killed half-way.

The test of a language is this class with that language: class GoTest(ClientContract, unittest.TestCase): language = Go()
"""

import json
import pathlib
import re
import signal
import socket
import sys
import tempfile
import urllib.request

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "support"))

from languages import environment_of  # noqa: E402
from postkeeperd import Postkeeperd, clean_environment, until  # noqa: E402
from program import Program  # noqa: E402

# Fills the pipe behind a program, so that it waits for a test that doesn't read on.
PADDING = "x" * 2000


def bodies(worker_lines):
    return [line.split(": ", 1)[1] for line in worker_lines]


def numbers(lines):
    """Of lines like "17 xxx"."""
    return [int(line.split()[0]) for line in lines]


class ClientContract:
    language = None

    @classmethod
    def setUpClass(cls):
        cls.language.build()
        cls.server = Postkeeperd(metrics_listen="127.0.0.1:0")
        cls.addClassCleanup(cls.server.close)
        cls.start_without_server()

    @classmethod
    def start_without_server(cls):
        """For test_no_server, at an address where nobody listens. They take ten seconds, so they begin now."""
        taken = socket.socket()
        cls.addClassCleanup(taken.close)
        taken.bind(("127.0.0.1", 0))
        cls.nowhere = "127.0.0.1:%d" % taken.getsockname()[1]
        cls.without_server = {}
        for name, arguments in (("producer", ["q"]), ("worker", ["q"]), ("subscriber", ["t", "/nonexistent/position"])):
            environment = environment_of(cls.language, clean_environment(POSTKEEPER_ADDRESS=cls.nowhere))
            cls.without_server[name] = Program([*cls.language.command(name), *arguments], environment)
            cls.addClassCleanup(cls.without_server[name].close)

    def setUp(self):
        self.name = re.sub("[^a-z0-9]+", "-", self._testMethodName)[:60].strip("-")
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.position_file = pathlib.Path(folder.name) / "position"

    def start(self, name, *arguments, lines_max=None):
        command = [*self.language.command(name), *arguments]
        program = Program(command, environment_of(self.language, self.server.environment()), lines_max)
        self.addCleanup(program.close)
        return program

    def produce(self, lines, *name):
        producer = self.start("producer", self.name, *name)
        producer.feed(lines)
        self.assertEqual(producer.join(), 0, producer.errors)
        return producer.lines

    def terminate(self, program):
        program.signal(signal.SIGTERM)
        self.assertEqual(program.join(), 0, program.errors)

    def counts(self):
        """(ready, delayed, leased)"""
        stats = json.loads(self.server.cli("stats", self.name, "--output", "json"))
        return stats["ready"], stats["delayed"], stats["leased"]

    def acked(self):
        """How many messages of the queue were settled by an ack since the server was started, as it counts itself."""
        address = re.search(r"\bmetrics=(\S+)", self.server.log())[1]
        with urllib.request.urlopen(f"http://{address}/metrics", timeout=30) as answer:
            page = answer.read().decode()
        pattern = r'^postkeeper_queue_acked_messages_total\{[^}]*%s"[^}]*\} (\S+)$' % re.escape(self.name)
        found = re.search(pattern, page, re.MULTILINE)
        return int(float(found[1])) if found else 0

    def assert_all_acked(self, count):
        until(lambda: self.counts() == (0, 0, 0), "nothing is left in the queue")
        self.assertEqual(self.acked(), count)

    # Lines go in, come out in order as the bytes they were, and each is acked once.
    def test_producer_and_worker(self):
        lines = [f"line {i} äö任务" for i in range(1200)]
        self.assertEqual(self.produce(lines), ["1200 messages enqueued"])
        worker = self.start("worker", self.name)
        self.assertEqual(worker.wait_for_lines(1200), [f"attempt 1: {line}" for line in lines])
        self.terminate(worker)
        self.assert_all_acked(1200)

    # SIGTERM in the middle: every message is either done and acked, or given back as if it had never been delivered.
    def test_worker_drains_at_sigterm(self):
        self.produce(range(5000))
        worker = self.start("worker", self.name)
        worker.wait_for_lines(100)
        self.terminate(worker)
        done = len(worker.lines)
        self.assertLess(done, 5000)
        self.assertEqual((self.counts(), self.acked()), ((5000 - done, 0, 0), done))
        rest = self.start("worker", self.name)
        # What was given back comes after a write of its own, so not in order.
        self.assertEqual(sorted(rest.wait_for_lines(5000 - done)), sorted(f"attempt 1: {i}" for i in range(done, 5000)))
        self.terminate(rest)
        self.assert_all_acked(5000)

    # SIGTERM to an idle worker ends it at once.
    def test_idle_worker_ends(self):
        worker = self.start("worker", self.name)
        self.server.cli("enqueue", self.name, "one")
        worker.wait_for_lines(1)
        self.terminate(worker)  # with exit code 0, so not by its drain timeout

    # A message whose work fails is given back with the reason, and holds up no other.
    def test_failed_message_comes_again(self):
        self.server.cli("enqueue", self.name, "--whole", stdin="")
        self.server.cli("enqueue", self.name, "good")
        worker = self.start("worker", self.name)
        self.assertEqual(worker.wait_for_lines(1), ["attempt 1: good"])
        self.terminate(worker)
        again = json.loads(self.server.cli("dequeue", self.name, "--wait", "20s", "--output", "json"))
        self.assertEqual((again["last_reason"], again["body"]), ("an empty message", ""))
        self.assertGreaterEqual(again["attempt"], 2)

    # A worker killed with leases: what it had not acked goes to another one as attempt 2; all is done, and acked once.
    def test_killed_worker(self):
        self.server.cli("queue", "create", self.name, "--lease-duration", "2s")
        self.produce(f"{i} {PADDING}" for i in range(1000))
        worker = self.start("worker", self.name, lines_max=200)
        worker.wait_until_held()
        killed = worker.kill()
        self.assertLess(len(killed), 1000)
        other = self.start("worker", self.name)
        other.wait_for(lambda lines: len(lines) >= 1000 - len(killed) and any(
            line.startswith("attempt 2:") for line in lines))
        self.assert_all_acked(1000)
        self.terminate(other)
        self.assertEqual(set(numbers(bodies(killed + other.lines))), set(range(1000)))

    # A producer killed half-way and run again with the same input and name: every line is in, once, in order.
    def test_killed_producer(self):
        self.server.cli("queue", "create", self.name)
        lines = [str(i) for i in range(20_000)]
        producer = self.start("producer", self.name, "job-17")
        producer.feed(lines[:5_200])
        until(lambda: self.counts()[0] >= 3_000, "some batches are in")
        self.assertEqual(producer.kill(), [])
        self.assertEqual(self.produce(lines, "job-17"), ["20000 messages enqueued"])
        self.assertEqual(self.counts(), (20_000, 0, 0))
        self.assertEqual(self.server.cli("consume", self.name, "--until-empty").split(), lines)

    # A full queue holds the producer up; when there is room again it goes on, and nothing was lost or written twice.
    def test_full_queue(self):
        self.server.cli("queue", "create", self.name, "--max-messages", "1000")
        producer = self.start("producer", self.name)
        producer.feed(range(3000))
        producer.process.stdin.close()
        producer.wait_for_error("trying again; RESOURCE_EXHAUSTED: ")
        worker = self.start("worker", self.name)
        self.assertEqual(producer.join(), 0, producer.errors)
        self.assertEqual(producer.lines, ["3000 messages enqueued"])
        self.assertEqual(bodies(worker.wait_for_lines(3000)), [str(i) for i in range(3000)])
        self.terminate(worker)

    # A subscriber killed between messages goes on behind the position in its file: no gap, and no second beginning.
    def test_killed_subscriber(self):
        self.server.cli("topic", "create", self.name)
        self.server.cli("publish", self.name, "--quiet", stdin="".join(f"{i} {PADDING}\n" for i in range(5000)))
        subscriber = self.start("subscriber", self.name, self.position_file, lines_max=3000)
        subscriber.wait_until_held()
        until(self.position_file.exists, "a position is noted")
        first = numbers(subscriber.kill())
        self.assertLess(len(first), 5000)
        again = self.start("subscriber", self.name, self.position_file)
        second = numbers(again.wait_for(lambda lines: lines and numbers(lines[-1:]) == [4999]))
        self.assertEqual(first, list(range(len(first))))
        self.assertEqual(second, list(range(second[0], 5000)))
        self.assertGreater(second[0], 0)
        self.assertLessEqual(second[0], len(first))

    # A server that stops in order tells its worker, which goes on by itself at the next one; nothing comes twice.
    def test_server_restarted(self):
        worker = self.start("worker", self.name)
        self.server.cli("enqueue", self.name, "before")
        worker.wait_for_lines(1)
        self.server.restart()
        self.server.cli("enqueue", self.name, "after")
        self.assertEqual(worker.wait_for_lines(2), ["attempt 1: before", "attempt 1: after"])
        self.terminate(worker)

    # The server is killed while all three are at work: they go on by themselves, and nothing is lost.
    def test_server_killed(self):
        topic = f"{self.name}-topic"
        self.server.cli("queue", "create", self.name, "--lease-duration", "2s")
        self.server.cli("topic", "create", topic)
        self.server.cli("publish", topic, "--quiet", stdin="".join(f"{i}\n" for i in range(1000)))
        worker = self.start("worker", self.name)
        subscriber = self.start("subscriber", topic, self.position_file)
        producer = self.start("producer", self.name)
        producer.feed(range(2000))
        subscriber.wait_for_lines(1000)
        worker.wait_for_lines(1100)
        self.server.kill()
        producer.feed(range(2000, 4000))
        self.server.start()
        self.server.cli("publish", topic, "--quiet", stdin="".join(f"{i}\n" for i in range(1000, 2000)))
        self.assertEqual(producer.join(), 0, producer.errors)
        self.assertEqual(producer.lines, ["4000 messages enqueued"])
        printed = numbers(subscriber.wait_for(lambda lines: lines[-1:] == ["1999"]))
        self.assertEqual(sorted(set(printed)), list(range(2000)))
        # What comes again comes in order, too.
        behind = printed[1000:]
        self.assertEqual(behind, list(range(behind[0], 2000)))
        until(lambda: self.counts() == (0, 0, 0), "nothing is left in the queue")
        self.terminate(worker)
        self.assertEqual(set(bodies(worker.lines)), {str(i) for i in range(4000)})

    # A position of a deleted topic is refused with the way out, never misread.
    def test_deleted_topic(self):
        self.server.cli("topic", "create", self.name)
        self.server.cli("publish", self.name, "old")
        first = self.start("subscriber", self.name, self.position_file)
        first.wait_for_lines(1)
        until(self.position_file.exists, "a position is noted")
        self.server.cli("topic", "rm", self.name)
        self.assertEqual(first.join(), 1)
        self.assertIn("subscriber: NOT_FOUND: ", first.errors[-1])
        self.server.cli("topic", "create", self.name)
        second = self.start("subscriber", self.name, self.position_file)
        self.assertEqual(second.join(), 1)
        self.assertIn(f"To begin again at the oldest message kept: rm {self.position_file}", second.errors[-1])

    # Without a server each ends with one line that says what to do.
    def test_no_server(self):
        for name, program in self.without_server.items():
            self.assertEqual(program.join(), 1)
            self.assertEqual(program.errors, [
                f"{name}: cannot reach postkeeperd at {self.nowhere}. Is it running? Start it: postkeeperd"])


class SlowClientContract(ClientContract):
    """With what takes too long for every change."""

    # A worker that can't drain, since the server is gone, ends all the same.
    def test_drain_timeout(self):
        worker = self.start("worker", self.name)
        self.server.cli("enqueue", self.name, "one")
        worker.wait_for_lines(1)
        self.server.kill()
        self.addCleanup(self.server.start)
        worker.wait_for_error("opening a new stream")
        worker.signal(signal.SIGTERM)
        self.assertEqual(worker.join(), 1)
        self.assertEqual(worker.errors[-1], "worker: not drained within 20 s; what it held comes again")
