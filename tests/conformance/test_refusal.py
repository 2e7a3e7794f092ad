"""A refused offer: the answer is HTTP, and HTTP goes on."""

from __future__ import annotations

import itertools

import pytest

from trio_upgrade import (
    NotOffered,
    Request,
    Response,
    Upgrade,
    UpgradedStream,
    serve_stream,
)
from trio_upgrade.testing import ScriptedPeer, split_points

from ..apps import echo, echo_app
from ..wire import REQUIRED, SWITCHED, UP, closing, get, okay
from .wires import Serving, with_fields


async def refuse(request: Request) -> Response:
    """Refuse every offer, answer every other request."""
    return Response(403 if request.upgrades else 200, request.path.encode())


FORBIDDEN = okay(b"/u", status="403 Forbidden")


@pytest.mark.ids("O05", "S13", "S38")
async def test_refused_offer_keeps_the_connection(serving: Serving) -> None:
    """Requests pipelined after a refused offer are answered (RFC 9931 §5)."""
    wire = UP + get("/2") + UP + get("/3")

    await serving.check(refuse, wire, FORBIDDEN + okay(b"/2") + FORBIDDEN + okay(b"/3"))


@pytest.mark.ids("O05", "S13")
@pytest.mark.parametrize(
    ("framing", "body"),
    [
        ("Content-Length: 5", b"hello"),
        ("Transfer-Encoding: chunked", b"5\r\nhello\r\n0\r\nX-T: 1\r\n\r\n"),
    ],
)
async def test_refused_offer_with_a_body(
    serving: Serving, framing: str, body: bytes
) -> None:
    """The same holds if the refused offer has an unread body (RFC 9931 §5)."""
    wire = with_fields(UP.replace(b"GET", b"POST"), framing) + body + get("/2")

    await serving.check(refuse, wire, FORBIDDEN + okay(b"/2"))


@pytest.mark.ids("U08")
async def test_426_names_the_protocol(serving: Serving) -> None:
    """A 426 names the protocol that was not offered (RFC 9110 §15.5.22)."""

    async def app(request: Request) -> Upgrade:
        return Upgrade("echo", echo)

    await serving.check(app, get("/1") + UP + b"x", REQUIRED + SWITCHED + b"x")


@pytest.mark.ids("U08")
async def test_426_from_within_the_app(serving: Serving) -> None:
    """An uncaught NotOffered becomes the same 426 (RFC 9110 §15.5.22)."""

    async def app(request: Request) -> None:
        with pytest.raises(NotOffered) as caught:
            await request.accept_upgrade("echo")
        raise caught.value

    await serving.check(app, get("/1") + get("/2"), REQUIRED + REQUIRED)


@pytest.mark.ids("U08")
async def test_426_from_the_app(serving: Serving) -> None:
    """A 426 lists protocols in the app's order (RFC 9110 §15.5.22)."""

    async def app(request: Request) -> Response:
        return Response(426, b"no", {"Upgrade": "b/2, a"})

    expected = okay(
        b"no", "Upgrade: b/2, a", "Connection: Upgrade", status="426 Upgrade Required"
    )

    await serving.check(app, UP + get("/2"), expected + expected)
    for headers in ({}, {"Upgrade": ""}, {"Upgrade": "a b"}):
        with pytest.raises(ValueError, match="426 needs an Upgrade field"):
            Response(426, b"no", headers)


@pytest.mark.ids("U09", "U12")
async def test_any_response_may_advertise(serving: Serving) -> None:
    """Upgrade in another response gets its option and does not switch (RFC 9110 §7.8)."""

    async def app(request: Request) -> Response:
        return Response(200, request.path.encode(), {"Upgrade": "b/2, a"})

    fields = ("Upgrade: b/2, a", "Connection: Upgrade")

    await serving.check(
        app, UP + get("/2"), okay(b"/u", *fields) + okay(b"/2", *fields)
    )


@pytest.mark.ids("S38")
async def test_offer_after_a_refusal(serving: Serving) -> None:
    """After a refusal the connection may still switch (RFC 9110 §7.8)."""
    other = UP.replace(b": echo", b": other")

    await serving.check(
        echo_app, other + UP + b"HEAD", okay(b"/u") + SWITCHED + b"HEAD"
    )


@pytest.mark.ids("O05", "R11")
async def test_close_on_optimistic_data() -> None:
    """With close_on_optimistic_data, early bytes after a refused offer close."""
    for packets in split_points(UP + get("/2")):
        peer = ScriptedPeer(*packets)
        await serve_stream(refuse, peer, close_on_optimistic_data=True, strict=True)

        # Without bytes after the request there is no optimistic data.
        ends = itertools.accumulate(map(len, packets))
        early = next(end for end in ends if end >= len(UP)) > len(UP)
        expected = closing(FORBIDDEN) if early else FORBIDDEN + okay(b"/2")
        assert peer.sent == expected, packets

    peer = ScriptedPeer(get("/1") + get("/2") + UP)
    await serve_stream(refuse, peer, close_on_optimistic_data=True, strict=True)

    assert peer.sent == okay(b"/1") + okay(b"/2") + FORBIDDEN


@pytest.mark.ids("S41", "R48")
async def test_http_again_after_a_switch(serving: Serving) -> None:
    """A switched stream, with its head, can be served as HTTP again."""

    async def handler(request: Request, stream: UpgradedStream, head: bytes) -> None:
        await serve_stream(echo_app, stream, strict=True)

    async def app(request: Request) -> Upgrade:
        return Upgrade("echo", handler)

    await serving.check(app, UP + get("/again"), SWITCHED + okay(b"/again"))
