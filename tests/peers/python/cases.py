"""The cases of `cargo xtask conformance websocket` that a client in Python runs, with whichever library.

A library is given as a function `dial(name, path, protocols=(), deflate=True)` that returns an open socket with
`send`, `send_fragments`, `receive`, `ping`, `close`, `protocol` and `deflates`, or raises `Refused`. What a case shows,
and its right result, is in xtask.
"""

import asyncio
import random
import urllib.parse

TEXT = "grüße, 世界 🦀"
REASON = "bye ü"
PING = "are you there"
LARGE = 1024 * 1024
MANY = 200
LIMIT = 10


class Refused(Exception):
    """The handshake was answered with another status."""

    def __init__(self, status, body):
        super().__init__(f"refused with {status}")
        self.status = status
        self.body = body


class Closed(Exception):
    """The end of a connection: the code and the reason of the peer's close frame, 1006 without one."""

    def __init__(self, code, reason):
        super().__init__(f"closed, code {code}")
        self.code = code
        self.reason = reason


def fragments(text):
    """Pieces of three bytes, which end within characters."""
    data = text.encode()
    return [data[at : at + 3] for at in range(0, len(data), 3)]


def _noise():
    """Pseudo-random bytes, so that compression does not make them few."""
    return random.Random(1).randbytes(LARGE)


def _noisy_text():
    return _noise().translate(bytes(32 + byte % 95 for byte in range(256))).decode()


async def _echo(socket, message):
    await socket.send(message)
    return await socket.receive()


async def _same(socket, message):
    return "same" if await _echo(socket, message) == message else "not the same"


async def _end(socket):
    try:
        while True:
            await socket.receive()
    except Closed as end:
        return end


async def _text(dial):
    return await _echo(await dial("/echo"), TEXT)


async def _binary(dial):
    sent = bytes(range(256))
    got = await _echo(await dial("/echo"), sent)
    return f"{len(got)} bytes" if got == sent else "other bytes"


async def _empty(dial):
    return f"{len(await _echo(await dial('/echo'), ''))} bytes"


async def _large_text(dial):
    return await _same(await dial("/echo"), _noisy_text())


async def _large_binary(dial):
    return await _same(await dial("/echo"), _noise())


async def _order(dial):
    socket = await dial("/echo")
    for number in range(MANY):
        await socket.send(str(number))
    for number in range(MANY):
        got = await socket.receive()
        if got != str(number):
            return f"{got} in place of {number}"
    return f"{MANY} in order"


async def _first(dial):
    return await (await dial("/first")).receive()


async def _subprotocol(dial):
    socket = await dial("/echo", protocols=["one", "two"])
    await _echo(socket, "a")
    return socket.protocol


async def _fragments_sent(dial):
    socket = await dial("/echo", deflate=False)
    await socket.send_fragments(fragments(TEXT))
    return await socket.receive()


async def _fragments_received(dial):
    return await _echo(await dial("/fragments", deflate=False), TEXT)


async def _ping_sent(dial):
    socket = await dial("/echo")
    await socket.ping(PING)
    return f"pong {PING}"


async def _ping_received(dial):
    return await (await dial("/ping")).receive()


async def _refused(dial):
    try:
        await dial("/refuse")
    except Refused as refusal:
        return f"{refusal.status} {refusal.body.strip()}"
    return "accepted"


async def _deflate(dial):
    socket = await dial("/echo", twin=True)
    negotiated = "negotiated" if socket.deflates else "not negotiated"
    result = await _same(socket, "maesh " * (LARGE // 6))
    await socket.close(1000, "")
    return f"{negotiated}, {result}"


async def _dropped(dial):
    socket = await dial("/drop")
    await socket.send("a")
    return str((await _end(socket)).code)


def _close_sent(code):
    async def case(dial, log_id):
        socket = await dial(f"/echo?id={log_id}-{code}")
        await _echo(socket, "a")
        return str(await socket.close(code, REASON))

    return case


def _close_received(code):
    async def case(dial):
        query = urllib.parse.urlencode({"code": code, "reason": REASON})
        end = await _end(await dial(f"/close?{query}"))
        return f"{end.code} {end.reason}"

    return case


CASES = {
    "text": _text,
    "binary": _binary,
    "empty": _empty,
    "large-text": _large_text,
    "large-binary": _large_binary,
    "order": _order,
    "first": _first,
    "subprotocol": _subprotocol,
    "fragments-sent": _fragments_sent,
    "fragments-received": _fragments_received,
    "ping-sent": _ping_sent,
    "ping-received": _ping_received,
    "refused": _refused,
    "deflate": _deflate,
    "dropped": _dropped,
}
for _code in (1000, 1001, 3000, 4999):
    CASES[f"close-{_code}-sent"] = _close_sent(_code)
    CASES[f"close-{_code}-received"] = _close_received(_code)


async def _run(dial, client, name, title, case):
    opened = []

    async def remembered(path, protocols=(), deflate=True, twin=False):
        socket = await dial(f"{name}-from-{client}" if twin else name, path, protocols, deflate)
        opened.append(socket)
        return socket

    arguments = [remembered, f"{client}-{name}"] if title.startswith("close-") and title.endswith("-sent") else [remembered]
    try:
        result = await asyncio.wait_for(case(*arguments), LIMIT)
    except Exception as error:
        result = f"failed: {error!r}"
    print("result", name, title, result, sep="\t", flush=True)
    for socket in opened:
        socket.drop()


async def run(dial, client, names):
    """Runs all cases against each Service of `names`, and prints a line for each."""
    for name in names:
        for title, case in CASES.items():
            await _run(dial, client, name, title, case)
