"""Links between replicas and the ensemble that can be slow, silent, refused or reset."""

import asyncio
import socket
import struct
import threading

CHUNK_BYTES = 64 * 1024
RESET_AT_CLOSE = struct.pack("ii", 1, 0)  # SO_LINGER: close sends a reset and drops what is unsent

# What a link does with its connections.
PASS = "pass"
DELAY = "delay"  # every piece, either way, by `delay_s`
HANG = "hang"  # nothing gets through; what was sent meanwhile does, late, when that is over
REFUSE = "refuse"  # connections end, and no new one is accepted
MUTE = "mute"  # requests get through, replies are lost; when that is over connections are reset


class Link:
    """One listener, one target. Belongs to the thread of `Proxies`."""

    def __init__(self, port, target_port):
        self.port, self.target_port = port, target_port
        self.mode, self.delay_s = PASS, 0.0
        self.may_pass = asyncio.Event()
        self.may_pass.set()
        self.writers = set()
        self.server = None
        self.touched = 0  # pieces and connections that a fault has met

    async def listen(self):
        self.server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)

    async def _serve(self, reader, writer):
        self.writers.add(writer)
        target = None
        try:
            target_reader, target = await asyncio.open_connection("127.0.0.1", self.target_port)
            self.writers.add(target)
            pumps = [asyncio.ensure_future(self._pump(reader, target, is_reply=False)),
                     asyncio.ensure_future(self._pump(target_reader, writer, is_reply=True))]
            _, left = await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
            for pump in left:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
        except OSError:
            pass
        finally:
            for one in (writer, target):
                if one is not None:
                    self._reset(one)

    async def _pump(self, reader, writer, is_reply):
        while piece := await reader.read(CHUNK_BYTES):
            if self.mode != PASS:
                self.touched += 1
            if self.mode == DELAY:
                await asyncio.sleep(self.delay_s)
            await self.may_pass.wait()
            if self.mode == MUTE and is_reply:
                continue
            writer.write(piece)
            await writer.drain()

    def _reset(self, writer):
        self.writers.discard(writer)
        transport_socket = writer.get_extra_info("socket")
        if transport_socket is not None and transport_socket.fileno() >= 0:
            transport_socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_AT_CLOSE)
        writer.transport.abort()

    def reset(self):
        for writer in list(self.writers):
            self.touched += 1
            self._reset(writer)

    async def set(self, mode, delay_s=0.0):
        was, self.mode, self.delay_s = self.mode, mode, delay_s
        if mode == HANG:
            self.may_pass.clear()
            self.touched += len(self.writers)
        else:
            self.may_pass.set()
        if was == MUTE or mode == REFUSE:
            self.reset()  # a stream with a hole in it must not go on
        if mode == REFUSE and self.server is not None:
            self.server.close()
            self.server = None
        elif mode != REFUSE and self.server is None:
            await self.listen()


class Proxies:
    """Links, each known by a key, in groups that fail together. Thread-safe; close() ends the thread behind it."""

    def __init__(self):
        self.loop = asyncio.new_event_loop()
        self.links = {}
        self.thread = threading.Thread(target=self.loop.run_forever, name="proxies", daemon=True)
        self.thread.start()

    def _do(self, coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result()

    def add(self, group, port, target_port):
        async def make():
            link = Link(port, target_port)
            await link.listen()
            self.links.setdefault(group, []).append(link)
        self._do(make())

    def set(self, group, mode, delay_s=0.0):
        async def change():
            for link in self.links[group]:
                await link.set(mode, delay_s)
        self._do(change())

    def reset(self, group):
        """Ends all connections; new ones are accepted."""
        async def change():
            for link in self.links[group]:
                link.reset()
        self._do(change())

    def touched(self, group):
        """How much of the traffic faults have met so far."""
        async def count():
            return sum(link.touched for link in self.links[group])
        return self._do(count())

    def close(self):
        async def end():
            for links in self.links.values():
                for link in links:
                    await link.set(REFUSE)
            others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)
        self._do(end())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()
        self.loop.close()
