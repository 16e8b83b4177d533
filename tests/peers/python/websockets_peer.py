"""WebSocket with `websockets`, server and client, for `cargo xtask conformance websocket`.

python websockets_peer.py serve IP:PORT            lines: `close ID CODE REASON`
python websockets_peer.py call IP:PORT NAME...     asks the Service NAME of namespace shop; lines: `result NAME CASE RESULT`
"""

import asyncio
import sys
import urllib.parse

from websockets.asyncio.client import connect
from websockets.asyncio.server import serve
from websockets.exceptions import ConnectionClosed, InvalidStatus

import cases


async def answer(socket):
    url = urllib.parse.urlsplit(socket.request.path)
    query = dict(urllib.parse.parse_qsl(url.query))
    try:
        if url.path == "/first":
            await socket.send("first")
        elif url.path == "/ping":
            await (await socket.ping(cases.PING))
            await socket.send(f"pong {cases.PING}")
        elif url.path == "/close":
            await socket.close(int(query["code"]), query["reason"])
        while True:
            message = await socket.recv()
            if url.path == "/drop":
                socket.transport.abort()
            elif url.path == "/fragments":
                await socket.send(cases.fragments(message), text=True)
            else:
                await socket.send(message)
    except ConnectionClosed as end:
        code, reason = (end.rcvd.code, end.rcvd.reason) if end.rcvd else (1006, "")
        print("close", query.get("id"), code, reason, sep="\t", flush=True)


def refuse(connection, request):
    if request.path == "/refuse":
        return connection.respond(403, "no entry\n")
    return None


def subprotocol(connection, offered):
    # The library's own choice refuses callers that offer none.
    return next((name for name in ("two", "three") if name in offered), None)


async def serve_for_ever(host, port):
    async with serve(answer, host, port, process_request=refuse, select_subprotocol=subprotocol, max_size=None) as server:
        await server.serve_forever()


class Socket:
    def __init__(self, connection):
        self.connection = connection
        self.protocol = connection.subprotocol
        self.deflates = any(extension.name == "permessage-deflate" for extension in connection.protocol.extensions)
        self.send = connection.send

    async def send_fragments(self, fragments):
        await self.connection.send(fragments, text=True)

    async def receive(self):
        try:
            return await self.connection.recv()
        except ConnectionClosed as end:
            raise cases.Closed(*((end.rcvd.code, end.rcvd.reason) if end.rcvd else (1006, ""))) from None

    async def ping(self, data):
        await (await self.connection.ping(data))

    async def close(self, code, reason):
        await self.connection.close(code, reason)
        received = self.connection.protocol.close_rcvd
        return received.code if received else 1006

    def drop(self):
        self.connection.transport.abort()


async def call(host, port, names):
    async def dial(name, path, protocols, deflate):
        try:
            connection = await connect(
                f"ws://{name}.shop.maesh:{port}{path}",
                host=host,
                port=port,
                subprotocols=list(protocols) or None,
                compression="deflate" if deflate else None,
                max_size=None,
                proxy=None,
            )
        except InvalidStatus as error:
            raise cases.Refused(error.response.status_code, error.response.body.decode()) from None
        return Socket(connection)

    await cases.run(dial, "websockets", names)


mode, address, *services = sys.argv[1:]
ip, number = address.rsplit(":", 1)
asyncio.run(serve_for_ever(ip, int(number)) if mode == "serve" else call(ip, int(number), services))
