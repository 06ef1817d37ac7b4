"""The checks of ./dev check that are ours find what they are there to find, and the counting of ./dev test is right,
as is what it knows of a machine that stands still.

Each test makes a small project in a folder of its own, with one thing wrong in it.
"""

import json
import pathlib
import signal
import subprocess
import tempfile
import time
import unittest

ROOT = pathlib.Path(__file__).resolve().parent.parent


class ProjectTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)
        subprocess.run(["git", "init", "--quiet", folder.name], check=True)

    def write(self, name, content):
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())

    def run_tool(self, tool, *arguments):
        return subprocess.run(["/usr/bin/python3", ROOT / tool, *arguments, self.folder], capture_output=True, text=True,
                              timeout=60)


class LayersTest(ProjectTest):
    def layers(self, name, *includes):
        """Returns what the check says about a project that has only this file."""
        self.write(name, "".join(f"#include {include}\n" for include in includes))
        done = self.run_tool("tools/check_layers.py")
        self.assertEqual(done.returncode, 1 if done.stdout else 0, done.stderr)
        (self.folder / name).unlink()
        return done.stdout

    # The arrows of the architecture pass.
    def test_allowed_arrows(self):
        for name, include in (("zkstore/log.cc", '"postkeeper/storage/v1/records.pb.h"'),
                              ("zkstore/c_client.cc", "<zookeeper/zookeeper.h>"),
                              ("service/queue.cc", '"zkstore/log.h"'), ("service/queue.h", '"metrics/metrics.h"'),
                              ("service/adapter.cc", "<grpcpp/grpcpp.h>"), ("cli/main.cc", '"postkeeper/v1/admin.pb.h"'),
                              ("metrics/prometheus.cc", "<prometheus/registry.h>"), ("bench/run.cc", '"zkstore/log.h"'),
                              ("bench/dispatch.cc", '"service/dispatcher.h"'),
                              ("zkstore/log_test.cc", '"zkstore/simulator.h"'), ("tests/x.cc", '"service/queue.h"'),
                              ("zkstore/fault_injector.cc", '"zkstore/simulator.h"'), ("zkstore/log.h", '"absl/a.h"')):
            with self.subTest(file=name, include=include):
                self.assertEqual(self.layers(name, include), "")

    # Every arrow that points the wrong way is named with file and line.
    def test_forbidden_arrows(self):
        for name, include, told in (("zkstore/log.cc", '"service/queue.h"', "may not include service/"),
                                    ("zkstore/log.cc", '"metrics/metrics.h"', "may not include metrics/"),
                                    ("zkstore/log.cc", "<grpcpp/grpcpp.h>", "may not know this library"),
                                    ("zkstore/log_test.cc", "<grpcpp/grpcpp.h>", "may not know this library"),
                                    ("zkstore/log.cc", '"postkeeper/v1/message.pb.h"', "may not know this proto"),
                                    ("metrics/m.cc", "<grpcpp/grpcpp.h>", "may not know this library"),
                                    ("metrics/m.cc", '"zkstore/log.h"', "may not include zkstore/"),
                                    ("service/queue.cc", '"cli/text.h"', "may not include cli/"),
                                    ("service/queue.cc", "<zookeeper/zookeeper.h>", "may not know this library"),
                                    ("service/queue.cc", "<prometheus/registry.h>", "may not know this library"),
                                    ("service/queue.cc", '"zkstore/simulator.h"', "simulation is for tests only"),
                                    ("service/queue.cc", '"tests/support/x.h"', "may not include tests/"),
                                    ("cli/main.cc", '"zkstore/log.h"', "may not include zkstore/"),
                                    ("cli/main.cc", '"postkeeper/storage/v1/records.pb.h"', "may not know this proto"),
                                    ("bench/run.cc", '"service/queue.h"', "may not include service/"),
                                    ("service/queue.cc", '"queue.h"', "name the room too")):
            with self.subTest(file=name, include=include):
                said = self.layers(name, "<vector>", include)
                self.assertIn(told, said)
                self.assertTrue(said.startswith(f"{name}:2: "), said)

    # Our headers don't hand gRPC, protobuf or the ZooKeeper C API on to everybody who includes them.
    def test_costly_headers(self):
        for name, include in (("service/queue.h", "<grpcpp/grpcpp.h>"), ("service/queue.h", '"postkeeper/v1/admin.pb.h"'),
                              ("zkstore/log.h", '"postkeeper/storage/v1/records.pb.h"'),
                              ("zkstore/log.h", "<google/protobuf/message.h>"), ("zkstore/log.h", "<zookeeper/zookeeper.h>")):
            with self.subTest(file=name, include=include):
                self.assertIn("a header of ours without", self.layers(name, include))
        self.assertEqual(self.layers("service/service_pch.h", "<grpcpp/grpcpp.h>"), "")

    # A library with one door is known to nobody else, not even in the same room.
    def test_doors(self):
        self.assertEqual(self.layers("metrics/prometheus_series.h", "<prometheus/counter.h>"), "")
        self.assertEqual(self.layers("service/logging.cc", "<spdlog/spdlog.h>"), "")
        self.assertIn("only metrics/prometheus* may know", self.layers("metrics/b.cc", "<prometheus/registry.h>"))
        self.assertIn("only service/logging.cc may know", self.layers("service/b.cc", "<spdlog/spdlog.h>"))

    # Examples are clients and stay away from the store.
    def test_examples(self):
        self.write("examples/python/a.py", "import grpc\n")
        self.assertEqual(self.run_tool("tools/check_layers.py").stdout, "")
        self.write("examples/python/b.py", "from kazoo.client import KazooClient\n")
        self.assertIn("examples/python/b.py:1: ", self.run_tool("tools/check_layers.py").stdout)
        (self.folder / "examples/python/b.py").unlink()
        self.assertEqual(self.layers("examples/cpp/a.cc", '"connection.h"'), "")
        self.assertIn("may not include", self.layers("examples/cpp/a.cc", '"zkstore/cursor.h"'))
        self.assertIn("may not know this proto", self.layers("examples/cpp/a.cc", '"postkeeper/storage/v1/records.pb.h"'))


class TidinessTest(ProjectTest):
    def tidiness(self, name, content):
        self.write(name, content)
        done = self.run_tool("tools/check_tidiness.py")
        self.assertEqual(done.returncode, 1 if done.stdout else 0, done.stderr)
        (self.folder / name).unlink()
        return done.stdout

    # A tidy project passes: also an empty file, a binary one, a reasoned TODO(reason): what, a long lock file.
    def test_tidy(self):
        for name, content in (("a.cc", "int a;\n"), ("empty.txt", ""), ("picture.png", b"\x89PNG\0 \t\n\n"),
                              ("b.h", "// TO" "DO(needs gcc 13): use std::format\n"), ("c.cc", "int x;\n" * 600),
                              ("d.proto", "// the manual\n" * 1000), ("package-lock.json", "{}\n" * 2000),
                              ("e.md", "the framework/" "w" "ork folder, ./" "w" "ork/x and build/home/y\n"),
                              ("f.md", "HOME=/home/ann\n")):
            with self.subTest(file=name):
                self.assertEqual(self.tidiness(name, content), "")

    # Each untidy thing is found and told with its place.
    def test_untidy(self):
        for name, content, told in (
                ("a.cc", "int x;\n" * 601, "a.cc: 601 lines, 600 are allowed"),
                ("a.proto", "//\n" * 1001, "a.proto: 1001 lines, 1000 are allowed"),
                ("a.cc", "int x;\n// TO" "DO: later\n", "a.cc:2: say why"),
                ("dev", "# FIX" "ME\n", "dev:1: say why"),
                ("a_test.cc", "GTEST_" "SKIP();\n", "a_test.cc:1: skipped test"),
                ("a_test.cc", "TEST(A, DIS" "ABLED_B) {}\n", "a_test.cc:1: skipped test"),
                ("a_test.py", "@unittest." "skip('slow')\n", "a_test.py:1: skipped test"),
                ("a.md", "no newline", "a.md: no newline at the end"),
                ("a.md", "text\n\n", "a.md: empty lines at the end"),
                ("a.md", "blank \n", "a.md:1: trailing blanks"),
                ("a.md", "windows\r\n", "a.md:1: trailing blanks or carriage return"),
                ("a.cc", "\tint x;\n", "a.cc:1: tab"),
                ("a.sh", "cd /ho" "me/someone/src\n", "a.sh:1: path of one developer's machine"),
                ("a.sh", "cd /wo" "rk\n", "a.sh:1: path of one developer's machine"),
                ("a.md", b"caf\xe9\n", "a.md: not UTF-8"),
                ("tools/package-lock.json", '{"resolved": "https://registry"}\n', "names a registry host")):
            with self.subTest(file=name, told=told):
                self.assertIn(told, self.tidiness(name, content))

    # --fix repairs blanks and ends, leaves everything else as it is, and then the check is content.
    def test_fix(self):
        self.write("a.md", "one \r\ntwo\t\n\n  three\n\n\n")
        self.write("b.png", b"\0 \n\n")
        done = self.run_tool("tools/check_tidiness.py", "--fix")
        self.assertEqual((done.returncode, done.stdout), (0, "fixed a.md\n"))
        self.assertEqual((self.folder / "a.md").read_bytes(), b"one\ntwo\n\n  three\n")
        self.assertEqual((self.folder / "b.png").read_bytes(), b"\0 \n\n")

    # Files that git ignores, and files deleted but not yet committed, are nobody's business.
    def test_only_our_files(self):
        self.write(".gitignore", "/build/\n")
        self.write("build/a.cc", "\tint x; ")
        self.write("gone.cc", "int x;\n")
        subprocess.run(["git", "-C", self.folder, "add", "gone.cc"], check=True)
        (self.folder / "gone.cc").unlink()
        self.assertEqual(self.run_tool("tools/check_tidiness.py").stdout, "")


class CountTest(ProjectTest):
    def report(self, name, exit_code, report):
        self.write(f"{name}.exit", f"{exit_code}\n")
        if report is not None:
            self.write(f"{name}.json", report if isinstance(report, str) else json.dumps(report))

    def count(self):
        done = self.run_tool("scripts/count_tests.py")
        return done.returncode, done.stdout.splitlines()

    # Counts of all programs are added up.
    def test_adds_up(self):
        self.report("unit_tests.0", 0, {"tests": 7, "failures": 0, "disabled": 0, "errors": 0})
        self.report("tests.dev_test", 0, {"tests": 5, "failures": 0, "skipped": 0})
        self.assertEqual(self.count(), (0, ["12 passed, 0 failed"]))

    # A failure anywhere fails the whole, and the last line stays plain.
    def test_failures(self):
        self.report("a", 1, {"tests": 7, "failures": 2, "errors": 0, "disabled": 0})
        self.report("b", 0, {"tests": 3, "failures": 0})
        self.assertEqual(self.count(), (1, ["8 passed, 2 failed"]))

    # Each failed test is named with the end of what it said, also one that passed when it ran again.
    def test_names_what_failed(self):
        def report(test, *messages):
            failures = [{"failure": message} for message in messages]
            return {"tests": 2, "failures": 1, "testsuites": [{"name": "Suite", "testsuite": [
                {"name": "Good"}, {"name": test, "failures": failures}]}]}
        self.report("a", 1, report("Bad", "x.cc:7\nExpected: 1", "x.cc:8"))
        self.report("a.again", 0, {"tests": 1, "failures": 0})
        self.report("b", 1, report("Long", "\n".join(f"line {i}." for i in range(100))))
        code, lines = self.count()
        self.assertEqual((code, lines[-1]), (1, "3 passed, 1 failed"))
        self.assertEqual(lines[:4], ["FAILED a: Suite.Bad", "    x.cc:7", "    Expected: 1", "    x.cc:8"])
        self.assertIn("FAILED b: Suite.Long", lines)
        self.assertIn("    line 99.", lines)
        self.assertNotIn("    line 1.", lines)

    # A program that died, or left half a report, is a failure although no report says so.
    def test_died(self):
        self.report("a", 0, {"tests": 3, "failures": 0})
        self.report("b", 139, None)
        self.report("c", 124, '{"tests": 5, ')
        code, lines = self.count()
        self.assertEqual((code, lines[-1]), (1, "3 passed, 2 failed"))
        self.assertIn("b ended with exit code 139 before it could report", lines[0])

    # A sanitizer that complains at exit fails the run although every test passed.
    def test_leak_at_exit(self):
        self.report("a", 1, {"tests": 3, "failures": 0})
        code, lines = self.count()
        self.assertEqual((code, lines), (1, ["a: every test passed, but the program ended with exit code 1",
                                             "3 passed, 1 failed"]))

    # Skipped and disabled tests don't pass for passed ones.
    def test_skipped(self):
        self.report("a", 0, {"tests": 3, "failures": 0, "disabled": 1, "testsuites": [
            {"testsuite": [{"result": "COMPLETED"}, {"result": "SKIPPED"}, {"result": "SUPPRESSED"}]}]})
        code, lines = self.count()
        self.assertEqual((code, lines[-1]), (1, "1 passed, 2 failed"))

    # What ran again, whole or only the failed tests, counts as it ended the second time, and is told.
    def test_ran_again(self):
        self.report("a", 1, {"tests": 7, "failures": 2})
        self.report("a.again", 0, {"tests": 2, "failures": 0})
        self.report("b", 1, {"tests": 5, "failures": 1})
        self.report("b.again", 1, {"tests": 5, "failures": 2})
        self.report("c", 124, None)
        self.report("c.again", 0, {"tests": 3, "failures": 0})
        self.report("d", 1, {"tests": 4, "failures": 1})
        self.report("d.again", 139, None)
        code, lines = self.count()
        self.assertEqual((code, lines[-1]), (1, "16 passed, 3 failed"))
        self.assertIn("a: 2 failed while the machine stood still, and ran again", lines)

    # The filter for a second run names the failed tests, or everything when the program failed without one.
    def test_failed_filter(self):
        for failures, expected in (({}, "*"), ({"failures": [{"failure": "x"}]}, "S.t")):
            with self.subTest(expected=expected):
                tests = [{"name": "t", "result": "COMPLETED", **failures}, {"name": "u", "result": "COMPLETED"}]
                self.write("r.json", json.dumps({"testsuites": [{"name": "S", "testsuite": tests}]}))
                done = subprocess.run(["/usr/bin/python3", ROOT / "scripts/count_tests.py", "--failed",
                                       self.folder / "r.json"], capture_output=True, text=True, timeout=60)
                self.assertEqual(done.stdout.strip(), expected, done.stderr)

    # No test at all is not a success.
    def test_nothing_ran(self):
        self.assertEqual(self.count(), (1, ["no tests ran", "0 passed, 0 failed"]))

    # The Python runner counts tests, not events, and an import error or a broken setUpModule is a failure.
    def test_python_runner(self):
        cases = {
            "import unittest\nclass A(unittest.TestCase):\n"
            "  def test_a(self): pass\n"
            "  def test_b(self):\n"
            "    for i in range(3):\n"
            "      with self.subTest(i=i): self.fail()\n"
            "  def test_c(self): raise ValueError()\n": (1, {"tests": 3, "failures": 2, "skipped": 0}),
            "import unittest\nclass A(unittest.TestCase):\n  def test_a(self): pass\n":
                (0, {"tests": 1, "failures": 0, "skipped": 0}),
            "import unittest\ndef setUpModule(): raise ValueError()\n"
            "class A(unittest.TestCase):\n  def test_a(self): pass\n": (1, {"tests": 1, "failures": 1, "skipped": 0}),
            "import unittest\n": (1, {"tests": 0, "failures": 0, "skipped": 0}),
            "import nothing_of_this_name\n": (1, None),
        }
        for number, (text, (exit_code, expected)) in enumerate(cases.items()):
            with self.subTest(text=text):
                self.write(f"case{number}.py", text)
                report = self.folder / f"case{number}.json"
                done = subprocess.run(["/usr/bin/python3", ROOT / "scripts/run_python_test.py",
                                       self.folder / f"case{number}.py", report], capture_output=True, timeout=60)
                self.assertEqual(done.returncode, exit_code, done.stderr)
                written = json.loads(report.read_text()) if report.exists() else None
                suites = written.pop("testsuites") if written else []
                self.assertEqual(written, expected)
                self.assertEqual(sum(len(suite["testsuite"]) for suite in suites), expected["failures"] if expected else 0)


class StallTest(ProjectTest):
    # The longest stall that ended since a moment is told; none is 0.
    def test_longest(self):
        self.write("stalls", "100.0 5.00\n200.0 0.30\n300.5 2.25\n")
        for since, expected in (("50", "5.0"), ("150", "2.2"), ("301", "0.0")):
            with self.subTest(since=since):
                done = subprocess.run(["/usr/bin/python3", ROOT / "scripts/stall_watch.py", "longest",
                                       self.folder / "stalls", since], capture_output=True, text=True, timeout=60)
                self.assertEqual(done.stdout.strip(), expected, done.stderr)

    # A watcher that does not get to run notes that.
    def test_watch(self):
        path = self.folder / "stalls"
        watcher = subprocess.Popen(["/usr/bin/python3", ROOT / "scripts/stall_watch.py", "watch", path])
        self.addCleanup(watcher.wait)
        self.addCleanup(watcher.kill)
        self.wait_for(lambda: path.with_name("stalls.page").exists())
        watcher.send_signal(signal.SIGSTOP)
        time.sleep(1)
        watcher.send_signal(signal.SIGCONT)
        self.wait_for(lambda: path.exists() and path.stat().st_size > 0)
        self.assertGreater(max(float(line.split()[1]) for line in path.read_text().splitlines()), 0.5)

    def wait_for(self, condition):
        give_up_at = time.monotonic() + 60
        while not condition():
            self.assertLess(time.monotonic(), give_up_at)
            time.sleep(0.02)


if __name__ == "__main__":
    unittest.main()
