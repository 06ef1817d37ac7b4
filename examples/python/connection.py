"""The way to postkeeperd, as every example takes it: generated stubs, and a channel with the service's manners.

The stubs are made by protoc from the protos at the first import (packages protobuf-compiler, protobuf-compiler-grpc)
and kept in build/python/, one folder for each state of the protos.
"""

import hashlib
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

import grpc

ROOT = pathlib.Path(__file__).resolve().parents[2]
# Of the source tree or, where there is none around, of the installed package.
PROTOS = next(filter(pathlib.Path.is_dir, (ROOT / "protos", pathlib.Path("/usr/share/postkeeper/protos"))))
SERVICE_CONFIG = PROTOS / "postkeeper/v1/service_config.json"
DEFAULT_ADDRESS = "127.0.0.1:7411"
CONNECT_S = 10


def stubs_folder():
    """The folder of the generated stubs; makes them if they aren't there."""
    files = sorted((PROTOS / "postkeeper/v1").glob("*.proto"))
    digest = hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:16]
    folder = ROOT / "build/python" / digest
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        made = pathlib.Path(tempfile.mkdtemp(dir=folder.parent, prefix="making-"))
        try:
            subprocess.run(
                ["protoc", f"-I{PROTOS}", f"--python_out={made}", f"--grpc_python_out={made}",
                 f"--plugin=protoc-gen-grpc_python={shutil.which('grpc_python_plugin')}", *map(str, files)], check=True)
            os.rename(made, folder)
        except OSError:
            if not folder.is_dir():  # else another program was quicker, which is as good
                raise
        finally:
            shutil.rmtree(made, ignore_errors=True)
    return folder


sys.path.insert(0, str(stubs_folder()))


def default_address():
    return os.environ.get("POSTKEEPER_ADDRESS") or DEFAULT_ADDRESS


def open_channel(address=None):
    """A channel that retries what may be retried, balances over replicas, and notices when the other side is gone."""
    return grpc.insecure_channel(address or default_address(), options=[
        ("grpc.service_config", SERVICE_CONFIG.read_text(encoding="utf-8")),
        # postkeeperd allows a ping every 10 s, also without calls.
        ("grpc.keepalive_time_ms", 20_000),
        ("grpc.keepalive_timeout_ms", 10_000),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_pings_without_data", 0),
        # A server that restarts is found again soon.
        ("grpc.initial_reconnect_backoff_ms", 200),
        ("grpc.max_reconnect_backoff_ms", 2_000),
        # gRPC connects again only after it has resolved the name again, by default at most every 30 s.
        ("grpc.dns_min_time_between_resolutions_ms", 200),
        # postkeeperd is a neighbour; a web proxy in the environment is not the way to it.
        ("grpc.enable_http_proxy", 0),
    ])


def require_server(channel, address=None, timeout_s=CONNECT_S):
    """Raises ConnectionError if nobody answers within timeout_s. Calls would wait in silence until their deadline."""
    try:
        grpc.channel_ready_future(channel).result(timeout_s)
    except grpc.FutureTimeoutError:
        raise ConnectionError(
            f"cannot reach postkeeperd at {address or default_address()}. Is it running? Start it: postkeeperd") from None


def is_worth_repeating(error):
    """Whether a call or stream that ended with this may go well the next time: the way broke, or the service is full.

    For calls that are safe to repeat only, as those with a request_id are.
    """
    if error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED,
                        grpc.StatusCode.DEADLINE_EXCEEDED):
        return True
    # What gRPC itself says of a broken connection or a server that ends. The service gives details with what it says.
    is_of_service = any(key == "grpc-status-details-bin" for key, _ in error.trailing_metadata() or ())
    broken = (grpc.StatusCode.CANCELLED, grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN)
    return error.code() in broken and not is_of_service


def explain(error):
    """One line about a call that failed, or about a server that isn't there."""
    return f"{error.code().name}: {error.details()}" if isinstance(error, grpc.RpcError) else str(error)
