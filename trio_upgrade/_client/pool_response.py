# A response that owns a connection of a pool, until its body has been read or it is
# closed.
from __future__ import annotations

from typing import TYPE_CHECKING, final

import trio

from .._body import Body, BodyStream
from .._util import public
from .response import ClientResponse

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Protocol

    from .._http.messages import ResponseHead

    class Lease(Protocol):
        """The connection of a pool that a response has."""

        async def drop(self) -> None:
            """Close the connection, unless it is the pool's again; no checkpoint."""
            ...


@public
@final
class PooledResponse(ClientResponse, trio.abc.AsyncResource):
    """A final response from a :class:`ConnectionPool`; it owns its connection.

    Use it in ``async with``::

        async with await pool.request("GET", url) as response:
            print(response.status, await response.read())

    When the end of the body has been read, also within the block, or if there is no body,
    the connection goes back to the pool. Leaving the block earlier, in any way, closes
    it; so does the ``aclose()`` of what :meth:`stream` returns. An app that returns the
    response's body as its own answer therefore needs no block: the server closes it. The
    attributes are those of :class:`ClientResponse`.
    """

    def __init__(
        self,
        head: ResponseHead,
        informational: tuple[ResponseHead, ...],
        body: Body,
        lease: Lease,
    ) -> None:
        super().__init__(head, informational, body)
        self._lease = lease

    def stream(self) -> PooledBodyStream:
        """Iterate over the body as it comes, without a limit on its length.

        Returns:
            An async iterator with a method ``aclose()``, which closes the connection
            unless the end was read.

        Raises:
            BadBody: As :meth:`read` does, from the iteration.
            trio.ClosedResourceError: The response or the pool was closed.
        """
        return PooledBodyStream(self._body, self._lease)

    async def aclose(self) -> None:
        """Close the connection if the body is not read to its end."""
        try:
            await trio.lowlevel.checkpoint()
        finally:
            await self._lease.drop()

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        # No checkpoint: in a cancelled scope it would replace the block's exception.
        await self._lease.drop()

    def __repr__(self) -> str:
        return super().__repr__().replace("ClientResponse", "PooledResponse", 1)


@final
class PooledBodyStream(BodyStream):
    """The pieces of such a response's body as they come."""

    __slots__ = ("_lease",)

    def __init__(self, body: Body, lease: Lease) -> None:
        super().__init__(body)
        self._lease = lease

    async def aclose(self) -> None:
        """Close the connection if the body is not read to its end."""
        await self._lease.drop()
        await trio.lowlevel.checkpoint()
