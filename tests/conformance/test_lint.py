"""The responses of the library and of the examples, read by the linter of others.

httplint is the checker that redbot.org uses. Its notes have four levels. One of the level
*bad* is an error, and fails here; so does any other that is not listed with its reason.
"""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import h11
import pytest
import trio
from httplint.message import HttpResponseLinter
from httplint.note import levels

from trio_upgrade import Limits, Response, Tunnel, Upgrade, serve_stream
from trio_upgrade.proxy import ForwardProxy
from trio_upgrade.testing import ScriptedPeer

from ..apps import echo
from ..interop.programs import EXAMPLES
from ..wire import UP, get
from .wires import CONNECT

if TYPE_CHECKING:
    from pathlib import Path

    from trio_upgrade import Request
    from trio_upgrade._server.response import App

# The notes of the other levels that our responses get, and why they may stay.
ACCEPTED = {
    "CL_CORRECT": "is praise",
    "DATE_CLOCKLESS": "a 1xx needs no Date (RFC 9110 §6.6.1)",
    "FRESHNESS_HEURISTIC": "the app says how long its content is fresh, not the library",
    "FRESHNESS_NONE": "says that there is nothing to say about caching",
    "STORABLE": "the app says what a cache may store, not the library",
}


class Case(NamedTuple):
    """Requests, and the statuses of the responses to them.

    Attributes:
        statuses: All statuses that are sent, 1xx too.
        packets: The requests.
        then: What comes after the packets; see ScriptedPeer.
    """

    statuses: list[int]
    packets: list[bytes]
    then: Literal["end", "silence"] = "end"


def change_method(method: bytes, request: bytes) -> bytes:
    return request.replace(b"GET", method, 1)


BIG = 4000 * "a"
LIMITS = Limits(
    linger=0, body_bytes=1000, header_bytes=4000, response_timeout=1, header_timeout=2
)
READ = change_method(b"POST", get("/read", "Expect: 100-continue", "Content-Length: 1"))
CHUNKED_REQUEST = change_method(b"POST", get("/read", "Transfer-Encoding: chunked"))

# The library's own responses, then every way to send those of an app.
CASES = {
    "no Host": Case([400], [b"GET / HTTP/1.1\r\n\r\n"]),
    "refusal of HEAD": Case([400], [b"HEAD / HTTP/1.1\r\n\r\n"]),
    "broken chunk": Case([400], [CHUNKED_REQUEST + b"x\r\n"]),
    "slow request": Case([408], [b"GET / HTTP/1.1\r\n"], "silence"),
    "body too large": Case([413], [CHUNKED_REQUEST + b"fff\r\n" + bytes(0xFFF)]),
    "target too long": Case([414], [get("/" + BIG)]),
    "unknown expectation": Case([417], [get("/", "Expect: more")]),
    "scheme of TLS": Case([421], [get("https://x/")]),
    "no offer": Case([426], [get("/u")]),
    "fields too long": Case([431], [get("/", "A: " + BIG)]),
    "bug": Case([500], [get("/bug")]),
    "unknown coding": Case([501], [get("/", "Transfer-Encoding: gzip, chunked")]),
    "slow app": Case([503], [get("/slow")], "silence"),
    "version": Case([505], [b"GET / HTTP/2.0\r\nHost: x\r\n\r\n"]),
    "expected 100": Case([100, 200], [READ, b"a"]),
    "switch": Case([101], [UP]),
    "tunnel": Case([200], [CONNECT]),
    "length": Case([200], [get("/")]),
    "text": Case([200], [get("/text")]),
    "chunks": Case([200], [get("/chunks")]),
    "until the end": Case([200], [get("/chunks").replace(b"HTTP/1.1", b"HTTP/1.0")]),
    "no content": Case([204], [get("/204")]),
    "reset content": Case([205], [get("/205")]),
    "not modified": Case([304], [get("/304")]),
    "HEAD": Case([200], [change_method(b"HEAD", get("/"))]),
    "HEAD of chunks": Case([200], [change_method(b"HEAD", get("/chunks"))]),
    "two": Case([200, 200], [get("/") + get("/")]),
    "last": Case([200], [get("/", "Connection: close")]),
}


async def app(request: Request) -> Response | Upgrade | Tunnel:
    async def chunks():
        yield b"one"
        yield b"two"

    match request.path:
        case "":
            return Tunnel(echo)
        case "/u":
            return Upgrade("echo", echo)
        case "/read":
            await request.read()
        case "/bug":
            raise RuntimeError
        case "/slow":
            await trio.sleep_forever()
        case "/chunks":
            return Response(200, chunks(), {"Content-Type": "text/plain"})
        case "/text":
            return Response(200, "text")
        case "/204" | "/205" | "/304":
            return Response(int(request.path[1:]))
    return Response(200, b"bytes", {"Content-Type": "text/plain"})


def lint(method: str, data: bytes) -> list[HttpResponseLinter]:
    """Return what the linter says of each response; the requests had this method."""
    found: list[HttpResponseLinter] = []
    while data:
        parser = h11.Connection(h11.CLIENT)
        target = "a:1" if method == "CONNECT" else "/"
        fields = [("Host", "x"), ("Upgrade", "echo"), ("Connection", "Upgrade")]
        parser.send(h11.Request(method=method, target=target, headers=fields))
        parser.send(h11.EndOfMessage())
        parser.receive_data(data)
        parser.receive_data(b"")
        while isinstance(event := parser.next_event(), h11.Event):
            if isinstance(event, h11.Response | h11.InformationalResponse):
                linter = HttpResponseLinter()
                linter.is_head_response = method == "HEAD"
                status = b"%d" % event.status_code
                linter.process_response_topline(b"1.1", status, event.reason)
                linter.process_headers([*event.headers.raw_items()])
                found.append(linter)
                is_tunnel = method == "CONNECT" and event.status_code < 300
                if is_tunnel or isinstance(event, h11.InformationalResponse):
                    linter.finish_content(complete=True)
            elif isinstance(event, h11.Data):
                linter.feed_content(bytes(event.data))
            elif isinstance(event, h11.EndOfMessage):
                linter.finish_content(complete=True, trailers=[*event.headers])
                break
        data = parser.trailing_data[0]
    return found


async def check(app: App, case: Case) -> None:
    """Serve an app; fail if a response has an error."""
    peer = ScriptedPeer(*case.packets, then=case.then)
    await serve_stream(app, peer, limits=LIMITS)
    method = case.packets[0].split(b" ")[0].decode()
    linters = lint(method, bytes(peer.sent))

    assert [linter.status_code for linter in linters] == case.statuses
    for linter in linters:
        for note in linter.notes:
            shown = f"{linter.status_code}: {note.subject}: {note.summary}"
            assert note.level is not levels.BAD, shown
            assert type(note).__name__ in ACCEPTED, shown


def test_errors_are_found() -> None:
    """The linter sees our fields: it finds a malformed one."""
    (linter,) = lint("GET", b"HTTP/1.1 204 x\r\nDate: today\r\n\r\n")

    assert "BAD_DATE_SYNTAX" in [type(note).__name__ for note in linter.notes]
    assert levels.BAD in [note.level for note in linter.notes]


@pytest.mark.parametrize("case", CASES.values(), ids=[*CASES])
async def test_response(case: Case, autojump_clock) -> None:
    """No response has an error, whether the library made it or the app."""
    await check(app, case)


################################################################
# Examples
################################################################


def load(name: str) -> Any:
    """Import an example."""
    spec = importlib.util.spec_from_file_location(f"examples_{name}", path(name))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def path(name: str) -> Path:
    return EXAMPLES / f"{name}.py"


OFFER = get("/", "Connection: Upgrade", "Upgrade: websocket")


@pytest.mark.parametrize(
    ("name", "case"),
    [
        ("echo_pair", Case([200], [get("/")])),
        ("echo_pair", Case([101], [OFFER])),
        ("echo_server", Case([200], [get("/")])),
        ("echo_server", Case([101], [UP])),
        ("workers", Case([200], [get("/")])),
        ("workers", Case([101], [UP])),
    ],
)
async def test_response_of_an_example(name: str, case: Case, autojump_clock) -> None:
    """No response of an example has an error."""
    await check(load(name).app, case)


@pytest.mark.parametrize(
    ("connect_timeout", "case"),
    [
        (10, Case([400], [get("/")])),
        (10, Case([403], [b"CONNECT a:22 HTTP/1.1\r\nHost: a:22\r\n\r\n"])),
        (10, Case([403], [b"CONNECT 10.0.0.1:1 HTTP/1.0\r\n\r\n"])),
        (10, Case([502], [b"CONNECT 127.0.0.1:1 HTTP/1.0\r\n\r\n"])),
        (0, Case([504], [b"CONNECT 127.0.0.1:1 HTTP/1.0\r\n\r\n"])),
    ],
)
async def test_response_of_the_proxy(connect_timeout: float, case: Case) -> None:
    """The refusals of the proxy that opens tunnels have no error."""
    proxy = ForwardProxy(
        ports=(1,), networks=["127.0.0.0/8"], connect_timeout=connect_timeout
    )

    await check(proxy, case)
