"""Which requests reach the application, and what open_asgi() refuses."""

from __future__ import annotations

import pytest

from trio_upgrade import Response, TrustedPeers, Tunnel, Upgrade, serve_stream
from trio_upgrade.asgi import ASGIAdapter, open_asgi
from trio_upgrade.testing import ScriptedPeer

from ..apps import echo
from ..wire import BUG, SWITCHED, TEXT, UP, closing, get, okay
from .serving import LIMITS, START, Served, body, sender, serve

CONNECT = b"CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n"
H2C = get("/", "Connection: Upgrade", "Upgrade: h2c")
WEBSOCKET = get("/", "Connection: Upgrade", "Upgrade: WebSocket")
BOTH = get("/", "Connection: Upgrade", "Upgrade: websocket, echo")

app = sender(START, body(b"from ASGI"))


async def fallback(request):
    """Switch every offer, and open every tunnel."""
    if request.method == "CONNECT":
        return Tunnel(echo)
    if request.path == "/refused":
        return Response(403)
    return Upgrade("echo", echo)


async def test_raw_upgrade() -> None:
    """A protocol of `upgrades` goes to `fallback`, with its early bytes."""
    sent = await serve(app, UP + b"early", fallback=fallback, upgrades=["Echo"])

    assert sent == SWITCHED + b"early"


async def test_fallback_that_refuses() -> None:
    """A fallback may give any answer, and the connection goes on."""
    sent = await serve(
        app,
        UP.replace(b"/u", b"/refused") + get("/"),
        fallback=fallback,
        upgrades=["echo"],
    )

    assert sent.startswith(b"HTTP/1.1 403 ")
    assert b"from ASGI" in sent


@pytest.mark.parametrize("wire", [H2C, UP])
@pytest.mark.parametrize("given", [True, False])
async def test_other_offers(wire: bytes, given: bool) -> None:
    """Any other offer is an ordinary request to the application (RFC 9110 §7.8)."""
    options = {"fallback": fallback, "upgrades": ["other"]} if given else {}
    sent = await serve(app, wire + get("/"), **options)

    assert sent.count(b"from ASGI") == 2


async def test_websocket_to_fallback() -> None:
    """A WebSocket is the fallback's if `upgrades` names it, or a protocol beside it."""
    for protocol in ("websocket", "echo"):
        served = await Served(BOTH).serve(app, fallback=fallback, upgrades=[protocol])
        assert served.sent == SWITCHED


@pytest.mark.parametrize("upgrades", [[], ["x"]])
async def test_connect_to_fallback(upgrades) -> None:
    """CONNECT goes to `fallback`, whatever `upgrades` names."""
    sent = await serve(app, CONNECT + b"early", fallback=fallback, upgrades=upgrades)

    assert sent.startswith(b"HTTP/1.1 200 OK\r\n")
    assert sent.endswith(b"\r\n\r\nearly")


async def test_connect() -> None:
    """Without a fallback CONNECT is answered with a 501 (RFC 9110 §9.1)."""
    sent = await serve(app, CONNECT)

    assert sent == closing(
        okay(b"no tunnels here\n", TEXT, status="501 Not Implemented")
    )


async def test_outside_of_the_block() -> None:
    """An adapter does not serve when its block was left: a 500, and a line in the log."""
    async with open_asgi(app, lifespan="off") as adapter:
        pass
    peer = ScriptedPeer(get("/", "Connection: close"))
    await serve_stream(adapter, peer, limits=LIMITS)

    assert peer.sent == closing(BUG)


async def test_several_connections() -> None:
    """One adapter serves any number of connections."""
    trusted = TrustedPeers(["10.0.0.0/8"])
    async with open_asgi(app, lifespan="off", trusted=trusted) as adapter:
        assert isinstance(adapter, ASGIAdapter)
        assert repr(adapter).startswith("<ASGIAdapter of <function ")
        for _ in range(3):
            peer = ScriptedPeer(get("/"))
            await serve_stream(adapter, peer, limits=LIMITS)
            assert b"from ASGI" in peer.sent


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"upgrades": "echo", "fallback": fallback}, TypeError, "a sequence of str"),
        ({"upgrades": [5], "fallback": fallback}, TypeError, "protocol must be a str"),
        ({"upgrades": ["a b"], "fallback": fallback}, ValueError, "not a protocol"),
        ({"upgrades": ["echo"]}, ValueError, "need a fallback"),
        ({"fallback": 5}, TypeError, "fallback must be an app, or None, not int"),
        ({"lifespan": "maybe"}, ValueError, "lifespan must be"),
        ({"lifespan": True}, ValueError, "lifespan must be"),
        ({"root_path": b"/"}, TypeError, "root_path must be a str"),
        ({"root_path": "/"}, ValueError, "root_path must be"),
        ({"root_path": "api"}, ValueError, "root_path must be"),
        ({"root_path": "/api/"}, ValueError, "root_path must be"),
        ({"trusted": "10.0.0.0/8"}, TypeError, "trusted peers must be"),
        ({"trusted": ["x"]}, ValueError, "'x' is neither a network"),
    ],
)
def test_arguments(options, error, message) -> None:
    """What can be wrong with the arguments is refused before anything is opened."""
    with pytest.raises(error, match=message):
        open_asgi(app, **options)


@pytest.mark.parametrize("given", [None, 5, "module:app"])
def test_application_that_cannot_be_called(given) -> None:
    """An application is an object, not the name of one."""
    with pytest.raises(TypeError, match="an ASGI application is called"):
        open_asgi(given)
