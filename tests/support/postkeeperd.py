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

START_TIMEOUT_S = 60
STOP_TIMEOUT_S = 40
POLL_S = 0.05


def find_program(name):
    path = shutil.which(name)
    if path is None:
        raise FileNotFoundError(f"{name} is not on the PATH. Build it (./dev build), then: PATH=$PWD/build/release:$PATH")
    return path


def clean_environment(**more):
    """The caller's, without settings for postkeeper."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("POSTKEEPER_")}
    return {
  **kept, **more
}

class Postkeeperd:
    """Started by the constructor, ended by close(), which every test must reach: test.addCleanup(server.close)."""

    def __init__(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="postkeeper-test-"))
        self.address = "127.0.0.1:0"
        self.process = None
        self.start()

    def start(self):
        """Serves again what was there before, at the same address."""
        log = self.folder / "log"
        with open(log, "wb") as out:
            self.process = subprocess.Popen(
                [find_program("postkeeperd"), "--listen", self.address, "--metrics-listen", "off", "--data-dir",
                 self.folder / "data"], stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=clean_environment())
        give_up_at = time.monotonic() + START_TIMEOUT_S
        while not re.search(r"^\S+ info ready\b", log.read_text(), re.MULTILINE):
            if self.process.poll() is not None or time.monotonic() > give_up_at:
                text = log.read_text()
                self.close()
                raise RuntimeError(f"postkeeperd did not start:\n{text}")
            time.sleep(POLL_S)
        self.address = re.search(r"\bgrpc=(\S+)", log.read_text())[1]

    def stop(self):
        """In order; returns the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(STOP_TIMEOUT_S)

    def restart(self):
        code = self.stop()
        if code != 0:
            raise RuntimeError(f"postkeeperd ended with {code}:\n{(self.folder / 'log').read_text()}")
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
