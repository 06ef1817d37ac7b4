#!/usr/bin/python3
"""The ensemble is known by a name whose address changes while postkeeperd runs, as pods get new ones: postkeeperd finds it
again, keeps its session, and nothing is lost. Runs itself in a mount namespace of its own, with its own /etc/hosts."""

import os
import pathlib
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "support"))

from client import Client, bodies, grpc, until  # noqa: E402
from postkeeperd import Postkeeperd  # noqa: E402
from zookeeper import Zookeeper  # noqa: E402

NAME = "ensemble.test"
ADDRESSES = ("127.0.0.2", "127.0.0.3", "127.0.0.4")
PATIENCE_S = 30


def answered(call):
    """What it answers; None while ZooKeeper is away."""
    try:
        return call()
    except grpc.RpcError as error:
        assert error.code() == grpc.StatusCode.UNAVAILABLE, error
        return None


def main(hosts_file):
    def name(address):
        hosts_file.write_text(f"127.0.0.1 localhost\n{address} {NAME}\n", encoding="utf-8")

    name(ADDRESSES[0])
    zookeeper = Zookeeper(address=ADDRESSES[0])
    server = None
    try:
        server = Postkeeperd("--zookeeper", f"{NAME}:{zookeeper.port}", "--session-timeout", "20s")
        client = Client(server.address)
        client.create_queue("q")
        client.enqueue("q", ADDRESSES[0], request_id=ADDRESSES[0])
        sessions = zookeeper.ephemerals().keys()
        assert len(sessions) == 1, sessions
        for address in ADDRESSES[1:]:
            zookeeper.kill()
            zookeeper.address = address
            name(address)
            zookeeper.start()
            began = time.monotonic()
            until(lambda at=address: answered(lambda: client.enqueue("q", at, request_id=at)),
                  f"postkeeperd has found {NAME} at {address}", PATIENCE_S)
            print(f"found at {address} after {time.monotonic() - began:.1f} s", flush=True)
        assert zookeeper.ephemerals().keys() == sessions, "it is another session"
        found = bodies(client.drain("q"))
        assert found == list(ADDRESSES), found
    finally:
        if server is not None:
            server.close()
        zookeeper.close()


if __name__ == "__main__":
    if len(sys.argv) == 1:
        with tempfile.NamedTemporaryFile(prefix="postkeeper-hosts-") as own:
            os.chmod(own.name, 0o644)
            sys.exit(subprocess.run(["unshare", "--map-root-user", "--mount", sys.executable, __file__, own.name],
                                    check=False).returncode)
    subprocess.run(["mount", "--bind", sys.argv[1], "/etc/hosts"], check=True)
    main(pathlib.Path(sys.argv[1]))
