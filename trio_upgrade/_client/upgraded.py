# The connection that a client has after the switch, and how leaving its scope ends it.
#
# Annotations are not strings here: NamedTuple would compile each string at the import.

from types import TracebackType
from typing import NamedTuple

import trio

from .._http.messages import ResponseHead
from .._streams.closing import (
    close_in_stages,
    close_nowait,
    end_stream,
    move_on_after,
)
from .._streams.upgraded import UpgradedStream
from .._util import public


class _ConnectionFields(NamedTuple):
    response: ResponseHead
    stream: UpgradedStream
    head: bytes


@public
class UpgradedConnection(_ConnectionFields, trio.abc.AsyncResource):
    """A connection that has switched, or become a tunnel.

    Use it as an async context manager, and unpack it::

        async with await open_upgrade(url, "echo") as (response, stream, head):
            ...

    Leaving the block ends the stream. Without an exception: in stages, our direction
    first, then up to ``Limits.linger`` seconds for the peer's; a cancelled scope only
    skips the seconds. After an exception, also a cancellation: by a reset, so that the
    peer does not take half a transfer for a whole one, unless
    :meth:`UpgradedStream.send_eof` had returned. A reset drops bytes that are still on
    the way. A stream that was detached is left alone. After
    :meth:`UpgradedStream.start_tls` the TLS stream is ended in the same way.

    Attributes:
        response: The head of the 101, or of the 2xx that opened a tunnel.
        stream: The connection; it yields the bytes of ``head`` first.
        head: A copy of the bytes that came with the response and are first in the stream.
        informational: The heads of the 1xx responses that came before it.
        linger: Seconds that the peer's end may take; from ``Limits.linger``.
    """

    informational: tuple[ResponseHead, ...] = ()
    linger: float | None = 0.0

    async def aclose(self) -> None:
        """End the stream in stages; close it at once if cancelled."""
        with move_on_after(self.linger):
            await close_in_stages(self.stream)

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        # No scope and no stages if the peer has ended already.
        if exc_value is not None or not close_nowait(self.stream.outermost):
            await end_stream(self.stream, exc_value, self.linger)
