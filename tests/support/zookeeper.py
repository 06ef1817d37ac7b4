"""A real ZooKeeper for a test in Python: one server on a free loopback port, in a folder of its own."""

import ctypes
import pathlib
import shutil
import signal
import socket
import subprocess
import tempfile

from postkeeperd import until

JAR = "/usr/share/java/zookeeper.jar"
START_TIMEOUT_S = 180
PR_SET_PDEATHSIG = 1
LIBC = ctypes.CDLL(None)


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


class Zookeeper:
    """Started by the constructor, ended by close(), which every test must reach: test.addCleanup(zookeeper.close)."""

    def __init__(self, heap_mib=256, address="127.0.0.1"):
        self.heap_mib = heap_mib
        self.address = address
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="postkeeper-zookeeper-"))
        self.port = free_port()
        self.process = None
        self.start()

    @property
    def hosts(self):
        return f"{self.address}:{self.port}"

    def start(self):
        """Serves again what was there before, at the same port of `address`."""
        configuration = self.folder / "zoo.cfg"
        configuration.write_text(f"tickTime=500\ndataDir={self.folder}/data\nclientPort={self.port}\n"
                                 f"clientPortAddress={self.address}\nmaxClientCnxns=0\nadmin.enableServer=false\n"
                                 "4lw.commands.whitelist=srvr,dump\n")
        with open(self.folder / "output", "ab") as out:
            # A killed process leaves its writes with the kernel, so tests need no fsync.
            self.process = subprocess.Popen(
                ["java", f"-Xmx{self.heap_mib}m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Dzookeeper.forceSync=no",
                 "-Dzookeeper.preAllocSize=1024", "-cp", JAR, "org.apache.zookeeper.server.ZooKeeperServerMain",
                 configuration],
                stdin=subprocess.DEVNULL, stdout=out, stderr=out,
                preexec_fn=lambda: LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL))
        try:
            until(self._serves_or_died, f"ZooKeeper serves at {self.hosts}", START_TIMEOUT_S)
        except (AssertionError, RuntimeError):
            self.close()
            raise

    def _serves_or_died(self):
        if self.process.poll() is not None:
            raise RuntimeError(f"java ended with {self.process.returncode}:\n{(self.folder / 'output').read_text()}")
        return self.serves()

    def ask(self, command):
        """The answer to one of ZooKeeper's four-letter commands."""
        with socket.create_connection((self.address, self.port), timeout=1) as connection:
            connection.sendall(command.encode())
            answer = b""
            while part := connection.recv(4096):
                answer += part
            return answer.decode()

    def serves(self):
        try:
            return "Mode: " in self.ask("srvr")
        except OSError:
            return False

    def ephemerals(self):
        """The paths of all ephemerals, by session; sessions without any are left out."""
        found = {}
        _, _, listed = self.ask("dump").partition("Sessions with Ephemerals")
        for line in listed.splitlines()[1:]:
            if line.startswith("0x"):
                session = found.setdefault(line.strip().rstrip(":"), [])
            elif line.startswith("\t/"):
                session.append(line.strip())
        return found

    def kill(self):
        """As a crash does."""
        self.process.kill()
        self.process.wait()

    def pause(self):
        """It keeps its connections and answers nothing."""
        self.process.send_signal(signal.SIGSTOP)

    def resume(self):
        self.process.send_signal(signal.SIGCONT)

    def close(self):
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)
