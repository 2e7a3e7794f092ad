"""A listener that puts TLS on the connections of a listener of ours."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from trio_upgrade import TLSStream
from trio_upgrade._streams.readiness import find_socket_listener, is_secure_listener
from trio_upgrade._streams.socket_listener import adopt_listener
from trio_upgrade._streams.tls_listener import TLSListener

from ..tls import make_tls_contexts

if TYPE_CHECKING:
    import ssl


async def listen(ssl_context) -> TLSListener:
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    return TLSListener(adopt_listener(listener), ssl_context)


async def connect(listener: TLSListener) -> trio.SocketStream:
    return await trio.testing.open_stream_to_socket_listener(
        listener.transport_listener  # type: ignore[arg-type]
    )


@pytest.mark.parametrize("function", [False, True])
async def test_accept(function: bool) -> None:
    """It accepts without a handshake, which is made on first use."""
    client, server = make_tls_contexts()
    listener = await listen((lambda: server) if function else server)
    near = TLSStream(await connect(listener), client, server_hostname="localhost")
    async with listener, near, await listener.accept() as far:
        assert far.context is server
        async with trio.open_nursery() as nursery:
            nursery.start_soon(near.send_all, b"hello")
            assert await far.receive_some() == b"hello"


async def test_function_that_fails() -> None:
    """Its error is raised, and that connection is closed; the next one may work."""
    results: list[object] = [OSError("no file"), "cert.pem", make_tls_contexts()[1]]

    def make() -> ssl.SSLContext:
        result = results.pop(0)
        if isinstance(result, Exception):
            raise result
        return result  # type: ignore[return-value]

    listener = await listen(make)
    async with listener:
        for error, message in (OSError, "no file"), (TypeError, "not str"):
            async with await connect(listener) as client:
                with pytest.raises(error, match=message):
                    await listener.accept()
                assert await client.receive_some() == b""
        async with await connect(listener):
            await trio.aclose_forcefully(await listener.accept())


async def test_closed() -> None:
    """A close ends the listener below, and wakes a task that waits."""
    listener = await listen(make_tls_contexts()[1])
    async with trio.open_nursery() as nursery:

        async def accept() -> None:
            with pytest.raises(trio.ClosedResourceError):
                await listener.accept()

        nursery.start_soon(accept)
        await trio.testing.wait_all_tasks_blocked()
        await listener.aclose()
    with pytest.raises(trio.ClosedResourceError):
        await listener.accept()


async def test_found() -> None:
    """Its socket is found, and that it is secure."""
    listener = await listen(make_tls_contexts()[1])
    async with listener:
        assert find_socket_listener(listener) is listener.transport_listener
        assert is_secure_listener(listener)
        assert not is_secure_listener(listener.transport_listener)
