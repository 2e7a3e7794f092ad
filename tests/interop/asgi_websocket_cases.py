# An application of WebSockets and a list of what clients do, by which three servers are
# compared.  It runs under asyncio as well as under Trio, so it awaits nothing else.
from __future__ import annotations

import json
from contextlib import suppress
from typing import Any, NamedTuple

from websockets.frames import Opcode

from ..websocket.wires import FIELDS, UPGRADE, masked, plain
from ..wire import get

# The disconnect messages that the application received, by the query of the offer.
disconnects: dict[str, Any] = {}


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Do what the first segment of the path says; to HTTP answer with a disconnect."""
    name = scope["query_string"].decode()
    if scope["type"] == "http":
        content = json.dumps(disconnects.get(name)).encode()
        fields = [(b"content-length", b"%d" % len(content)), (b"connection", b"close")]
        await send({"type": "http.response.start", "status": 200, "headers": fields})
        await send({"type": "http.response.body", "body": content})
        return
    try:
        await _behave(scope, receive, send, *scope["path"].strip("/").split("/"))
        message = await receive()
        while message["type"] != "websocket.disconnect":
            message = await receive()
        disconnects[name] = [message["code"], message.get("reason") or ""]
    finally:
        disconnects.setdefault(name, "failed")


async def _behave(scope: Any, receive: Any, send: Any, kind: str, *words: str) -> None:
    await receive()
    if kind == "forbid":
        await send({"type": "websocket.close", "code": 4000, "reason": "why"})
    elif kind == "deny":
        await _deny(send, *words)
    elif kind == "fail":
        raise LookupError
    elif kind == "return":
        _stop()
    else:
        await _open(scope, receive, send, kind, *words)


def _stop() -> None:
    # Without a further message.
    raise _ReturnedError


class _ReturnedError(Exception):
    pass


async def _deny(send: Any, status: str, how: str) -> None:
    fields = [(b"content-type", b"text/plain"), (b"x-a", b"1")]
    if how == "length":
        fields.append((b"content-length", b"4"))
    start = {"status": int(status), "headers": fields}
    await send({"type": "websocket.http.response.start", **start})
    pieces = [b"one", b"two"] if how == "pieces" else [b"okay"]
    for number, piece in enumerate(pieces, 1):
        more = number < len(pieces)
        body = {"body": piece, "more_body": more}
        await send({"type": "websocket.http.response.body", **body})


async def _open(scope: Any, receive: Any, send: Any, kind: str, *words: str) -> None:
    accept: dict[str, Any] = {"type": "websocket.accept"}
    if kind == "subprotocol":
        accept["subprotocol"] = words[0]
    if kind == "fields":
        accept["headers"] = [
            (b"x-a", b"1"),
            (b"set-cookie", b"a"),
            (b"set-cookie", b"b"),
        ]
    await send(accept)
    if kind in ("fields", "subprotocol"):
        await send({"type": "websocket.close"})
    elif kind == "close":
        code = {"code": int(words[0])} if words else {}
        reason = {"reason": words[1]} if len(words) > 1 else {}
        await send({"type": "websocket.close", **code, **reason})
    elif kind == "send":
        await send({"type": "websocket.send", "text": "é"})
        await send({"type": "websocket.send", "bytes": b"\0", "text": None})
        await send({"type": "websocket.close"})
    elif kind == "echo":
        message = await receive()
        await send({**message, "type": "websocket.send"})
        await send({"type": "websocket.close"})
    elif kind == "scope":
        shown = {
            name: scope[name]
            for name in ("type", "scheme", "http_version", "path", "root_path")
        }
        shown["subprotocols"] = list(scope["subprotocols"])
        shown["extensions"] = scope["extensions"]
        shown["raw_path"] = scope["raw_path"].decode()
        shown["headers"] = [
            [name.decode(), value.decode()] for name, value in scope["headers"]
        ]
        text = json.dumps(shown, sort_keys=True)
        await send({"type": "websocket.send", "text": text})
        await send({"type": "websocket.close"})
    elif kind == "bug":
        raise LookupError
    elif kind == "leave":
        raise _ReturnedError


async def returning(scope: Any, receive: Any, send: Any) -> None:
    """Call the application, which may end early without an error."""
    with suppress(_ReturnedError):
        await app(scope, receive, send)


class Case(NamedTuple):
    """What a client does: it sends frames after the 101, and may then be gone."""

    offer: bytes
    frames: bytes = b""
    cut: bool = False


def _offer(target: str, name: str, *fields: str) -> bytes:
    return get(f"{target}?{name.replace(' ', '-')}", *FIELDS, *fields)


def make_cases() -> dict[str, Case]:
    """Return the cases by their names."""
    cases: dict[str, Case] = {}

    def add(
        name: str, target: str, *fields: str, frames: bytes = b"", cut=False
    ) -> None:
        cases[name] = Case(_offer(target, name, *fields), frames, cut)

    def closing(data: bytes) -> bytes:
        return masked(data, Opcode.CLOSE)

    for code in ("1000", "1001", "1011", "3000", "4999", "1000/why"):
        add(f"close {code}", f"/close/{code}")
    add("close default", "/close")
    # Not on two lines: hypercorn sees the last line only, and an application that chooses
    # of the first one ends its server.
    protocols = ("Sec-WebSocket-Protocol: a, b,c",)
    for word in ("a", "c"):
        add(f"subprotocol {word}", f"/subprotocol/{word}", *protocols)
    add("subprotocol foreign", "/subprotocol/d", *protocols)
    add("fields", "/fields")
    add("forbid", "/forbid")
    for status in ("200", "401", "404", "503", "204"):
        for how in ("length", "pieces", "one"):
            add(f"deny {status} {how}", f"/deny/{status}/{how}")
    add("fail", "/fail")
    add("return", "/return")
    add("bug", "/bug")
    add("leave", "/leave")
    add("send", "/send")
    add("scope", "/scope/a%20b", *protocols)
    add("deflate", "/send", "Sec-WebSocket-Extensions: permessage-deflate")
    for name, frames in {
        "text": masked("é"),
        "binary": masked(b"\xff"),
        "empty": masked(""),
        "big": masked(b"x" * 70_000),
    }.items():
        add(f"echo {name}", "/echo", frames=frames)
    fragments = (
        bytes([masked("ab")[0] & 0x7F]) + masked("ab")[1:],
        b"\x80" + masked("cd")[1:],
    )
    add("echo fragments", "/echo", frames=b"".join(fragments))
    for code, data in {
        "1000": b"\x03\xe8",
        "1001": b"\x03\xe9bye",
        "4000": b"\x0f\xa0bye",
        "none": b"",
        "1005": b"\x03\xed",
        "short": b"\x03",
    }.items():
        add(f"peer {code}", "/wait", frames=closing(data))
    add("cut", "/wait", cut=True)
    add("cut message", "/wait", frames=masked("Hello")[:4], cut=True)
    add("unmasked", "/wait", frames=plain("x"))
    add("reserved", "/wait", frames=b"\x83" + masked("x")[1:])
    add("bad utf-8", "/wait", frames=b"\x81" + masked(b"\xff")[1:])
    for name, fields in {
        "no key": (*UPGRADE, FIELDS[3]),
        "short key": (*UPGRADE, "Sec-WebSocket-Key: x", FIELDS[3]),
        "no version": FIELDS[:3],
        "version 8": (*FIELDS[:3], "Sec-WebSocket-Version: 8"),
    }.items():
        cases[f"handshake {name}"] = Case(get("/close", *fields))
    cases["handshake post"] = Case(get("/close", *FIELDS).replace(b"GET", b"POST"))
    return cases
