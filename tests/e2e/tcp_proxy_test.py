"""The proxy between replicas and the ensemble does to connections what its faults say."""

import pathlib
import queue
import socket
import sys
import threading
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "support"))

import tcp_proxy  # noqa: E402
from processes import free_ports  # noqa: E402
from tcp_proxy import Proxies  # noqa: E402

TIMEOUT_S = 60
QUIET_S = 0.3  # in which nothing comes


class ProxyTest(unittest.TestCase):
    """`self.heard` has what the target was sent; it sends everything back."""

    def setUp(self):
        self.heard = queue.Queue()
        self.target = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(self.target.close)
        threading.Thread(target=self.serve, daemon=True).start()
        self.proxies = Proxies()
        self.addCleanup(self.proxies.close)
        self.port = free_ports(1)[0]
        self.proxies.add("r", self.port, self.target.getsockname()[1])

    def serve(self):
        while True:
            try:
                connection, _ = self.target.accept()
            except OSError:
                return
            threading.Thread(target=self.echo, args=(connection,), daemon=True).start()

    def echo(self, connection):
        try:
            while data := connection.recv(100):
                self.heard.put(data)
                connection.sendall(data)
        except OSError:
            pass
        connection.close()

    def connect(self):
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=TIMEOUT_S)
        self.addCleanup(connection.close)
        return connection

    def assert_echo(self, connection, data):
        connection.sendall(data)
        self.assertEqual(connection.recv(100), data)

    def assert_nothing_comes(self, connection):
        connection.settimeout(QUIET_S)
        with self.assertRaises(TimeoutError):
            connection.recv(100)
        connection.settimeout(TIMEOUT_S)

    def assert_reset(self, connection):
        with self.assertRaises(ConnectionResetError):
            connection.recv(100)

    # Without a fault all passes, and no fault is counted; a slow link passes all, and is.
    def test_pass_and_delay(self):
        connection = self.connect()
        self.assert_echo(connection, b"a")
        self.assertEqual(self.proxies.touched("r"), 0)
        self.proxies.set("r", tcp_proxy.DELAY, 0.01)
        self.assert_echo(connection, b"b")
        self.assertGreaterEqual(self.proxies.touched("r"), 2)

    # A silent link gives nothing, and everything once it is over, on the same connection.
    def test_hang(self):
        connection = self.connect()
        self.assert_echo(connection, b"a")
        self.proxies.set("r", tcp_proxy.HANG)
        connection.sendall(b"b")
        self.assert_nothing_comes(connection)
        self.proxies.set("r", tcp_proxy.PASS)
        self.assertEqual(connection.recv(100), b"b")
        self.assertGreater(self.proxies.touched("r"), 0)

    # A refused link ends what there is and lets nobody in, until it is over.
    def test_refuse(self):
        connection = self.connect()
        self.assert_echo(connection, b"a")
        self.proxies.set("r", tcp_proxy.REFUSE)
        self.assert_reset(connection)
        with self.assertRaises(ConnectionRefusedError):
            self.connect()
        self.proxies.set("r", tcp_proxy.PASS)
        self.assert_echo(self.connect(), b"b")

    # A reset ends what there is; new connections are accepted at once.
    def test_reset(self):
        connection = self.connect()
        self.assert_echo(connection, b"a")
        self.proxies.reset("r")
        self.assert_reset(connection)
        self.assert_echo(self.connect(), b"b")
        self.assertGreater(self.proxies.touched("r"), 0)

    # Of a link that loses replies the target hears everything and the client nothing; then the connection is reset.
    def test_mute(self):
        connection = self.connect()
        self.assert_echo(connection, b"a")
        self.assertEqual(self.heard.get(timeout=TIMEOUT_S), b"a")
        self.proxies.set("r", tcp_proxy.MUTE)
        connection.sendall(b"b")
        self.assertEqual(self.heard.get(timeout=TIMEOUT_S), b"b")
        self.assert_nothing_comes(connection)
        self.proxies.set("r", tcp_proxy.PASS)
        self.assert_reset(connection)


if __name__ == "__main__":
    unittest.main()
