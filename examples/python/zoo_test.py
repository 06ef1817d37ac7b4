"""zoo_server and zoo_client, as programs use them, against a real postkeeperd."""

import os
import pathlib
import subprocess
import sys
import tempfile
import textwrap
import time
import unittest

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1] / "tests/support"))

from postkeeperd import Postkeeperd  # noqa: E402

TASK_CLASS = """
from zoo_server import Empty, TaskError, ZooServer, register

class Task:
    def __init__(self, name):
        self.name = name

    def execute(self):
        print(self.name, flush=True)
"""


class ZooTest(unittest.TestCase):
    def setUp(self):
        self.server = Postkeeperd()
        self.addCleanup(self.server.close)
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)

    def start(self, text):
        """Starts a program made of the class Task and `text`, as its __main__."""
        program = self.folder / "program.py"
        program.write_text(TASK_CLASS + textwrap.dedent(text), encoding="utf-8")
        return self.start_file(program)

    def start_file(self, program):
        env = {**self.server.environment(), "PYTHONPATH": str(HERE), "PYTHONIOENCODING": "utf-8"}
        process = subprocess.Popen([sys.executable, program], env=env, stdin=subprocess.DEVNULL,
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8")
        self.addCleanup(process.communicate)
        self.addCleanup(process.kill)
        return process

    def finish(self, process, code=0):
        out, err = process.communicate(timeout=90)
        self.assertEqual(process.returncode, code, out + err)
        return out, err

    def run_program(self, text, code=0):
        return self.finish(self.start(text), code)

    def enqueue(self, body):
        self.server.cli("enqueue", "zoo-tasks", "--whole", stdin=body)

    def assert_nothing_left(self):
        stats = self.server.cli("stats", "zoo-tasks", "--output", "json")
        for state in ("ready", "delayed", "leased"):
            self.assertIn(f'"{state}":0', stats)

    # The program of the README runs as it stands, executes both tasks in order, and leaves nothing behind; also twice.
    def test_first_program(self):
        for _ in range(2):
            out, err = self.finish(self.start_file(HERE / "first_program.py"))
            self.assertEqual(out, "任务任务1执行中...\n任务任务2执行中...\n", err)
            self.assert_nothing_left()

    # What one program added, another gets after the server was restarted, in order.
    def test_tasks_survive_a_restart_of_the_server(self):
        self.run_program("""
            server = ZooServer()
            for i in range(50):
                server.add_task(Task(f"task {i}"))
            """)
        self.server.restart()
        out, _ = self.run_program("""
            server = ZooServer()
            while not server.is_empty():
                server.get_task().execute()
            """)
        self.assertEqual(out.splitlines(), [f"task {i}" for i in range(50)])
        self.assert_nothing_left()

    # is_empty never says so while a task just added has not been executed.
    def test_is_empty_sees_what_was_just_added(self):
        out, _ = self.run_program("""
            server = ZooServer()
            for i in range(200):
                server.add_task(Task(str(i)))
                assert not server.is_empty(), i
                server.get_task().execute()
                assert server.is_empty(), i
            """)
        self.assertEqual(out.split(), [str(i) for i in range(200)])

    # The normal end of a program acks its last task.
    def test_normal_end_acks(self):
        self.run_program("""
            import sys
            server = ZooServer()
            server.add_task(Task("one"))
            server.add_task(Task("two"))
            server.get_task()
            server.get_task()
            sys.exit()
            """)
        self.assert_nothing_left()

    # An exception that ends the program gives its task back, and only that one.
    def test_task_of_a_failed_program_comes_again(self):
        _, err = self.run_program("""
            server = ZooServer()
            server.add_task(Task("good"))
            server.add_task(Task("bad"))
            server.get_task()
            server.get_task()
            raise KeyError("no such order")
            """, code=1)
        self.assertIn("KeyError", err)
        out, _ = self.run_program("server = ZooServer()\nserver.get_task(timeout=60).execute()\n")
        self.assertEqual(out, "bad\n")
        self.assert_nothing_left()

    # A killed program's task comes again; until then is_empty says False although nothing is ready.
    def test_task_of_a_killed_program_comes_again(self):
        held = self.start("""
            import time
            server = ZooServer(lease_seconds=2)
            server.add_task(Task("hard"))
            server.get_task().execute()
            time.sleep(600)
            """)
        self.assertEqual(held.stdout.readline(), "hard\n")
        other = self.start("""
            server = ZooServer()
            print(server.is_empty(), flush=True)
            server.get_task(timeout=60).execute()
            """)
        self.assertEqual(other.stdout.readline(), "False\n")
        held.kill()
        out, _ = self.finish(other)
        self.assertEqual(out, "hard\n")
        self.assert_nothing_left()

    # A task that takes longer than its lease is still held by one program only.
    def test_lease_is_kept_while_a_task_is_executed(self):
        busy = self.start("""
            import time
            server = ZooServer(lease_seconds=1)
            server.add_task(Task("long"))
            task = server.get_task()
            print("began", flush=True)
            time.sleep(4)
            task.execute()
            """)
        self.assertEqual(busy.stdout.readline(), "began\n")
        out, _ = self.run_program("""
            server = ZooServer()
            try:
                server.get_task().execute()
            except Empty as empty:
                print(empty)
            """)
        self.assertEqual(out, "zoo-tasks is empty\n")
        self.assertEqual(self.finish(busy)[0], "long\n")

    # A delayed task counts, and is waited for.
    def test_delayed_tasks_count(self):
        self.server.cli("queue", "create", "zoo-tasks")
        self.server.cli("enqueue", "zoo-tasks", '{"class": "Task", "fields": {"name": "later"}}', "--delay", "2s")
        out, _ = self.run_program("""
            server = ZooServer()
            print(server.is_empty())
            server.get_task().execute()
            """)
        self.assertEqual(out, "False\nlater\n")

    # Hostile and foreign JSON is a clear error, runs nothing, harms no task behind it, and is not lost.
    def test_hostile_messages(self):
        marker = self.folder / "marker"
        hostile = {
            "not json": "not JSON",
            '{"class": "Task"}': "exactly",
            "[1, 2]": "exactly",
            '{"class": 7, "fields": {}}': "not text",
            '{"class": "Unknown", "fields": {}}': "no class 'Unknown'",
            # Imported into __main__, so not meant.
            '{"class": "Path", "fields": {}}': "no class 'Path'",
            '{"class": "main", "fields": {}}': "no class 'main'",
            '{"class": "os.system", "fields": {}}': "no class 'os.system'",
            '{"class": "Task", "fields": {"__class__": "Path"}}': "cannot be the name",
            '{"class": "Task", "fields": {"execute": "print"}}': "would hide a method",
            '{"class": "Task", "fields": {"n": NaN}}': "NaN",
            '{"class": "Sub", "fields": {}}': "no plain class",
            '{"class":' * 50000: "not JSON",
            '{"py/reduce": [{"py/function": "os.mkdir"}, ["%s"]]}' % marker: "exactly",
        }
        self.server.cli("queue", "create", "zoo-tasks", "--retry-backoff", "5m")
        for body in hostile:
            self.enqueue(body)
        self.enqueue('{"class": "Task", "fields": {"name": "honest"}}')
        out, _ = self.run_program("""
            import os
            from pathlib import Path

            class Sub(int):
                pass

            def main():
                server = ZooServer()
                for _ in range(%d):
                    try:
                        server.get_task()
                        print("built")
                    except TaskError as error:
                        print(error)
                server.get_task().execute()

            main()
            """ % len(hostile))
        lines = out.splitlines()
        self.assertEqual(len(lines), len(hostile) + 1, out)
        for line, (body, expected) in zip(lines, hostile.items()):
            self.assertIn(expected, line, body[:100])
            self.assertIn("message ", line)
        self.assertEqual(lines[-1], "honest")
        self.assertFalse(marker.exists())
        self.assertIn(f'"delayed":{len(hostile)}', self.server.cli("stats", "zoo-tasks", "--output", "json"))

    # What JSON would change or cannot hold is refused by add_task, and nothing is enqueued.
    def test_tasks_that_cannot_travel(self):
        out, _ = self.run_program("""
            class Slots:
                __slots__ = ("name",)

            class Hiding(Task):
                def __init__(self):
                    self.execute = "print"

            server = ZooServer()
            bad = [Task((1, 2)), Task({1: 2}), Task(b"bytes"), Task(Task("inner")), Task(float("nan")), Slots(), 7, Hiding()]
            for task in bad:
                try:
                    server.add_task(task)
                    print("added")
                except TaskError as error:
                    print(error)
            print(server.is_empty())
            """)
        lines = out.splitlines()
        self.assertEqual(lines[-1], "True", out)
        self.assertEqual(len(lines), 9)
        self.assertNotIn("added", lines)
        self.assertIn("come back changed", lines[0])
        self.assertIn("cannot be written as JSON", lines[2])

    # A registered class of another module and a dataclass with defaults are built; a text comes back as it was.
    def test_registered_classes(self):
        (self.folder / "mail.py").write_text(textwrap.dedent("""
            import dataclasses
            from zoo_server import register

            @register
            @dataclasses.dataclass
            class Mail:
                to: str = "nobody"
                lines: list = dataclasses.field(default_factory=list)
            """))
        out, _ = self.run_program(f"""
            import sys
            sys.path.insert(0, {str(self.folder)!r})
            import mail
            server = ZooServer()
            sent = mail.Mail("ann\\u2028\\U0001f600", [1, 2.5, None, True, {{"a": []}}])
            server.add_task(sent)
            print(server.get_task() == sent)
            """)
        self.assertEqual(out, "True\n")

    # Without a server the program ends soon, with one line that says what to do.
    def test_no_server(self):
        self.server.stop()
        started = time.monotonic()
        _, err = self.finish(self.start_file(HERE / "first_program.py"), code=1)
        self.assertIn(f"cannot reach postkeeperd at {self.server.address}. Is it running? Start it: postkeeperd", err)
        self.assertLess(time.monotonic() - started, 30)


if __name__ == "__main__":
    os.chdir(HERE)
    unittest.main()
