"""The chart's zoo.cfg makes an ensemble on which postkeeperd serves, also with a member away.

Debian's ZooKeeper reads the file as it is rendered, but for what depends on the place: the folder of the data, and
addresses, which are ports of loopback here.
"""

import pathlib
import re
import signal
import subprocess
import sys
import tempfile
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "support"))

import charts  # noqa: E402
from postkeeperd import Postkeeperd, until  # noqa: E402
from zookeeper import JAR, LIBC, PR_SET_PDEATHSIG, Zookeeper, free_port  # noqa: E402


class Member:
    """One server of the ensemble. Started by the constructor, ended by close()."""

    ask = Zookeeper.ask
    serves = Zookeeper.serves

    def __init__(self, folder, number, configuration, port):
        self.address = "127.0.0.1"
        self.port = port
        data = folder / f"member-{number}"
        data.mkdir()
        (data / "myid").write_text(f"{number}\n")
        file = folder / f"zoo-{number}.cfg"
        file.write_text(configuration.replace("dataDir=/data", f"dataDir={data}"))
        with open(folder / f"output-{number}", "wb") as out:
            self.process = subprocess.Popen(
                ["java", "-Xmx128m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp", JAR,
                 "org.apache.zookeeper.server.quorum.QuorumPeerMain", file],
                stdin=subprocess.DEVNULL, stdout=out, stderr=out,
                preexec_fn=lambda: LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL))

    def close(self):
        self.process.kill()
        self.process.wait()


class EnsembleTest(unittest.TestCase):
    # Three members find one another, have the settings that postkeeper needs, and serve with one of them killed.
    def test_serves(self):
        text = charts.find(charts.render({}), "ConfigMap", "pk-postkeeper-zookeeper")["data"]["zoo.cfg"]
        # On this machine every address is more than loopback.
        self.assertIn("quorumListenOnAllIPs=true\n", text)
        text = text.replace("quorumListenOnAllIPs=true\n", "")
        client_ports = []

        def local(match):
            client_ports.append(free_port())
            return f"server.{match[1]}=127.0.0.1:{free_port()}:{free_port()};127.0.0.1:{client_ports[-1]}"

        text = re.sub(r"server\.(\d+)=[\w.-]+:2888:3888;2181", local, text)
        self.assertEqual(len(client_ports), 3)
        with tempfile.TemporaryDirectory() as folder:
            members = [Member(pathlib.Path(folder), number, text, port) for number, port in enumerate(client_ports, 1)]
            for member in members:
                self.addCleanup(member.close)
            for member in members:
                until(member.serves, f"the member at {member.port} serves", 120)
            settings = members[0].ask("conf")
            for line in ("tickTime=500", "minSessionTimeout=2000", "maxSessionTimeout=60000", "initLimit=120", "syncLimit=10"):
                self.assertIn(f"{line}\n", settings)
            server = Postkeeperd("--zookeeper", ",".join(f"127.0.0.1:{port}" for port in client_ports))
            self.addCleanup(server.close)
            server.cli("queue", "create", "loaves")
            server.cli("enqueue", "loaves", "one loaf", "another loaf")
            self.assertEqual(server.cli("dequeue", "loaves", "--ack").strip(), "one loaf")
            members[0].close()
            self.assertEqual(server.cli("dequeue", "loaves", "--ack", "--wait", "30s").strip(), "another loaf")


if __name__ == "__main__":
    unittest.main()
