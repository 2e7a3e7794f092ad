"""What streams, listeners and answers say that they are."""

from __future__ import annotations

import pytest
import trio

from trio_upgrade import (
    Headers,
    Response,
    TLSStream,
    Tunnel,
    Upgrade,
    UpgradedStream,
    serve_unix,
)
from trio_upgrade._streams.socket_listener import adopt_listener
from trio_upgrade._streams.socket_stream import adopt_stream
from trio_upgrade._streams.tls_listener import TLSListener

from ..apps import echo, echo_app
from ..sockets import tcp_pair
from ..tls import make_tls_contexts


async def test_streams() -> None:
    """A stack of streams is shown from the outside in; a closed one says so."""
    near, far = await tcp_pair()
    stream = adopt_stream(near)
    client, _ = make_tls_contexts()
    tls = TLSStream(stream, client, server_hostname="localhost")
    upgraded = UpgradedStream(tls)
    below = f"<DirectSocketStream, on descriptor {stream.fileno()}>"

    assert repr(upgraded) == f"<UpgradedStream on <TLSStream on {below}>>"
    upgraded.detach()
    assert repr(upgraded) == "<UpgradedStream, detached>"
    await trio.aclose_forcefully(tls)
    await far.aclose()
    assert repr(tls) == "<TLSStream on <DirectSocketStream, closed>>"


async def test_listeners(tmp_path) -> None:
    """Listeners show their address, also below TLS."""
    (opened,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    listener = adopt_listener(opened)
    _, context = make_tls_contexts()
    secure = TLSListener(listener, context)
    below = f"<DirectSocketListener at {listener.socket.getsockname()}>"
    async with secure:
        assert repr(secure) == f"<TLSListener on {below}>"
    assert repr(secure) == "<TLSListener on <DirectSocketListener, closed>>"

    path = str(tmp_path / "socket")
    async with trio.open_nursery() as nursery:
        server = await nursery.start(serve_unix, echo_app, path)
        assert repr(server.listeners[0]) == (
            f"<UnixListener on <DirectSocketListener at {path!r}>>"
        )
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("thing", "shown"),
    [
        (Response(404), "<Response 404 Not Found>"),
        (Headers([(b"A", b"b")]), "Headers([(b'A', b'b')])"),
        (Upgrade("a", echo), f"Upgrade('a', {echo!r})"),
        (Tunnel(echo), f"Tunnel({echo!r})"),
    ],
)
def test_answers(thing: object, shown: str) -> None:
    """Answers show what decides about them."""
    assert repr(thing) == shown
