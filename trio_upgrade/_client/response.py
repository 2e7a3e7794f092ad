# The final response that a client receives, and the exceptions that carry one.
from __future__ import annotations

import math
from contextlib import suppress
from typing import TYPE_CHECKING

import trio

from .._errors import BodyError, OpenError
from .._util import public
from .wording import escape, quote_refusal

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from .._body import Body
    from .._http.headers import Headers
    from .._http.messages import ResponseHead
    from .._limits import Limits


@public
class ClientResponse:
    """A final response, as a client receives it.

    Attributes:
        head: Status, reason, version and fields together.
        informational: The heads of the 1xx responses that came before it.
        body: The bytes that :meth:`read` has read; for a refusal that
            :func:`open_upgrade` or :func:`open_tunnel` raises, the beginning of its body.
        truncated: Whether :attr:`body` is not the whole body of such a refusal: it is
            longer than ``Limits.refusal_body``, took longer than ``Limits.linger`` or
            than half of the time that the caller's scope left, or broke off.
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
        """The fields after a chunked body; none before its end was read."""
        return self._body.trailers

    async def read(self, limit: int | None = None) -> bytes:
        """Read the whole body and keep it: a second call returns the same bytes.

        If this is cancelled, no byte is lost; the next call continues.

        Args:
            limit: The most bytes to read; None means ``Limits.body_bytes``.

        Raises:
            BodyTooLarge: The body is longer.
            BadBody: The framing is broken, or the server went away in the middle.
        """
        self.body = await self._body.read(limit)
        return self.body

    async def read_received(self) -> bool:
        """Read what was received of the body already, without waiting for the server.

        For a proxy, which can pass on a short answer in one piece: the body often comes
        together with the header section. A checkpoint if anything is read.

        Returns:
            Whether that is the whole body; then ``body`` has it, as after
            :meth:`read`. If not, the bytes are kept for the next reading of any kind.
            They are at most about as many as one receive gives, 64 KiB.

        Raises:
            BadBody: As :meth:`read` does.
        """
        body = await self._body.gather_received()
        if body is None:
            return False
        self.body = body
        return True

    def stream(self) -> AsyncIterator[bytes]:
        """Iterate over the body as it comes, without a limit on its length.

        Raises:
            BadBody: As :meth:`read` does, from the iteration.
        """
        return self._body.stream()

    def __repr__(self) -> str:
        return f"<ClientResponse {self.status} {escape(self.reason)}>"


@public
class Refused(OpenError):
    """The server answered with an ordinary final response; one of the two below.

    The message says who refused (URL or proxy, without userinfo and query), the status,
    the challenge of a 401 or 407, and the first words of the body if they were read and
    are text. What came from the server is escaped.

    Attributes:
        response: That response. From :func:`open_upgrade` and :func:`open_tunnel` its
            connection is closed and its body is in :attr:`ClientResponse.body`, cut at
            ``Limits.refusal_body`` bytes. From a :class:`ClientConnection` its body is
            not yet read, and stays with the connection.
    """

    def __init__(self, response: ClientResponse, named: str = "") -> None:
        super().__init__(response, named)
        self.response = response
        self._named = named

    def __str__(self) -> str:
        # Not made in advance: the body is read after the exception was made.
        text = quote_refusal(self.response.head, self.response.body)
        return f"{self._named}: refused with {text}".removeprefix(": ")


@public
class UpgradeRefused(Refused):
    """The server did not accept the offer; it may still serve other requests."""


@public
class TunnelRefused(Refused):
    """The proxy answered the CONNECT with something other than a 2xx.

    No other request can be made on that connection (RFC 9931 §8).

    Attributes:
        proxy: ``host[:port]`` of that proxy, which may be any proxy of a chain.
    """

    def __init__(self, response: ClientResponse, proxy: str, named: str = "") -> None:
        super().__init__(response, named)
        self.proxy = proxy


def refusal_seconds(limits: Limits) -> float:
    """Return how long to wait for the body of a response that is raised, or is early.

    ``Limits.linger`` seconds, but only half of what the scopes around the caller leave:
    otherwise the caller would get their timeout and not the response.
    """
    linger = math.inf if limits.linger is None else limits.linger
    left = trio.current_effective_deadline() - trio.current_time()
    return max(0, min(linger, left / 2))


async def read_refusal(refusal: Refused, limits: Limits) -> None:
    """Read the beginning of a refusal's body into ``refusal.response.body``.

    At most ``Limits.refusal_body`` bytes, for :func:`refusal_seconds`: a server must
    not hold the caller with an endless reason. If the body breaks off, the bytes before
    are kept; the status says enough.
    """
    response = refusal.response
    body = response._body  # pyright: ignore[reportPrivateUsage]
    response.truncated = True
    with trio.move_on_after(refusal_seconds(limits)), suppress(BodyError):
        response.body, response.truncated = await body.read_beginning(
            limits.refusal_body
        )
        return
    response.body = body.peek(limits.refusal_body)
