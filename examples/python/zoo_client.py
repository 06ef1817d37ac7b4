"""A connection to postkeeperd for programs that just want to hand tasks around; see zoo_server."""

import connection
from postkeeper.v1 import admin_pb2_grpc, message_pb2_grpc


class ZooClient:
    """A connection to the postkeeperd at `address` (default: POSTKEEPER_ADDRESS, else 127.0.0.1:7411).

    Raises ConnectionError if nobody answers there within connect_timeout_s. May be shared by threads.
    """

    def __init__(self, address=None, connect_timeout_s=10):
        self._channel = connection.open_channel(address)
        try:
            connection.require_server(self._channel, address, connect_timeout_s)
        except ConnectionError:
            self._channel.close()
            raise
        self.messages = message_pb2_grpc.MessageServiceStub(self._channel)
        self.admin = admin_pb2_grpc.AdminServiceStub(self._channel)

    def close(self):
        self._channel.close()
