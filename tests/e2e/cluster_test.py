"""./dev cluster: a cluster for a person, from up to down, and what it says when that cannot be."""

import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import tempfile
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "support"))

from postkeeperd import clean_environment, find_program, until  # noqa: E402
from processes import free_ports, start_ticks  # noqa: E402

COMMAND = pathlib.Path(__file__).with_name("cluster_command.py")
TIMEOUT_S = 600


class ClusterTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name) / "cluster"

    def run_cluster(self, *arguments, **environment):
        return subprocess.run([sys.executable, COMMAND, *arguments, "--folder", self.folder], stdin=subprocess.DEVNULL,
                              capture_output=True, text=True, timeout=TIMEOUT_S, env=clean_environment(**environment))

    def must(self, *arguments):
        done = self.run_cluster(*arguments)
        self.assertEqual((done.returncode, done.stderr), (0, ""), done.stdout)
        return done.stdout

    def assert_refused(self, done, *words):
        self.assertEqual((done.returncode, done.stdout), (1, ""))
        self.assertEqual(done.stderr.count("\n"), 1, done.stderr)
        for word in words:
            self.assertIn(word, done.stderr)

    def state(self):
        return json.loads((self.folder / "state.json").read_text(encoding="utf-8"))

    # Up, used through a replica, looked at, with a member paused and a replica killed, and down: then nothing is left.
    def test_from_up_to_down(self):
        self.addCleanup(self.run_cluster, "down")
        shown = self.must("up").splitlines()
        entries = self.state()
        self.assertEqual([line.split()[:3] for line in shown[1:7]],
                         [[entry["name"], entry["address"], str(entry["pid"])] for entry in entries])
        self.assertEqual(sorted(line.split()[3] for line in shown[1:4]), ["follower", "follower", "leader"])
        self.assertEqual([line.split(maxsplit=3)[3] for line in shown[4:7]], ["replica, ready"] * 3)
        self.assert_refused(self.run_cluster("up"), "up already", "./dev cluster status")

        replicas = [entry["address"] for entry in entries[3:]]
        self.assertIn(f"postkeeper --address {replicas[0]} cluster ls", "\n".join(shown))
        listed = subprocess.run([find_program("postkeeper"), "--address", replicas[0], "cluster", "ls", "--output", "json"],
                                capture_output=True, text=True, timeout=TIMEOUT_S, check=True, env=clean_environment())
        self.assertEqual(sorted(json.loads(line)["address"] for line in listed.stdout.splitlines()), sorted(replicas))

        os.kill(entries[2]["pid"], signal.SIGSTOP)
        os.kill(entries[5]["pid"], signal.SIGKILL)
        until(lambda: start_ticks(entries[5]["pid"]) is None, "the killed replica has ended")
        shown = self.must("status").splitlines()
        self.assertEqual(shown[3].split(maxsplit=3)[3], "paused (SIGSTOP)")
        self.assertEqual(shown[6].split(maxsplit=3)[3], "ended")

        self.assertIn("ended 5 processes", self.must("down"))
        self.assertEqual([start_ticks(entry["pid"]) for entry in entries], [None] * 6)
        self.assertFalse(self.folder.exists())
        self.assert_refused(self.run_cluster("down"), "not up")

    # A process that has got the pid of one of ours is not ours.
    def test_ends_only_its_own(self):
        other = subprocess.Popen(["sleep", "1000"])
        self.addCleanup(other.wait)
        self.addCleanup(other.kill)
        self.folder.mkdir()
        entry = {"name": "postkeeperd-1", "address": "127.0.0.1:1", "kind": "postkeeperd", "pid": other.pid,
                 "ticks": start_ticks(other.pid) + 1}
        (self.folder / "state.json").write_text(json.dumps([entry]), encoding="utf-8")
        self.assert_refused(self.run_cluster("down"), "not up")
        self.assertIsNone(other.poll())

    # One clear line for each thing that is in the way; nothing is started.
    def test_refusals(self):
        self.assert_refused(self.run_cluster("status"), "not up", "./dev cluster up")
        port = free_ports(1)[0]
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", port))
            listener.listen()
            self.assert_refused(self.run_cluster("up", "--port", str(port - 1)), f"port {port} is taken")
        self.assert_refused(self.run_cluster("up", PATH="/nowhere"), "there is no java", "apt-get install")
        self.assertEqual(self.run_cluster("up", "--port", "99999").returncode, 2)
        self.assertEqual(self.run_cluster("status", "--port", "7000").returncode, 2)
        self.assertEqual(self.run_cluster("sideways").returncode, 2)
        self.assertFalse(self.folder.exists())


if __name__ == "__main__":
    unittest.main()
