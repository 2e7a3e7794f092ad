# The connections of websockets, changed in two points.
#
# - Their addresses know only the streams of Trio.
# - They iterate by an async generator: a program that breaks out of `async for message in
#   websocket` would get Trio's ResourceWarning about it.
from __future__ import annotations

import os
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any, TypeAlias, cast, final

from websockets.exceptions import ConnectionClosedOK
from websockets.trio.client import ClientConnection
from websockets.trio.server import ServerConnection

if TYPE_CHECKING:
    from websockets.trio.connection import Connection
    from websockets.typing import Data

    from .. import Request

Address: TypeAlias = tuple[str, int] | str | None

# No stack of streams is as high.
_MOST_LAYERS = 32


@final
class AddressedServerConnection(ServerConnection):
    """The connection that a handler gets."""

    # Set before the handler is called.
    http_request: Request

    def __aiter__(self) -> AsyncIterator[Data]:
        """Iterate over the messages, as the class above does."""
        return _Messages(self)

    @property
    def remote_address(self) -> Address:
        """The client's address, as :attr:`trio_upgrade.Request.peer` has it."""
        return self.http_request.peer

    @property
    def local_address(self) -> Address:
        """Our address: host and port, the path of a Unix socket, None if unknown."""
        return _find_address(self.stream, "getsockname")


@final
class AddressedClientConnection(ClientConnection):
    """The connection that a client gets."""

    def __aiter__(self) -> AsyncIterator[Data]:
        """Iterate over the messages, as the class above does."""
        return _Messages(self)

    @property
    def remote_address(self) -> Address:
        """The address that was dialled: host and port, a path, None if unknown."""
        return _find_address(self.stream, "getpeername")

    @property
    def local_address(self) -> Address:
        """Our address: host and port, the path of a Unix socket, None if unknown."""
        return _find_address(self.stream, "getsockname")


@final
class _Messages(AsyncIterator["Data"]):
    __slots__ = ("_connection",)

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def __anext__(self) -> Data:
        try:
            return await self._connection.recv()
        except ConnectionClosedOK:
            raise StopAsyncIteration from None


def _find_address(stream: object, method: str) -> Address:
    layer: Any = stream
    for _ in range(_MOST_LAYERS):
        try:
            # By these names, which the streams of Trio have, too.
            sock = getattr(layer, "socket", None)
            address: object = None if sock is None else getattr(sock, method)()
        except OSError:
            return None  # The socket is closed, or the peer gone.
        if sock is not None:
            if isinstance(address, tuple):
                return cast("tuple[str, int]", cast("tuple[object, ...]", address)[:2])
            return os.fsdecode(cast("str | bytes", address)) or None
        layer = getattr(layer, "transport_stream", None)
    return None
