# A scope that owns a stream, for streams that this library did not open.
from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Generic, TypeVar, cast, final

import trio

from .._util import check_seconds, name_kind, public
from .closing import end_stream

if TYPE_CHECKING:
    from types import TracebackType

StreamT = TypeVar("StreamT", bound=trio.abc.Stream)


@public
def stream_scope(
    stream: StreamT, *, linger: float | None = 2.0
) -> AbstractAsyncContextManager[StreamT, None]:
    """Return a scope that owns a stream and ends it as this library ends its own.

    For streams that the library did not open, such as the upstream of a proxy::

        async with stream_scope(await trio.open_tcp_stream(host, port)) as upstream:
            stream, _ = await request.accept_connect()
            await relay(stream, upstream)

    ``async with stream`` alone would close it in every case, and to the peer half a
    transfer would look like a whole one. Leaving this scope ends the stream

    - without an exception: in stages. Our direction is ended, over TLS by a close_notify,
      then up to ``linger`` seconds are given to the peer, whose data is dropped. A
      cancelled scope only skips the seconds;
    - by an exception, also by a cancellation: with a reset, and over TLS without a
      close_notify. If ``send_eof`` had returned, the stream is only closed.

    A reset drops bytes that the peer's machine has not received: to be sure that the last
    bytes arrive, end the stream with ``send_eof()`` after them. Linux cannot reset a Unix
    socket, and only a stream on a kernel socket can be reset: other peers get an end.

    Args:
        stream: Any Trio stream. It is closed when the scope is left. If it is on top of
            another stream, that one should be its ``transport_stream``, as with Trio's
            wrappers; then a reset works.
        linger: Seconds for all the stages; None disables the limit.

    Returns:
        An async context manager that gives the stream itself.

    Raises:
        TypeError: An argument has another type.
        ValueError: ``linger`` is negative.
    """
    if not isinstance(cast("object", stream), trio.abc.Stream):
        raise TypeError(f"stream must be a trio.abc.Stream, not {name_kind(stream)}")
    check_seconds("linger", linger)
    return _StreamScope(stream, linger)


@final
class _StreamScope(AbstractAsyncContextManager[StreamT, None], Generic[StreamT]):
    __slots__ = ("_linger", "_stream")

    def __init__(self, stream: StreamT, linger: float | None) -> None:
        self._stream = stream
        self._linger = linger

    async def __aenter__(self) -> StreamT:
        return self._stream

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await end_stream(self._stream, exc_value, self._linger)
