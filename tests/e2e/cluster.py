"""A ZooKeeper ensemble of three and three postkeeperd before it, all real, on free ports of the loopback interface."""

import pathlib
import re
import shutil
import socket
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "support"))

from postkeeperd import clean_environment, find_program  # noqa: E402
from processes import POLL_S, Process, free_ports  # noqa: E402

JARS = ("/usr/share/java/zookeeper.jar",)
SIZE = 3
HEAP_MIB = 256
TICK_MS = 500
# Ticks that a follower may take to find its leader and to keep up with it: generous, since machines stand still.
PATIENCE_TICKS = 100
START_TIMEOUT_S = 240
STOP_TIMEOUT_S = 120


def wait_until(condition, what, timeout_s, alive=()):
    """Until the condition holds; RuntimeError if it does not in time, or if one of these processes ends meanwhile."""
    give_up_at = time.monotonic() + timeout_s
    while not condition():
        for process in alive:
            process.check_alive()
        if time.monotonic() > give_up_at:
            raise RuntimeError(f"{what}: not within {timeout_s} s")
        time.sleep(POLL_S)


def role_at(port):
    """leader, follower, standalone; "" if it does not serve."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=2) as connection:
            connection.sendall(b"srvr")
            answer = b""
            while part := connection.recv(4096):
                answer += part
    except OSError:
        return ""
    found = re.search(rb"^Mode: (\w+)", answer, re.MULTILINE)
    return found[1].decode() if found else ""


def require_programs():
    """RuntimeError that says what is missing."""
    if shutil.which("java") is None:
        raise RuntimeError("there is no java. Install it: apt-get install default-jre-headless libzookeeper-java")
    for jar in JARS:
        if not pathlib.Path(jar).exists():
            raise RuntimeError(f"there is no {jar}. Install it: apt-get install libzookeeper-java")
    try:
        find_program("postkeeperd")
    except FileNotFoundError as error:
        raise RuntimeError(str(error)) from None


class Member(Process):
    """One ZooKeeper of the ensemble."""

    def __init__(self, number, ports, folder, is_lasting):
        """`ports` of all members: (client, peers, election) each."""
        home = folder / f"zookeeper-{number}"
        (home / "data").mkdir(parents=True)
        (home / "data/myid").write_text(f"{number}\n", encoding="ascii")
        lines = [f"tickTime={TICK_MS}", f"initLimit={PATIENCE_TICKS}", f"syncLimit={PATIENCE_TICKS}",
                 f"dataDir={home}/data", f"maxSessionTimeout={200 * TICK_MS}", "maxClientCnxns=0",
                 "admin.enableServer=false", "4lw.commands.whitelist=srvr"]
        lines += [f"server.{i}=127.0.0.1:{peers}:{election}:participant;127.0.0.1:{client}"
                  for i, (client, peers, election) in enumerate(ports, 1)]
        (home / "zoo.cfg").write_text("\n".join(lines) + "\n", encoding="ascii")
        self.port = ports[number - 1][0]
        # A killed process leaves its writes with the kernel, so no fsync is needed.
        command = ["java", f"-Xmx{HEAP_MIB}m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1",
                   "-Dzookeeper.forceSync=no", "-Dzookeeper.preAllocSize=1024", "-cp", ":".join(JARS),
                   "org.apache.zookeeper.server.quorum.QuorumPeerMain", home / "zoo.cfg"]
        super().__init__(f"zookeeper-{number}", command, folder / f"zookeeper-{number}.log", is_lasting=is_lasting)

    @property
    def address(self):
        return f"127.0.0.1:{self.port}"

    def role(self):
        return role_at(self.port)

    def wait_until_ready(self):
        wait_until(self.role, f"{self.name} serves", START_TIMEOUT_S, [self])


class Replica(Process):
    """One postkeeperd."""

    def __init__(self, number, port, zookeeper_hosts, folder, flags, is_lasting):
        home = folder / f"postkeeperd-{number}"
        home.mkdir(parents=True)
        self.port = port
        command = [find_program("postkeeperd"), "--listen", self.address, "--metrics-listen", "off", "--data-dir", home,
                   "--zookeeper", zookeeper_hosts, *flags]
        super().__init__(f"postkeeperd-{number}", command, folder / f"postkeeperd-{number}.log", clean_environment(),
                         is_lasting)

    @property
    def address(self):
        return f"127.0.0.1:{self.port}"

    def is_ready(self):
        return re.search(r"^\S+ info ready\b", self.log_of_this_life(), re.MULTILINE) is not None

    def wait_until_ready(self):
        wait_until(self.is_ready, f"{self.name} is ready", START_TIMEOUT_S, [self])


class Cluster:
    """Made with its files in `folder`; started by start(), ended by close(), which every user must reach.

    `zookeeper_hosts(number, addresses)` says under which addresses replica `number` finds the ensemble; by default
    where it is.
    """

    def __init__(self, folder, flags=(), replica_ports=None, zookeeper_hosts=None, is_lasting=False):
        self.folder = pathlib.Path(folder)
        numbers = range(1, SIZE + 1)
        ports = free_ports(3 * SIZE + (0 if replica_ports else SIZE))
        member_ports = [tuple(ports[3 * i:3 * i + 3]) for i in range(SIZE)]
        replica_ports = replica_ports or ports[3 * SIZE:]
        self.members = [Member(number, member_ports, self.folder, is_lasting) for number in numbers]
        hosts = zookeeper_hosts or (lambda number, addresses: ",".join(addresses))
        addresses = [member.address for member in self.members]
        self.replicas = [Replica(number, replica_ports[number - 1], hosts(number, addresses), self.folder, flags,
                                 is_lasting) for number in numbers]

    @property
    def processes(self):
        return [*self.members, *self.replicas]

    @property
    def zookeeper_hosts(self):
        return ",".join(member.address for member in self.members)

    def start(self, started=lambda process: None):
        """Returns when all are ready. `started` is told of each process at once."""
        for group in (self.members, self.replicas):
            for process in group:
                process.start()
                started(process)
            for process in group:
                process.wait_until_ready()

    def close(self):
        """Kills whatever runs."""
        for process in self.processes:
            process.kill()
