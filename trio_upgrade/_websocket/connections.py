# The connections of websockets with addresses: theirs know only the streams of Trio.
from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, TypeAlias, cast, final

from websockets.trio.client import ClientConnection
from websockets.trio.server import ServerConnection

if TYPE_CHECKING:
    from .. import Request

Address: TypeAlias = tuple[str, int] | str | None

# No stack of streams is as high.
_MOST_LAYERS = 32


@final
class AddressedServerConnection(ServerConnection):
    """The connection that a handler gets."""

    # Set before the handler is called.
    http_request: Request

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

    @property
    def remote_address(self) -> Address:
        """The address that was dialled: host and port, a path, None if unknown."""
        return _find_address(self.stream, "getpeername")

    @property
    def local_address(self) -> Address:
        """Our address: host and port, the path of a Unix socket, None if unknown."""
        return _find_address(self.stream, "getsockname")


def _find_address(stream: object, method: str) -> Address:
    layer: Any = stream
    for _ in range(_MOST_LAYERS):
        # By these names, which the streams of Trio have, too.
        sock = getattr(layer, "socket", None)
        if sock is not None:
            try:
                address: object = getattr(sock, method)()
            except OSError:
                return None  # The peer is gone.
            if isinstance(address, tuple):
                return cast("tuple[str, int]", cast("tuple[object, ...]", address)[:2])
            return os.fsdecode(cast("str | bytes", address)) or None
        layer = getattr(layer, "transport_stream", None)
    return None
