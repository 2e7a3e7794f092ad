"""Streams of users on top of ours: what is below is found, and no wrapper is bypassed."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

from trio_upgrade import (
    BadResponse,
    Request,
    Response,
    Upgrade,
    UpgradedStream,
    open_connection,
    open_upgrade,
    pipe,
    relay,
    serve_stream,
)
from trio_upgrade._streams.socket_stream import adopt_stream
from trio_upgrade._streams.underlying import (
    find_peer,
    find_underlying_socket,
    is_secure,
)

from ..sockets import tcp_pair
from ..tls import make_tls_contexts, tls_pair, wrap_tls
from ..wire import SWITCHED, UP, okay
from ..wrapper import HalfCloseableWrapper, Wrapper, turn

if TYPE_CHECKING:
    from collections.abc import Callable


class Odd(Wrapper):
    """A stream whose ``transport_stream`` is what a function makes of it."""

    def __init__(self, find: Callable[[Odd], object]) -> None:
        self._find = find

    @property
    def transport_stream(self) -> Any:  # type: ignore[override]
        return self._find(self)


def fail(_: Odd) -> None:
    raise trio.ClosedResourceError


STACKS: dict[str, Callable[[Any], trio.abc.Stream]] = {
    "one": Wrapper,
    "two": lambda stream: Wrapper(HalfCloseableWrapper(stream)),
    "over ours": lambda stream: Wrapper(adopt_stream(stream)),
    "over a switch": lambda stream: Wrapper(UpgradedStream(stream)),
    "below a switch": lambda stream: UpgradedStream(Wrapper(stream)),
}


class TestFinding:
    """The functions that look below."""

    @pytest.mark.ids("F30")
    @pytest.mark.parametrize("stack", STACKS)
    async def test_stacks(self, stack: str) -> None:
        """The socket is found below every stack."""
        near, far = await tcp_pair()
        stream = STACKS[stack](near)

        assert find_peer(stream) == far.socket.getsockname()
        assert not is_secure(stream)
        await stream.aclose()
        assert find_peer(stream) is None
        await far.aclose()

    @pytest.mark.ids("F30")
    async def test_tls(self) -> None:
        """TLS is found wherever it is in a stack, also after it was unwrapped."""
        near, far = await tcp_pair()
        tls, _ = wrap_tls(
            (Wrapper(near), far), make_tls_contexts(), https_compatible=True
        )

        for stream in (tls, Wrapper(tls), UpgradedStream(Wrapper(UpgradedStream(tls)))):
            assert is_secure(stream)
            assert find_underlying_socket(stream) is near.socket
        tls.transport_stream = None  # type: ignore[assignment]
        assert is_secure(Wrapper(tls))
        assert find_underlying_socket(Wrapper(tls)) is None
        await near.aclose()
        await far.aclose()

    @pytest.mark.ids("F30")
    async def test_detached(self) -> None:
        """A stream that was given away is no longer below."""
        near, far = await tcp_pair()
        stream = UpgradedStream(near)
        stream.detach()

        assert find_underlying_socket(Wrapper(stream)) is None
        await near.aclose()
        await far.aclose()

    @pytest.mark.ids("F30")
    @pytest.mark.parametrize(
        "find", [lambda odd: odd, lambda _: Odd(lambda odd: odd), lambda _: None, fail]
    )
    async def test_odd_attributes(self, find: Callable[[Odd], object]) -> None:
        """An attribute that fails, leads back or is None is no error."""
        stream = Odd(find)

        assert find_underlying_socket(Wrapper(stream)) is None
        assert find_peer(stream) is None
        assert not is_secure(stream)

    @pytest.mark.ids("F30")
    async def test_endless_stack(self) -> None:
        """A stack that makes a new stream at each look has an end."""

        def make(_: Odd) -> Odd:
            return Odd(make)

        assert find_underlying_socket(Odd(make)) is None


class TestServer:
    """serve_stream with a wrapper."""

    @pytest.mark.ids("F30")
    async def test_peer_and_scheme(self) -> None:
        """A request on a wrapper has the address of the client, and the scheme."""
        near, far = await tcp_pair()
        address = far.socket.getsockname()
        ours, theirs = await tls_pair((near, far))
        found: list[object] = []

        async def app(request: Request) -> Response:
            found.extend([request.peer, request.scheme])
            return Response(200)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve_stream, app, Wrapper(ours))
            url = "https://localhost/"
            async with await open_connection(url, stream=Wrapper(theirs)) as connection:
                await connection.request("GET", "/")

        assert found == [address, "https"]

    @pytest.mark.ids("F30")
    @pytest.mark.parametrize("stack", STACKS)
    async def test_reset(self, stack: str) -> None:
        """A handler that raises resets the connection, whatever is on top of it."""
        near, far = await tcp_pair()

        async def fail(_request: Request, stream: UpgradedStream, _head: bytes) -> None:
            await stream.receive_some()
            raise LookupError

        async def app(_: Request) -> Upgrade:
            return Upgrade("echo", fail)

        client = HalfCloseableWrapper(far)
        if stack == "two":
            client = HalfCloseableWrapper(client)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve_stream, app, STACKS[stack](near))
            await client.send_all(UP)
            assert await client.receive_some() == SWITCHED
            await client.send_all(b"x")
            with pytest.raises(trio.BrokenResourceError):
                await client.receive_some()
        await far.aclose()


class TestClient:
    """The functions that dial, with a wrapper as ``stream``."""

    @pytest.mark.ids("F30")
    async def test_reset(self) -> None:
        """A block that raises resets the connection."""
        near, far = await tcp_pair()
        await far.send_all(turn(SWITCHED))

        with pytest.raises(LookupError):
            async with await open_upgrade("http://x/", "echo", stream=Wrapper(near)):
                raise LookupError

        with pytest.raises(trio.BrokenResourceError):
            while True:
                await far.receive_some()
        await far.aclose()

    @pytest.mark.ids("F30")
    async def test_unasked_bytes(self) -> None:
        """Bytes that wait below a wrapper are no answer to the next request."""
        near, far = await tcp_pair()
        async with await open_connection(
            "http://x/", stream=Wrapper(near)
        ) as connection:
            await far.send_all(turn(okay()))
            response = await connection.request("GET", "/")
            assert await response.read() == b"okay"
            await far.send_all(turn(okay(b"evil")))
            with pytest.raises(BadResponse):
                await connection.request("GET", "/")
        await far.aclose()


class TestCopies:
    """pipe and relay with a wrapper on kernel sockets."""

    @pytest.mark.ids("F30")
    async def test_pipe(self) -> None:
        """The bytes go through a wrapper, as the source and as the sink."""
        source, sender = await tcp_pair()
        sink, receiver = await tcp_pair()
        await sender.send_all(turn(b"x" * 100_000))
        await sender.send_eof()
        received = bytearray()

        async def receive() -> None:
            async for chunk in receiver:
                received.extend(chunk)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(receive)
            copied = await pipe(UpgradedStream(HalfCloseableWrapper(source)), sink)

        assert copied == 100_000
        assert received == b"x" * 100_000
        for stream in (source, sender, sink, receiver):
            await stream.aclose()

    @pytest.mark.ids("F30")
    async def test_relay(self) -> None:
        """The bytes of both ways go through a wrapper."""
        left, near = await tcp_pair()
        right, far = await tcp_pair()
        run = partial(relay, left, HalfCloseableWrapper(right))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run)
            await near.send_all(b"ping")
            assert await far.receive_some() == turn(b"ping")
            await far.send_all(turn(b"pong"))
            assert await near.receive_some() == b"pong"
            await near.send_eof()
            await far.send_eof()
        for stream in (left, near, right, far):
            await stream.aclose()
