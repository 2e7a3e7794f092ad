# A listener that puts TLS on each connection of a listener of ours.  The serving code
# accepts from the listener below, in batches, and calls wrap() for each connection: an
# error of the function that makes the context costs that one only.
from __future__ import annotations

import ssl
from typing import TYPE_CHECKING, cast, final

import trio

from .._util import name_kind
from .tls import TLSStream

if TYPE_CHECKING:
    from collections.abc import Callable

    from .socket_listener import DirectSocketListener


@final
class TLSListener(trio.abc.Listener[TLSStream]):
    """A listener whose connections speak TLS; each makes its handshake on first use.

    Args:
        transport_listener: The listener below. This listener owns it from now on.
        ssl_context: The context for our side, or a function that returns it and is called
            for each connection.
        https_compatible: See :class:`TLSStream`.

    Attributes:
        transport_listener: As given; it has the socket.
    """

    def __init__(
        self,
        transport_listener: DirectSocketListener,
        ssl_context: ssl.SSLContext | Callable[[], ssl.SSLContext],
        *,
        https_compatible: bool = False,
    ) -> None:
        self.transport_listener: DirectSocketListener = transport_listener
        self._ssl_context = ssl_context
        self._https_compatible = https_compatible

    def wrap(self, stream: trio.abc.Stream) -> TLSStream:
        """Return TLS on a stream that was accepted below.

        Raises:
            TypeError: The function returned something other than a context.
            Exception: An exception of the function. The stream stays open.
        """
        context = self._ssl_context
        if not isinstance(context, ssl.SSLContext):
            context = context()
            if not isinstance(cast("object", context), ssl.SSLContext):
                raise TypeError(
                    "the function given as ssl_context must return an ssl.SSLContext, "
                    f"not {name_kind(context)}"
                )
        return TLSStream(
            stream, context, server_side=True, https_compatible=self._https_compatible
        )

    async def accept(self) -> TLSStream:
        """Accept one connection, without its handshake.

        Raises:
            OSError: As :meth:`DirectSocketListener.accept_some`.
            trio.ClosedResourceError: The listener was closed.
            Exception: As :meth:`wrap`; the connection is closed.
        """
        stream = await self.transport_listener.accept()
        try:
            return self.wrap(stream)
        except BaseException:
            stream.close()
            raise

    async def aclose(self) -> None:
        """Close the listener; waiting tasks get :exc:`trio.ClosedResourceError`."""
        await self.transport_listener.aclose()

    def __repr__(self) -> str:
        return f"<TLSListener on {self.transport_listener!r}>"
