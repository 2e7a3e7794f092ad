"""Message bodies: limits, and the state after a read that failed or was cancelled."""

from __future__ import annotations

from collections import deque

import pytest
import trio
import trio.testing

from trio_upgrade import BadBody, BodyTooLarge, Headers
from trio_upgrade._body import Body


class Wire:
    """Returns pieces in order; an event among them makes the reader wait."""

    def __init__(self, *pieces: bytes | Exception | trio.Event) -> None:
        self.left = deque(pieces)
        self.asked = 0

    async def receive(self) -> bytes:
        await trio.lowlevel.checkpoint()
        self.asked += 1
        piece = self.left[0] if self.left else b""
        if isinstance(piece, trio.Event):
            await piece.wait()
            self.left.popleft()
            return await self.receive()
        if self.left:
            self.left.popleft()
        if isinstance(piece, Exception):
            raise piece
        return piece

    def body(self, length: int | None = None, limit: int = 100) -> Body:
        return Body(self.receive, length, limit)

    def trailers(self) -> Headers:
        """Return trailers; fail before the end of the body."""
        assert not self.left
        return Headers([(b"X-Sum", b"%d" % self.asked)])


async def collect(body: Body) -> list[bytes]:
    return [chunk async for chunk in body.stream()]


class TestRead:
    """Reading the whole body into memory."""

    @pytest.mark.parametrize("length", [None, 6])
    @pytest.mark.parametrize(
        "pieces", [(b"abcdef",), (b"abc", b"def"), (b"a", b"b", b"c", b"d", b"e", b"f")]
    )
    async def test_whole(self, pieces: tuple[bytes, ...], length: int | None) -> None:
        """The pieces are joined, and a second call returns the same bytes."""
        wire = Wire(*pieces)
        body = wire.body(length)

        assert await body.read(None) == b"abcdef"
        assert await body.read(None) == b"abcdef"
        assert await body.read(6) == b"abcdef"
        assert wire.asked == len(pieces) + 1

    async def test_no_body(self) -> None:
        """For a body of length 0 nothing is received."""
        wire = Wire(b"the next message")
        body = wire.body(length=0)

        assert await body.read(0) == b""
        assert await collect(body) == []
        assert await body.read_beginning(0) == (b"", False)
        assert wire.asked == 0

    @pytest.mark.parametrize("length", [None, 6])
    @pytest.mark.parametrize(
        ("own", "limit", "bound"),
        [(None, 6, 6), (None, 5, 5), (6, 0, 6), (5, 100, 5), (0, 100, 0)],
    )
    async def test_limit(
        self, own: int | None, limit: int, bound: int, length: int | None
    ) -> None:
        """The limit given to read() replaces the limit of the body."""
        body = Wire(b"abc", b"def").body(length, limit)
        if bound >= 6:
            assert await body.read(own) == b"abcdef"
            return
        with pytest.raises(BodyTooLarge) as caught:
            await body.read(own)

        assert caught.value.limit == bound

    async def test_known_length_over_limit(self) -> None:
        """A body whose length is over the limit is refused before it is received."""
        wire = Wire(b"abcdef")
        body = wire.body(length=6)
        with pytest.raises(BodyTooLarge):
            await body.read(5)

        assert wire.asked == 0
        assert await body.read(6) == b"abcdef"
        with pytest.raises(BodyTooLarge):
            await body.read(5)

    async def test_unknown_length_over_limit(self) -> None:
        """Reading stops over the limit; a read with a larger limit continues there."""
        wire = Wire(b"ab", b"cd", b"ef")
        body = wire.body()
        with pytest.raises(BodyTooLarge):
            await body.read(3)

        assert wire.asked == 2
        with pytest.raises(BodyTooLarge):
            await body.read(3)
        assert wire.asked == 2
        assert await body.read(6) == b"abcdef"

    async def test_exact_limit(self) -> None:
        """A body exactly as long as the limit is accepted, once its end has come."""
        wire = Wire(b"abc")

        assert await wire.body().read(3) == b"abc"
        assert wire.asked == 2

    async def test_cancelled(self) -> None:
        """A cancelled read loses nothing, and the next read continues."""
        hold = trio.Event()
        body = Wire(b"abc", hold, b"def").body()
        with trio.CancelScope() as scope:
            scope.cancel()
            await body.read(None)
        assert scope.cancelled_caught
        assert body.peek(9) == b""

        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(body.read, None)
                await trio.testing.wait_all_tasks_blocked()
                scope.cancel()
        assert scope.cancelled_caught
        assert body.peek(9) == b"abc"

        hold.set()
        assert await body.read(None) == b"abcdef"

    async def test_broken(self) -> None:
        """An error of the wire is raised; a later read raises the next error."""
        body = Wire(b"abc", BadBody("one"), BadBody("two")).body()

        with pytest.raises(BadBody, match="one"):
            await body.read(None)
        with pytest.raises(BadBody, match="two"):
            await body.read(None)

    async def test_checkpoint(self) -> None:
        """read() is a checkpoint even if nothing has to be received."""
        body = Wire(b"abc").body()
        await body.read(None)
        with trio.testing.assert_checkpoints():
            await body.read(None)
        with trio.testing.assert_checkpoints():
            with pytest.raises(BodyTooLarge):
                await body.read(1)


class TestStream:
    """Iterating over a body as it comes."""

    async def test_pieces(self) -> None:
        """Each piece is returned by itself, and the limit does not apply."""
        wire = Wire(b"abc", b"def")
        body = wire.body(limit=1)

        assert await collect(body) == [b"abc", b"def"]
        assert await collect(body) == []
        assert wire.asked == 3

    async def test_not_kept(self) -> None:
        """Pieces returned by an iteration are not kept for read()."""
        body = Wire(b"abc", b"def", b"ghi").body()
        assert await anext(body.stream()) == b"abc"

        assert await body.read(None) == b"defghi"

    async def test_after_a_read_over_the_limit(self) -> None:
        """The bytes gathered by a failed read come first."""
        body = Wire(b"ab", b"cd", b"ef").body()
        with pytest.raises(BodyTooLarge):
            await body.read(3)

        assert await collect(body) == [b"abcd", b"ef"]

    async def test_after_a_read(self) -> None:
        """A body that read() has returned is one piece, for each iteration."""
        wire = Wire(b"ab", b"cd")
        body = wire.body()
        await body.read(None)

        for _ in range(2):
            assert await collect(body) == [b"abcd"]
        assert wire.asked == 3

    async def test_checkpoints(self) -> None:
        """Gathered bytes and a known end are returned after a checkpoint."""
        body = Wire(b"ab").body()
        await body.read(None)
        stream = body.stream()
        with trio.testing.assert_checkpoints():
            assert await anext(stream) == b"ab"
        with trio.testing.assert_checkpoints():
            assert [chunk async for chunk in stream] == []
        with trio.testing.assert_checkpoints():
            assert await body.receive_some() == b""

    async def test_cancelled(self) -> None:
        """A cancelled iteration loses nothing and can be continued."""
        body = Wire(b"ab", b"cd", b"ef").body()
        with pytest.raises(BodyTooLarge):
            await body.read(1)
        stream = body.stream()
        for expected in (b"ab", b"cd", b"ef"):
            with trio.CancelScope() as scope:
                scope.cancel()
                await anext(stream)
            assert scope.cancelled_caught
            assert await anext(stream) == expected

    async def test_broken(self) -> None:
        """An error of the wire is raised by the iteration."""
        body = Wire(b"abc", BadBody("cut")).body()
        stream = body.stream()

        assert await anext(stream) == b"abc"
        with pytest.raises(BadBody, match="cut"):
            await anext(stream)


class TestReadBeginning:
    """Reading the beginning of a body."""

    @pytest.mark.parametrize(
        ("limit", "expected", "asked"),
        [
            (0, (b"", True), 1),
            (1, (b"a", True), 1),
            (2, (b"ab", True), 2),
            (5, (b"abcde", True), 3),
            (6, (b"abcdef", False), 4),
            (7, (b"abcdef", False), 4),
        ],
    )
    async def test_limit(
        self, limit: int, expected: tuple[bytes, bool], asked: int
    ) -> None:
        """Reading stops as soon as it is known whether the body is longer."""
        wire = Wire(b"ab", b"cd", b"ef")

        assert await wire.body().read_beginning(limit) == expected
        assert wire.asked == asked

    async def test_rest_stays(self) -> None:
        """The beginning is still part of the whole body."""
        body = Wire(b"ab", b"cd", b"ef").body()

        assert await body.read_beginning(1) == (b"a", True)
        assert await body.read_beginning(3) == (b"abc", True)
        assert await body.read(None) == b"abcdef"
        assert await body.read_beginning(6) == (b"abcdef", False)

    async def test_broken(self) -> None:
        """The bytes before an error can still be peeked at."""
        body = Wire(b"ab", BadBody("cut")).body()
        with pytest.raises(BadBody, match="cut"):
            await body.read_beginning(9)

        assert body.peek(9) == b"ab"
        assert body.peek(1) == b"a"
        assert body.peek(0) == b""


class TestTrailers:
    """The trailer fields of a body."""

    @pytest.mark.parametrize("streamed", [True, False])
    async def test_at_the_end(self, streamed: bool) -> None:
        """Trailers are there after the end was read, and are taken only once."""
        wire = Wire(b"ab", b"cd")
        body = Body(wire.receive, None, 100, wire.trailers)
        assert body.trailers.raw == ()
        await body.read_beginning(1)
        assert body.trailers.raw == ()
        if streamed:
            assert await collect(body) == [b"ab", b"cd"]
        else:
            await body.read(None)
        for _ in range(2):
            assert body.trailers == {"x-sum": "3"}
            assert await body.receive_some() == b""

    async def test_none(self) -> None:
        """A body of length 0, and one without a source of trailers, has none."""
        wire = Wire()
        body = Body(wire.receive, 0, 100, wire.trailers)
        await body.read(None)
        assert body.trailers.raw == ()
        assert Wire(b"a").body().trailers.raw == ()


class TestLength:
    """How much a stream still yields, for the framing of a message that carries it."""

    @pytest.mark.parametrize("length", [None, 6])
    async def test_while_it_is_read(self, length: int | None) -> None:
        """What was streamed is gone; what was gathered comes again."""
        body = Wire(b"ab", b"cd", b"ef").body(length)
        assert body.stream().length == length
        await body.read_beginning(1)
        assert body.stream().length == length
        stream = body.stream()
        assert await anext(stream) == b"ab"
        assert stream.length == (length and 4)
        assert await body.receive_some() == b"cd"
        assert stream.length == (length and 2)
        assert body.stream().length == (length and 4)
        assert await collect(body) == [b"ab", b"ef"]
        assert stream.length == 0
        assert body.stream().length == 2

    @pytest.mark.parametrize("length", [None, 0])
    async def test_empty(self, length: int | None) -> None:
        """A body of unknown length is known to be empty once its end was read."""
        body = Wire().body(length)
        assert body.stream().length == length
        assert await collect(body) == []
        assert body.stream().length == 0

    async def test_limit_of_the_rest(self) -> None:
        """The limit of read() is for the bytes that it would return."""
        body = Wire(b"ab", b"cd").body(4)
        assert await body.receive_some() == b"ab"
        with pytest.raises(BodyTooLarge):
            await body.read(1)
        assert await body.read(2) == b"cd"


async def test_end_with_the_last_byte() -> None:
    """A source that ends with its last byte is not asked once more for the end."""
    wire = Wire(b"ab", b"c")
    body = Body(wire.receive, 3, 100, ends_at_length=True)

    assert await body.read(None) == b"abc"
    assert await body.receive_some() == b""
    assert wire.asked == 2
