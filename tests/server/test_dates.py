"""The Date of responses: its form, made once a second."""

from __future__ import annotations

import email.utils
from datetime import UTC, datetime
from functools import partial

import pytest
import trio

from trio_upgrade import Request, Response, Tunnel, Upgrade, open_connection, serve_tcp
from trio_upgrade._server.dates import DateClock
from trio_upgrade._server.server import find_state

from ..apps import echo
from ..servers import run_script
from ..wire import DATE, UP, get


class Clock:
    """A clock that the test sets."""

    def __init__(self, now: float) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock(784111777.0)
    monkeypatch.setattr("trio_upgrade._server.dates.time", clock)
    return clock


class TestDateClock:
    """The field alone."""

    @pytest.mark.parametrize(
        ("now", "value"),
        [
            (0.0, b"Thu, 01 Jan 1970 00:00:00 GMT"),
            (784111777.0, b"Sun, 06 Nov 1994 08:49:37 GMT"),
            (784111777.999, b"Sun, 06 Nov 1994 08:49:37 GMT"),
            (4102444800.0, b"Fri, 01 Jan 2100 00:00:00 GMT"),
        ],
    )
    def test_form(self, clock: Clock, now: float, value: bytes) -> None:
        """An IMF-fixdate in GMT, fractions cut (RFC 9110 §5.6.7)."""
        clock.now = now

        assert DateClock().field() == (b"Date", value)

    def test_every_second_of_a_day(self, clock: Clock) -> None:
        """The value can be parsed again, at any time of the day."""
        dates = DateClock()
        for second in range(0, 86400, 61):
            clock.now = 1_700_000_000.5 + second
            text = dates.field()[1].decode()
            moment = datetime.fromtimestamp(1_700_000_000 + second, UTC)

            assert email.utils.parsedate_to_datetime(text) == moment

    def test_once_a_second(self, clock: Clock) -> None:
        """The same object within a second; a new one later, or after a step back."""
        dates = DateClock()
        first = dates.field()
        clock.now += 0.99
        assert dates.field() is first
        clock.now += 0.01
        second = dates.field()
        assert second[1] == b"Sun, 06 Nov 1994 08:49:38 GMT"
        assert dates.field() is second
        clock.now -= 1
        assert dates.field() == first


class TestResponses:
    """Which messages have a Date."""

    async def test_shared(self, clock: Clock) -> None:
        """The connections of a server share one clock; each response has its own time."""
        clocks: list[DateClock] = []

        async def app(request: Request) -> Response:
            clocks.append(find_state(request.server).dates)
            return Response(200)

        dates: list[str] = []
        async with trio.open_nursery() as nursery:
            server = await nursery.start(partial(serve_tcp, app, 0, host="127.0.0.1"))
            for _ in range(2):
                async with await open_connection(server.url) as connection:
                    for _ in range(2):
                        response = await connection.request("GET", "/")
                        dates.append(response.headers["date"])
                        clock.now += 1
            nursery.cancel_scope.cancel()

        assert clocks == [find_state(server).dates] * 4
        assert dates == [f"Sun, 06 Nov 1994 08:49:{37 + n} GMT" for n in range(4)]

    @pytest.mark.parametrize("status", [200, 204, 304, 404])
    async def test_first(self, status: int) -> None:
        """Every final response has a Date, as its first field (RFC 9110 §6.6.1)."""

        async def app(_: Request) -> Response:
            return Response(status, b"", {"X-A": "1"})

        peer = await run_script(app, get("/"))

        line, _, rest = bytes(peer.sent).partition(b"\r\n")
        assert line.startswith(b"HTTP/1.1 %d " % status)
        assert rest.startswith(DATE + b"X-A: 1\r\n")
        assert rest.lower().count(b"date:") == 1

    @pytest.mark.parametrize("name", ["Date", "date", "DATE"])
    async def test_apps_own(self, name: str) -> None:
        """A Date that the app gives, for example a cache, is kept in its place."""

        async def app(_: Request) -> Response:
            return Response(200, b"", {"X-A": "1", name: "long ago", "X-Date": "2"})

        peer = await run_script(app, get("/"))

        own = f"X-A: 1\r\n{name}: long ago\r\nX-Date: 2\r\n".encode()
        assert peer.sent.startswith(b"HTTP/1.1 200 OK\r\n" + own)
        assert DATE not in peer.sent

    @pytest.mark.parametrize(
        "wire",
        [
            b"\0",
            get("/").replace(b"Host: x\r\n", b""),
            get("/raise"),
            get("/upgrade"),
        ],
    )
    async def test_refusals(self, wire: bytes) -> None:
        """The library's own refusals have a Date, too."""

        async def app(request: Request) -> Upgrade:
            if request.path == "/raise":
                await request.accept_upgrade("echo")
            return Upgrade("echo", echo)

        peer = await run_script(app, wire)

        assert peer.sent.split(b"\r\n")[1] + b"\r\n" == DATE
        assert peer.sent.count(b"Date:") == 1

    async def test_informational(self) -> None:
        """A 100 and a 101 have no Date: neither is a final response."""

        async def app(request: Request) -> Upgrade:
            return Upgrade("echo", echo)

        wire = UP.replace(b"\r\n\r\n", b"\r\nExpect: 100-continue\r\n\r\n")
        peer = await run_script(app, wire)

        assert peer.sent.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 101 ")
        assert b"date" not in peer.sent.lower()

    async def test_tunnel(self) -> None:
        """The 200 that opens a tunnel is a final response, and has a Date."""

        async def app(request: Request) -> Tunnel:
            return Tunnel(echo, {"X-A": "1"})

        peer = await run_script(app, b"CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n")

        assert peer.sent == b"HTTP/1.1 200 OK\r\n" + DATE + b"X-A: 1\r\n\r\n"
