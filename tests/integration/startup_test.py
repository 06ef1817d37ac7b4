"""What postkeeperd says when it cannot start, and what becomes of its ZooKeeper when it ends."""

import contextlib
import os
import pathlib
import socket
import subprocess
import sys
import tempfile
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "support"))

from client import Client  # noqa: E402
from postkeeperd import Postkeeperd, clean_environment, find_program, until  # noqa: E402


def is_running(pid):
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


class StartupTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = folder.name

    def run_daemon(self, *flags, environment=None):
        """(exit code, stderr) of a postkeeperd that must end by itself."""
        done = subprocess.run([find_program("postkeeperd"), *flags], env=environment or clean_environment(),
                              stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30)
        self.assertEqual(done.stdout, "")
        return done.returncode, done.stderr

    def complaint(self, *flags, code=1, environment=None):
        """The one line with which it ends; events that were logged before do not count."""
        ended_with, text = self.run_daemon(*flags, environment=environment)
        self.assertEqual(ended_with, code, text)
        lines = [line for line in text.splitlines() if " info " not in line]
        self.assertEqual(len(lines), 1, text)
        return lines[0]

    @property
    def data(self):
        return f"{self.folder}/data"

    # A second postkeeperd on the same data directory names the first one, and leaves it alone.
    def test_data_directory_in_use(self):
        server = Postkeeperd()
        self.addCleanup(server.close)
        folder = f"{server.folder}/data"
        complaint = self.complaint("--listen", "127.0.0.1:0", "--metrics-listen", "off", "--data-dir", folder)
        pid = server.process.pid
        self.assertEqual(complaint, f"postkeeperd: the data directory {folder} is in use by process {pid}. Stop that "
                                    f"one (kill {pid}), or give this one a directory of its own: --data-dir DIR")
        client = Client(server.address)
        self.addCleanup(client.close)
        self.assertEqual(len(client.enqueue("q", "still here")), 1)

    # Started with its standard streams closed, it lends their numbers to no socket: the log would be written into it.
    def test_closed_standard_streams(self):
        process = subprocess.Popen(
            ["bash", "-c", 'exec "$@" <&- >&- 2>&-', "bash", find_program("postkeeperd"), "--listen", "127.0.0.1:0",
             "--metrics-listen", "off", "--data-dir", self.data], env=clean_environment())
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        folder = f"/proc/{process.pid}/fd"

        def sockets():
            names = {}
            for number in os.listdir(folder):
                with contextlib.suppress(FileNotFoundError):
                    names[int(number)] = os.readlink(f"{folder}/{number}")
            return names if any(name.startswith("socket:") for name in names.values()) else None

        names = until(sockets, "it has opened a socket", 60)
        self.assertEqual([names[number] for number in (0, 1, 2)], ["/dev/null"] * 3)
        process.terminate()
        self.assertEqual(process.wait(timeout=60), 0)

    # A taken port is named, with what to type instead; nothing of the data directory stays locked.
    def test_port_taken(self):
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            port = taken.getsockname()[1]
            flags = ["--listen", f"127.0.0.1:{port}", "--metrics-listen", "off", "--data-dir", self.data]
            for _ in range(2):
                self.assertEqual(self.complaint(*flags), f"postkeeperd: port {port} on 127.0.0.1 is taken. Choose "
                                                         "another: --listen 127.0.0.1:7500")
            flags = ["--metrics-listen", f"127.0.0.1:{port}", "--listen", "127.0.0.1:0", "--data-dir", self.data]
            self.assertIn(f"port {port} on 127.0.0.1 is taken. Choose another: --metrics-listen 127.0.0.1:",
                          self.complaint(*flags))

    # Two servers never share a port, also if both are postkeeperd.
    def test_port_taken_by_another_postkeeperd(self):
        server = Postkeeperd()
        self.addCleanup(server.close)
        complaint = self.complaint("--listen", server.address, "--metrics-listen", "off", "--data-dir", self.data)
        self.assertIn(f"port {server.address.rpartition(':')[2]} on 127.0.0.1 is taken", complaint)

    # An unknown key is an error wherever it stands, with a suggestion.
    def test_unknown_key(self):
        file = f"{self.folder}/postkeeper.toml"
        pathlib.Path(file).write_text('lissten = "127.0.0.1:1"\n', encoding="utf-8")
        for complaint in (self.complaint("--lissten", "127.0.0.1:1", code=2),
                          self.complaint("--config", file, code=2),
                          self.complaint(code=2, environment=clean_environment(POSTKEEPER_LISSTEN="127.0.0.1:1"))):
            self.assertRegex(complaint, r"^postkeeperd: .*lissten.* not (a )?known.*(?i:did you mean).*listen.*--help$|"
                                        r"^postkeeperd: .*LISSTEN.* not known.*(?i:did you mean).*LISTEN.*--help$")

    # A value that makes no sense is named with what is allowed.
    def test_bad_values(self):
        for flags, words in ((["--drain-timeout", "soon"], "'soon' is not a time"),
                             (["--drain-timeout", "0s"], "out of bounds: it is 1s to 1h"),
                             (["--listen", "7411"], "'7411' is not host:port"),
                             (["--advertise", "me:0"], "'me:0' is not host:port (such as 10.0.0.5:7411)"),
                             (["--zookeeper", "nowhere"], "'nowhere' is not host:port"),
                             (["--config", "/nowhere/at/all"], "/nowhere/at/all")):
            self.assertIn(words, self.complaint(*flags, code=2))

    # Every address cannot be advertised, since nobody can connect to it; the line says what to type.
    def test_advertising_every_address(self):
        for host in ("0.0.0.0", "[::]"):
            self.assertEqual(self.complaint("--listen", "0.0.0.0:0", "--advertise", f"{host}:7500", code=2),
                             f"postkeeperd: --advertise {host}:7500 means every address, and nobody can connect to that. "
                             "Name one by which the other replicas reach this host (such as --advertise 10.0.0.5:7500), "
                             "or leave it out")

    # Where the data cannot be, the line says so and what to do.
    def test_bad_data_directory(self):
        file = pathlib.Path(self.folder) / "file"
        file.write_text("x")
        self.assertIn("is not a directory. Choose another data directory: --data-dir DIR",
                      self.complaint("--listen", "127.0.0.1:0", "--metrics-listen", "off", "--data-dir", str(file)))

    # --print-config shows every value and where it came from.
    def test_print_config(self):
        done = subprocess.run([find_program("postkeeperd"), "--print-config", "--threads", "3"], text=True, timeout=30,
                              capture_output=True, env=clean_environment(POSTKEEPER_LOG_LEVEL="debug"))
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assertRegex(done.stdout, r'(?m)^threads = "3" +# flag$')
        self.assertRegex(done.stdout, r'(?m)^log-level = "debug" +# environment$')
        self.assertRegex(done.stdout, r'(?m)^listen = "127.0.0.1:7411" +# default$')

    # The embedded ZooKeeper ends with its parent, however that ends.
    def test_zookeeper_ends_with_its_parent(self):
        server = Postkeeperd()
        self.addCleanup(server.close)
        for end in (server.kill, server.stop):
            pid = server.zookeeper_pid()
            self.assertTrue(is_running(pid))
            end()
            until(lambda pid=pid: not is_running(pid), "ZooKeeper has ended", 10)
            server.start()

    # Asked to stop before it is up, it stops, and leaves nothing running.
    def test_stopped_while_it_starts(self):
        server = Postkeeperd(waits=False)
        self.addCleanup(server.close)
        self.assertEqual(server.stop(), 0)
        self.assertEqual([entry for entry in os.listdir("/proc") if entry.isdigit() and is_running(int(entry)) and
                          str(server.folder) in pathlib.Path(f"/proc/{entry}/cmdline").read_text()], [])


if __name__ == "__main__":
    unittest.main()
