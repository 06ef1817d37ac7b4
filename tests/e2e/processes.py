"""Programs in the background: started, ended in every way that hurts, and started again."""

import concurrent.futures
import os
import pathlib
import random
import signal
import socket
import subprocess

POLL_S = 0.05

# The kernel ends a child with the *thread* that started it (see `setpriv --pdeathsig`), so one thread that stays starts
# them all.
_spawner = concurrent.futures.ThreadPoolExecutor(max_workers=1, thread_name_prefix="spawner")


def start_ticks(pid):
    """When this process was started, in the kernel's ticks since its own start; None if there is none, or it has ended.

    A pid is used again some day; pid and start together are not.
    """
    try:
        fields = pathlib.Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in "ZX" else int(fields[19])


def is_stopped(pid):
    """By SIGSTOP: it is there, and does nothing."""
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] == "T"
    except (FileNotFoundError, ProcessLookupError):
        return False


def is_free(port):
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def free_ports(count):
    """Ports that nobody listens on, and that the kernel gives to no outgoing connection: a program that is started again
    at its port finds it free."""
    first, last = map(int, pathlib.Path("/proc/sys/net/ipv4/ip_local_port_range").read_text(encoding="ascii").split())
    candidates = [port for port in range(10_000, 65_000) if not first <= port <= last]
    random.SystemRandom().shuffle(candidates)
    found = []
    for port in candidates:
        if len(found) == count:
            break
        if is_free(port):
            found.append(port)
    if len(found) < count:
        raise OSError(f"there are no {count} free ports on 127.0.0.1")
    return found


class Process:
    """One program, perhaps several lives of it, each adding to the same log file.

    With `is_lasting` it lives on when we end; else the kernel kills it with us, however we end. Methods are to be called
    by one thread at a time. What a person should know is raised as RuntimeError.
    """

    def __init__(self, name, command, log_path, environment=None, is_lasting=False):
        self.name, self.command, self.log_path = name, list(map(str, command)), pathlib.Path(log_path)
        self.environment, self.is_lasting = environment, is_lasting
        self.process = None
        self.lives = 0
        self.life_begins_at = 0  # in the log, in bytes
        self.expects_end = True  # else it ended by itself, which is a fault of its own

    @property
    def pid(self):
        return self.process.pid if self.process else None

    @property
    def is_running(self):
        return self.process is not None and self.process.poll() is None

    def start(self):
        if self.is_running:
            raise RuntimeError(f"{self.name} runs already")
        self.life_begins_at = self.log_path.stat().st_size if self.log_path.exists() else 0
        self.lives += 1
        self.process = _spawner.submit(self._spawn).result()
        self.expects_end = False

    def _spawn(self):
        binding = [] if self.is_lasting else ["setpriv", "--pdeathsig", "KILL", "--"]
        with open(self.log_path, "ab") as out:
            return subprocess.Popen(binding + self.command, stdin=subprocess.DEVNULL, stdout=out, stderr=out,
                                    env=self.environment, start_new_session=self.is_lasting)

    def log_of_this_life(self):
        with open(self.log_path, "rb") as log:
            log.seek(self.life_begins_at)
            return log.read().decode("utf-8", errors="replace")

    def kill(self):
        """As a crash does."""
        self.expects_end = True
        if self.is_running:
            self.process.kill()
        if self.process is not None:
            self.process.wait()

    def terminate(self, timeout_s):
        """In good order; the exit code, or None if it took longer, and was killed."""
        self.expects_end = True
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.kill()
            return None

    def pause(self):
        """It keeps its connections and does nothing."""
        self.process.send_signal(signal.SIGSTOP)

    def resume(self):
        if self.is_running:
            self.process.send_signal(signal.SIGCONT)

    def check_alive(self):
        """Raises if it ended by itself."""
        if not self.is_running:
            words = self.log_of_this_life().strip().splitlines()[-5:]
            raise RuntimeError(f"{self.name} ended with exit code {self.process.returncode}: " + " | ".join(words))


def end_recorded(pid, ticks, sign=signal.SIGTERM):
    """Signals a process of an earlier run of ours, unless its pid has gone to somebody else. True if it was there."""
    if start_ticks(pid) != ticks:
        return False
    try:
        os.kill(pid, sign)
    except ProcessLookupError:
        return False
    return True
