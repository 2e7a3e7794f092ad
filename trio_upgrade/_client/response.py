# What a client gets: the final response, and the exceptions that carry one.
from __future__ import annotations

from typing import TYPE_CHECKING, final

from .._errors import OpenError
from .._util import public

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from .._body import Body
    from .._http.headers import Headers
    from .._http.messages import ResponseHead


@public
@final
class ClientResponse:
    """A final response, as a client gets it.

    Attributes:
        head: Status, reason, version and fields together.
        informational: The heads of the 1xx responses that came before it.
        body: What :meth:`read` has read, or what was kept of a refusal's body.
        truncated: Whether :attr:`body` was cut at ``Limits.refusal_body`` bytes.
    """

    __slots__ = ("_body", "body", "head", "informational", "truncated")

    def __init__(
        self,
        head: ResponseHead,
        informational: tuple[ResponseHead, ...],
        body: Body,
    ) -> None:
        self.head: ResponseHead = head
        self.informational: tuple[ResponseHead, ...] = informational
        self.body: bytes = b""
        self.truncated: bool = False
        self._body = body

    @property
    def status(self) -> int:
        """The status code."""
        return self.head.status

    @property
    def reason(self) -> str:
        """The reason phrase, which may be empty."""
        return self.head.reason

    @property
    def http_version(self) -> str:
        """``"1.1"`` or ``"1.0"``."""
        return self.head.http_version

    @property
    def headers(self) -> Headers:
        """The fields."""
        return self.head.headers

    @property
    def trailers(self) -> Headers:
        """The fields behind a chunked body; none before its end was read."""
        return self._body.trailers

    async def read(self, limit: int | None = None) -> bytes:
        """Read the whole body and keep it: a second call returns the same bytes.

        Cancelled, it has lost nothing; the next call goes on.

        Args:
            limit: The most bytes to take; None means ``Limits.body_bytes``.

        Raises:
            BodyTooLarge: There are more.
            BadBody: The framing is broken or the server left in the middle.
        """
        self.body = await self._body.read(limit)
        return self.body

    def stream(self) -> AsyncIterator[bytes]:
        """Iterate over the body as it comes, without bound on its length.

        Raises:
            BadBody: As :meth:`read` does, from the iteration.
        """
        return self._body.stream()

    async def keep(self, limit: int) -> None:
        """Read the beginning of the body into :attr:`body`, the rest stays unread.

        Args:
            limit: The most bytes to keep; :attr:`truncated` tells if there are more.

        Raises:
            BadBody: As :meth:`read` does; what came before is kept all the same.
        """
        self.truncated = True
        try:
            self.body, self.truncated = await self._body.read_beginning(limit)
        except BaseException:
            self.body = self._body.peek(limit)
            raise

    def __repr__(self) -> str:
        return f"<ClientResponse {self.status} {self.reason}>"


@public
class Refused(OpenError):
    """The server answered with an ordinary final response; one of the two below.

    Attributes:
        response: That response. From :func:`open_upgrade` and :func:`open_tunnel` its
            connection is closed and its body is in :attr:`ClientResponse.body`, cut at
            ``Limits.refusal_body`` bytes; from a :class:`ClientConnection` the body is
            still to be read and the connection's scope owns it.
    """

    def __init__(self, response: ClientResponse) -> None:
        super().__init__(f"refused with {response.status} {response.reason}")
        self.response = response


@public
class UpgradeRefused(Refused):
    """The server did not take up the offer; it may well serve other requests."""


@public
class TunnelRefused(Refused):
    """The proxy answered the CONNECT with something other than a 2xx.

    Nothing else can be asked on that connection (RFC 9931 §8).

    Attributes:
        proxy: ``host[:port]`` of that proxy, which may be any of a chain.
    """

    def __init__(self, response: ClientResponse, proxy: str) -> None:
        super().__init__(response)
        self.proxy = proxy
