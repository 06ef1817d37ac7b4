"""A real postkeeperd for a test in Python: on free loopback ports, with its embedded ZooKeeper, in a folder of its own.

The programs are found on the PATH: ./dev test puts those of the release build there.
"""

import os
import pathlib
import re
import shutil
import signal
import subprocess
import tempfile
import time

START_TIMEOUT_S = 180
STOP_TIMEOUT_S = 60
POLL_S = 0.02


def find_program(name):
    path = shutil.which(name)
    if path is None:
        raise FileNotFoundError(f"{name} is not on the PATH. Build it (./dev build), then: PATH=$PWD/build/release:$PATH")
    return path


def clean_environment(**more):
    """The caller's, without settings for postkeeper."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("POSTKEEPER_")}
    return {**kept, **more}


def until(condition, what, timeout_s=30):
    """Returns what `condition` returns as soon as that is true; AssertionError naming `what` if it never is."""
    give_up_at = time.monotonic() + timeout_s
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > give_up_at:
            raise AssertionError(f"not within {timeout_s} s: {what}")
        time.sleep(POLL_S)


class Postkeeperd:
    """Started by the constructor, ended by close(), which every test must reach: test.addCleanup(server.close).

    Further flags are given as they are on the command line. With --zookeeper it uses that instead of its own, and
    becomes ready only once it is connected; `waits` = False returns as soon as it listens.
    """

    def __init__(self, *flags, waits=True, metrics_listen="off"):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="postkeeper-test-"))
        self.address = "127.0.0.1:0"
        self.flags = flags
        self.metrics_listen = metrics_listen
        self.process = None
        self.start(waits=waits)

    @property
    def log_file(self):
        return self.folder / "log"

    def log(self):
        """What the server has written since it was started last."""
        return self.log_file.read_text(encoding="utf-8")

    def wait_for_log(self, pattern, timeout_s=START_TIMEOUT_S):
        """The last match of a line of the log."""
        def look():
            matches = list(re.finditer(pattern, self.log(), re.MULTILINE))
            if not matches and self.process.poll() is not None:
                raise RuntimeError(f"postkeeperd ended with {self.process.returncode}:\n{self.log()}")
            return matches
        return until(look, f"a log line with {pattern}", timeout_s)[-1]

    def start(self, waits=True):
        """Serves again what was there before, at the same address."""
        with open(self.log_file, "wb") as out:
            self.process = subprocess.Popen(
                [find_program("postkeeperd"), "--listen", self.address, "--metrics-listen", self.metrics_listen,
                 "--data-dir", self.folder / "data", *self.flags],
                stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=clean_environment())
        try:
            self.wait_for_log(r"^\S+ info ready\b" if waits else r"^\S+ info listening\b")
        except (AssertionError, RuntimeError) as error:
            text = self.log()
            self.close()
            raise RuntimeError(f"postkeeperd did not start:\n{text}") from error
        self.address = re.search(r"\bgrpc=(\S+)", self.log())[1]

    def zookeeper_pid(self):
        """Of the embedded ZooKeeper that runs now."""
        return int(self.wait_for_log(r"ZooKeeper runs\b.*\bpid=(\d+)")[1])

    def stop(self):
        """In order; returns the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(STOP_TIMEOUT_S)

    def kill(self):
        """As a crash does."""
        self.process.kill()
        self.process.wait()

    def restart(self):
        code = self.stop()
        if code != 0:
            raise RuntimeError(f"postkeeperd ended with {code}:\n{self.log()}")
        self.start()

    def environment(self):
        """For clients of this server."""
        return clean_environment(POSTKEEPER_ADDRESS=self.address)

    def cli(self, *arguments, stdin=""):
        """The output of a `postkeeper` command, which must succeed."""
        done = subprocess.run([find_program("postkeeper"), *arguments], input=stdin, capture_output=True, text=True,
                              env=self.environment(), timeout=60)
        if done.returncode != 0:
            raise RuntimeError(f"postkeeper {' '.join(arguments)}: exit code {done.returncode}: {done.stderr}")
        return done.stdout

    def close(self):
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)
