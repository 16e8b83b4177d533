"""WebSocket over HTTP/2 (RFC 8441) with `h2` and `wsproto`, for `cargo xtask conformance websocket`.

python h2_peer.py call IP:PORT NAME...     asks the Service NAME of namespace shop; lines: `result NAME CASE RESULT`
"""

import asyncio
import sys

import h2.config
import h2.connection
import h2.events
import h2.settings
from wsproto.connection import Connection, ConnectionState, ConnectionType
from wsproto.events import BytesMessage, CloseConnection, Ping, Pong, TextMessage
from wsproto.extensions import PerMessageDeflate
from wsproto.handshake import client_extensions_handshake

import cases


class Socket:
    """A WebSocket on a connection of its own."""

    def __init__(self, reader, writer):
        self.reader = reader
        self.writer = writer
        self.http = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True, header_encoding="utf-8"))
        self.stream = 1
        self.response = None
        self.body = b""
        self.has_settings = False
        self.websocket = None
        self.is_over = False
        self.events = []
        self.parts = []
        self.protocol = None
        self.deflates = False

    async def open(self, authority, path, protocols, deflate):
        self.http.initiate_connection()
        await self.read_until(lambda: self.has_settings)
        if not self.http.remote_settings.enable_connect_protocol:
            raise RuntimeError("the server does not offer extended CONNECT")
        fields = [
            (":method", "CONNECT"),
            (":protocol", "websocket"),
            (":scheme", "http"),
            (":path", path),
            (":authority", authority),
            ("sec-websocket-version", "13"),
        ]
        offered = [PerMessageDeflate()] if deflate else []
        if protocols:
            fields.append(("sec-websocket-protocol", ", ".join(protocols)))
        for extension in offered:
            fields.append(("sec-websocket-extensions", f"{extension.name}; {extension.offer()}"))
        self.http.send_headers(self.stream, fields)
        await self.read_until(lambda: self.response is not None)
        if self.response[":status"] != "200":
            await self.read_until(lambda: self.is_over)
            raise cases.Refused(self.response[":status"], self.body.decode())
        accepted = self.response.get("sec-websocket-extensions", "")
        agreed = client_extensions_handshake([accepted] if accepted else [], offered)
        self.deflates = bool(agreed)
        self.protocol = self.response.get("sec-websocket-protocol")
        self.websocket = Connection(ConnectionType.CLIENT, agreed)
        self.feed(self.body)

    async def read_until(self, is_done):
        await self.flush()
        while not is_done():
            data = await self.reader.read(65536)
            if not data:
                self.is_over = True
                return
            for event in self.http.receive_data(data):
                self.handle(event)
            await self.flush()

    def handle(self, event):
        if isinstance(event, h2.events.RemoteSettingsChanged):
            self.has_settings = True
        elif isinstance(event, h2.events.ResponseReceived):
            self.response = dict(event.headers)
        elif isinstance(event, h2.events.DataReceived):
            self.http.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            if self.websocket is None:
                self.body += event.data
            else:
                self.feed(event.data)
        elif isinstance(event, (h2.events.StreamEnded, h2.events.StreamReset, h2.events.ConnectionTerminated)):
            self.is_over = True

    def feed(self, data):
        if data:
            self.websocket.receive_data(data)
        self.events.extend(self.websocket.events())

    async def flush(self):
        self.writer.write(self.http.data_to_send())
        await self.writer.drain()

    async def send_events(self, *events):
        data = b"".join(self.websocket.send(event) for event in events)
        while data:
            room = min(self.http.local_flow_control_window(self.stream), self.http.max_outbound_frame_size, len(data))
            if room == 0:
                # A window may also open while messages of the server come.
                await self.read_until(lambda: self.is_over or self.http.local_flow_control_window(self.stream) > 0)
                if self.is_over:
                    raise cases.Closed(1006, "")
                continue
            self.http.send_data(self.stream, data[:room])
            data = data[room:]
        await self.flush()

    async def send(self, message):
        await self.send_events(TextMessage(message) if isinstance(message, str) else BytesMessage(message))

    async def send_fragments(self, fragments):
        # wsproto takes a text in whole characters.
        text = b"".join(fragments).decode()
        events = [TextMessage(letter, message_finished=False) for letter in text[:-1]]
        await self.send_events(*events, TextMessage(text[-1]))

    async def next(self):
        await self.read_until(lambda: self.events or self.is_over)
        return self.events.pop(0) if self.events else None

    async def receive(self):
        while True:
            event = await self.next()
            if event is None:
                raise cases.Closed(1006, "")
            if isinstance(event, CloseConnection):
                if self.websocket.state == ConnectionState.REMOTE_CLOSING:
                    await self.send_events(event.response())
                raise cases.Closed(int(event.code), event.reason or "")
            if isinstance(event, Ping):
                await self.send_events(event.response())
            elif isinstance(event, (TextMessage, BytesMessage)):
                self.parts.append(event.data)
                if event.message_finished:
                    parts, self.parts = self.parts, []
                    return ("" if isinstance(event.data, str) else b"").join(parts)

    async def ping(self, data):
        await self.send_events(Ping(data.encode()))
        event = await self.next()
        while not isinstance(event, Pong):
            if event is None:
                raise cases.Closed(1006, "")
            event = await self.next()
        if bytes(event.payload) != data.encode():
            raise RuntimeError("a pong with other data")

    async def close(self, code, reason):
        await self.send_events(CloseConnection(code, reason))
        try:
            while True:
                await self.receive()
        except cases.Closed as end:
            return end.code

    def drop(self):
        self.writer.transport.abort()


async def call(host, port, names):
    async def dial(name, path, protocols, deflate):
        socket = Socket(*await asyncio.open_connection(host, port))
        try:
            await socket.open(f"{name}.shop.maesh:{port}", path, protocols, deflate)
        except BaseException:
            socket.drop()
            raise
        return socket

    await cases.run(dial, "wsproto", names)


_, address, *services = sys.argv[1:]
ip, number = address.rsplit(":", 1)
asyncio.run(call(ip, int(number), services))
