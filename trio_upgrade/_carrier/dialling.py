# A stream to a server, by the first of three carriers that gets through.
from __future__ import annotations

import logging
import math
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from difflib import get_close_matches
from inspect import Parameter, Signature, signature
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, cast, final

import trio

from .. import (
    BadResponse,
    DialOptions,
    IllegalSwitch,
    OpenError,
    PeerGone,
    Refused,
    TLSFailed,
    open_tunnel,
    open_upgrade,
)
from .extra import load_websocket
from .names import (
    check_fields,
    find_authority,
    find_credentials,
    name_subprotocol,
    public,
    show_url,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import TracebackType
    from typing import Unpack

    from .. import HeadersLike, UpgradedConnection
    from .names import Pair

T = TypeVar("T")

LOGGER = logging.getLogger("trio_upgrade.carrier")

# A peer on the way that knows only ordinary HTTP answers or breaks like this.
_PASSED_STATUSES = frozenset({400, 404, 405, 426, 501, 502})
_PASSED = (TLSFailed, PeerGone, BadResponse, IllegalSwitch, trio.TooSlowError)
_EXTRA = "WebSocket: left out, as it needs the extra trio-upgrade[websocket]"


def _declare_options(function: T) -> T:
    # Give a function a signature with the options instead of **options.
    shared = signature(open_upgrade).parameters
    *own, _ = signature(cast("Callable[..., object]", function)).parameters.values()
    options: list[Parameter] = [
        shared[name] for name in DialOptions.__annotations__ if name != "stream"
    ]
    returned = cast("Any", function).__annotations__["return"]
    cast("Any", function).__signature__ = Signature(
        [*own, *options], return_annotation=returned
    )
    return function


@public
@_declare_options
def open_carrier(
    url: str,
    protocol: str,
    *,
    attempt_timeout: float | None = 5,
    headers: HeadersLike = (),
    **options: Unpack[DialOptions],
) -> AbstractAsyncContextManager[trio.abc.HalfCloseableStream]:
    """Return a block that opens a stream to a server, by a carrier that gets through.

    ::

        async with open_carrier("https://example.com/ssh", "ssh") as stream:
            await relay(stream, local, tls_ends=True)

    Peers on the way may let only some of HTTP pass. Three carriers are tried, each on a
    connection of its own: ``Upgrade: protocol`` (RFC 9110 §7.8); a WebSocket with binary
    messages (RFC 6455); CONNECT to the URL's own host and port (RFC 9110 §9.3.6). The
    server accepts them by :func:`accept_carrier`.

    The next carrier is tried when there was no answer within ``attempt_timeout``, no
    TLS, an end or a reset before the answer, an answer that is not HTTP or no legal
    switch, or a 400, 404, 405, 426, 501 or 502. All else is final, and raised at once: a
    401, 403, 407 or 503 for example would be the answer to each of them.

    By WebSocket, an empty message ends a direction, and a ping is sent after each 20
    seconds. A send that is cancelled there resets the stream. Without the extra
    ``trio-upgrade[websocket]`` this carrier is left out.

    Leaving the block ends the stream: normally in stages, after an error or a
    cancellation by a reset, unless ``send_eof`` had returned. What the block raises
    leaves it as it is, in no group. If the opening fails or is cancelled, nothing is
    left open.

    Args:
        url: As for :func:`trio_upgrade.open_upgrade`. Its credentials are sent as
            Authorization by each carrier.
        protocol: The protocol that is carried, ``name`` or ``name/version``. The
            subprotocol of WebSocket is ``carrier.name`` or ``carrier.name.version``, in
            lower case.
        attempt_timeout: Seconds for each attempt, connecting included. None disables
            the limit.
        headers: Further fields of each request.
        options: Those of :class:`trio_upgrade.DialOptions`, without ``stream``, which
            could be used for one attempt only.

    Raises:
        TypeError: An argument has another type, or there is no such option. From the
            call, but for the options: these are checked when the block is entered, and
            nothing was opened.
        ValueError: An argument has no such value; likewise.
        OSError: Entering: the server, or the first proxy, cannot be reached.
        Refused: Entering: the answer to one carrier is final.
        SocksRefused: Entering: a SOCKS proxy opened no tunnel.
        OpenError: Entering: no carrier got through. Each cause is a note of it
            (``__notes__``), and in the group that is its ``__cause__``. Other errors
            have the causes before them as notes.
    """
    _check_options(options)
    if not isinstance(cast("object", url), str):
        raise TypeError(f"a URL must be a str, not {type(url).__name__}")
    given = cast("object", attempt_timeout)
    if given is not None:
        if isinstance(given, bool) or not isinstance(given, int | float):
            kind = type(given).__name__
            raise TypeError(f"attempt_timeout must be seconds or None, not {kind}")
        if not given > 0:
            raise ValueError(f"attempt_timeout must be positive, not {given!r}")
    name_subprotocol(protocol)
    fields = check_fields(headers)
    websocket = load_websocket()
    carriers: list[_Carrier] = [
        _UpgradeCarrier(url, protocol, fields, options),
        _ConnectCarrier(url, fields, options),
    ]
    if websocket is not None:
        carriers.insert(1, websocket(url, protocol, fields, options))
    seconds = math.inf if attempt_timeout is None else attempt_timeout
    return _OpenCarrier(show_url(url), carriers, seconds)


def _check_options(options: Mapping[str, object]) -> None:
    known = signature(open_carrier).parameters
    for name in options:
        if name == "stream":
            raise TypeError("stream= can be used for one attempt only")
        if name not in known:
            text = f"open_carrier() got an unexpected keyword argument {name!r}"
            near = get_close_matches(name, [*known], n=1)
            raise TypeError(text + (f". Did you mean {near[0]!r}?" if near else ""))


class _Carrier(Protocol):
    name: str

    async def open(self, stack: AsyncExitStack) -> trio.abc.HalfCloseableStream: ...


@final
class _UpgradeCarrier:
    __slots__ = ("_fields", "_options", "_protocol", "_url")
    name = "Upgrade"

    def __init__(
        self, url: str, protocol: str, fields: list[Pair], options: DialOptions
    ) -> None:
        self._url = url
        self._protocol = protocol
        self._fields = fields
        self._options = options

    async def open(self, stack: AsyncExitStack) -> trio.abc.HalfCloseableStream:
        connection = await open_upgrade(
            self._url, self._protocol, headers=self._fields, **self._options
        )
        return _own(connection, stack)


@final
class _ConnectCarrier:
    __slots__ = ("_fields", "_options", "_url")
    name = "CONNECT"

    def __init__(self, url: str, fields: list[Pair], options: DialOptions) -> None:
        self._url = url
        self._fields = fields
        self._options = options

    async def open(self, stack: AsyncExitStack) -> trio.abc.HalfCloseableStream:
        fields = self._fields
        if not any(_is_authorization(name) for name, _ in fields):
            fields = [*fields, *find_credentials(self._url)]
        connection = await open_tunnel(
            self._url, find_authority(self._url), headers=fields, **self._options
        )
        return _own(connection, stack)


def _is_authorization(name: str | bytes) -> bool:
    return name.lower() in ("authorization", b"authorization")


def _own(
    connection: UpgradedConnection, stack: AsyncExitStack
) -> trio.abc.HalfCloseableStream:
    # All that open_upgrade() dials can half-close.
    stack.push_async_exit(connection)
    return cast("trio.abc.HalfCloseableStream", connection.stream)


@final
class _OpenCarrier(AbstractAsyncContextManager["trio.abc.HalfCloseableStream", None]):
    __slots__ = ("_carriers", "_seconds", "_shown_url", "_stack")

    def __init__(
        self, shown_url: str, carriers: list[_Carrier], seconds: float
    ) -> None:
        self._shown_url = shown_url
        self._carriers = carriers
        self._seconds = seconds
        self._stack: AsyncExitStack

    async def __aenter__(self) -> trio.abc.HalfCloseableStream:
        failures: list[Exception] = []
        notes: list[str] = []
        for carrier in self._carriers:
            try:
                return await self._attempt(carrier)
            except Exception as exc:
                if not _is_passed(exc):
                    _add_notes(exc, notes)
                    raise
                failures.append(exc)
                notes.append(f"{carrier.name}: {exc}")
                LOGGER.debug(
                    "%s: no stream by %s: %s", self._shown_url, carrier.name, exc
                )
        if all(carrier.name != "WebSocket" for carrier in self._carriers):
            notes.insert(1, _EXTRA)
        error = OpenError(f"{self._shown_url}: no carrier gets through")
        _add_notes(error, notes)
        raise error from ExceptionGroup("the carriers that were tried", failures)

    async def _attempt(self, carrier: _Carrier) -> trio.abc.HalfCloseableStream:
        async with AsyncExitStack() as stack:
            # The tasks of a WebSocket run inside this scope, so it lasts as long.
            scope = stack.enter_context(trio.move_on_after(self._seconds))
            stream = await carrier.open(stack)
            if not scope.cancel_called:
                scope.deadline = math.inf
                self._stack = stack.pop_all()
                return stream
            # The answer and the deadline came at once: the scope cannot be used.
        raise trio.TooSlowError(f"no answer within {self._seconds:g} seconds")

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._stack.__aexit__(exc_type, exc, traceback)


def _is_passed(exc: Exception) -> bool:
    if isinstance(exc, Refused):
        return exc.response.status in _PASSED_STATUSES
    return isinstance(exc, _PASSED)


def _add_notes(exc: Exception, notes: list[str]) -> None:
    for note in notes:
        exc.add_note(note)
