"""The requests of one connection by themselves: what the session is told of each end."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import pytest
import trio

from trio_upgrade import (
    EndReason,
    Limits,
    Request,
    Response,
    Tunnel,
    Upgrade,
    UsageError,
)
from trio_upgrade._server.request_loop import RequestLoop
from trio_upgrade._server.server import Server
from trio_upgrade._server.state import ServerState
from trio_upgrade.testing import ScriptedPeer

from ..apps import echo
from ..wire import SWITCHED, UP, get, okay

if TYPE_CHECKING:
    from trio_upgrade._server.session import Session


class Told:
    """In the place of a session: keeps what it is told."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream = stream
        self.scope = trio.CancelScope()
        self.abort = False
        self.idle = True
        self.requests = 0
        self.protocol: str | None = None
        self.reason = EndReason.CANCELLED
        self.given_up: list[tuple[str, bool, bool]] = []
        self.reported: list[Exception] = []

    def give_up(
        self, request: Request, exc: BaseException, *, lost: bool, switched: bool
    ) -> None:
        self.given_up.append((type(exc).__name__, lost, switched))

    def report(self, request: Request, errors: Exception) -> None:
        self.reported.append(errors)

    def head_awaited(self) -> None: ...

    def head_began(self) -> None: ...

    def head_ended(self) -> None: ...

    def expire(self, reason: EndReason) -> None: ...


async def run(
    app, *packets: bytes, limits: Limits | None = None, drains: bool = False
) -> tuple[RequestLoop, Told, ScriptedPeer]:
    peer = ScriptedPeer(*packets)
    state = ServerState(
        limits or Limits(), strict=False, close_on_optimistic_data=False, observer=None
    )
    if drains:
        state.start_drain(None)
    told = Told(peer)
    loop = RequestLoop(cast("Session", told), app, Server((), state), state)
    await loop.run()
    return loop, told, peer


async def answer(request: Request) -> Response:
    return Response(200, b"okay")


class TestReason:
    """How the requests came to an end, and what was counted on the way."""

    async def test_peer(self) -> None:
        """The client made its requests, and ended its side."""
        _, told, peer = await run(answer, get("/") * 3)

        assert (told.reason, told.requests, told.idle) == (EndReason.PEER, 3, True)
        assert peer.sent == okay() * 3
        assert not peer.closed, "that is the session's"

    async def test_last(self) -> None:
        """The answer said that it is the last one; what follows is not looked at."""
        limits = Limits(requests_per_connection=2)
        _, told, peer = await run(answer, get("/") * 3, limits=limits)

        assert (told.reason, told.requests) == (EndReason.ANSWERED, 2)
        assert peer.sent == okay() + okay(b"okay", "Connection: close").replace(
            b"Connection: close\r\nContent-Length: 4\r\n",
            b"Content-Length: 4\r\nConnection: close\r\n",
        )

    async def test_drained(self) -> None:
        """Nothing has begun, and the server drains."""
        _, told, peer = await run(answer, get("/"), drains=True)

        assert (told.reason, told.requests) == (EndReason.DRAINED, 0)
        assert peer.sent == b""

    async def test_malformed(self) -> None:
        """What is no request is refused, and is none of the app's."""
        _, told, peer = await run(answer, b"GET / HTTP/1.1\r\n\r\n")

        assert (told.reason, told.requests) == (EndReason.MALFORMED, 0)
        assert peer.sent.startswith(b"HTTP/1.1 400 ")

    async def test_lost(self) -> None:
        """The connection broke between two requests."""
        peer = ScriptedPeer(get("/"), then="reset")
        state = ServerState(
            Limits(), strict=False, close_on_optimistic_data=False, observer=None
        )
        told = Told(peer)
        loop = RequestLoop(cast("Session", told), answer, Server((), state), state)
        await loop.run()

        assert told.reason == EndReason.LOST
        assert loop.http.broken


async def test_each_request_has_its_answer() -> None:
    """A bug behind an answer is answered, too: nothing of the last one is left."""

    async def app(request: Request) -> Response:
        if request.path == "/bug":
            raise KeyError
        return await answer(request)

    _, told, peer = await run(app, get("/"), get("/bug"), get("/"))

    assert [type(error) for error in told.reported] == [KeyError]
    assert (
        peer.sent
        == okay()
        + okay(b"Internal Server Error\n", status="500 Internal Server Error")
        + okay()
    )


class TestSwitch:
    """What a switch leaves to the session."""

    async def test_returned(self) -> None:
        """Request, stream and handler; the loop runs no handler itself."""
        upgrade = Upgrade("echo", echo)

        async def app(_request: Request) -> Upgrade:
            return upgrade

        loop, told, peer = await run(app, UP + b"early")

        assert loop.switched is not None
        request, stream, handler = loop.switched
        assert (request.path, handler) == ("/u", echo)
        assert stream.head == b"early"
        assert told.stream is stream
        assert told.protocol == "echo"
        assert peer.sent == SWITCHED

    @pytest.mark.parametrize("answered", ["nothing", "again", "a bug"])
    async def test_inside(self, answered: str) -> None:
        """The app has switched itself: there is nothing left to run."""

        async def app(request: Request) -> Upgrade | None:
            await request.accept_upgrade("echo")
            if answered == "a bug":
                raise KeyError
            return None if answered == "nothing" else Upgrade("echo", echo)

        loop, told, peer = await run(app, UP)

        assert loop.switched is None
        assert told.protocol == "echo"
        assert peer.sent == SWITCHED
        errors = {"nothing": [], "again": ["UsageError"], "a bug": ["KeyError"]}
        assert told.given_up == [(name, False, True) for name in errors[answered]]

    @pytest.mark.parametrize("wrong", [Tunnel(echo), None, 5])
    async def test_no_answer_to_this(self, wrong: object) -> None:
        """A bug of the app is reported, and answered with a 500."""

        async def app(_request: Request) -> object:
            return wrong

        loop, told, peer = await run(app, UP)

        assert loop.switched is None
        assert [type(error) for error in told.reported] == [UsageError]
        assert peer.sent.startswith(b"HTTP/1.1 500 ")
        assert told.given_up == []


class TestApology:
    """What is still said when time is up."""

    @pytest.mark.parametrize(
        ("reason", "status"),
        [(EndReason.SLOW_RESPONSE, b"503"), (EndReason.SLOW_HEADER, b"408")],
    )
    async def test_late(self, reason: EndReason, status: bytes) -> None:
        """A status that tells what was late, if anything of a request has come."""
        loop, told, peer = await run(answer, get("/"))
        loop.http.codec.receive_data(b"GET")
        loop.http._writer = type(loop.http._writer)()
        await loop.apologize(reason)

        assert told.reason is reason
        assert peer.sent.startswith(okay() + b"HTTP/1.1 " + status)

    @pytest.mark.parametrize(
        ("reason", "told_at_last"),
        [
            (EndReason.DRAINED, EndReason.ERROR),
            (EndReason.CANCELLED, EndReason.ERROR),
            (EndReason.SLOW_RESPONSE, EndReason.SLOW_RESPONSE),
            (EndReason.SLOW_READER, EndReason.ERROR),
        ],
    )
    async def test_after_an_error(
        self, reason: EndReason, told_at_last: EndReason
    ) -> None:
        """That the app failed says more than that all was to end, or nobody read."""
        loop, told, _ = await run(answer, get("/"))
        told.reason = EndReason.ERROR
        if reason is EndReason.SLOW_READER:
            loop.tell_slow()
        else:
            await loop.apologize(reason)

        assert told.reason is told_at_last

    async def test_nobody_to_tell(self) -> None:
        """Not of a head that never began, nor to one who does not read."""
        loop, told, peer = await run(answer, get("/"))
        await loop.apologize(EndReason.SLOW_HEADER)
        loop.tell_slow()

        assert told.reason is EndReason.SLOW_READER
        assert peer.sent == okay()
