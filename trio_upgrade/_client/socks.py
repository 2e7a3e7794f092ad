# SOCKS5 on a stream that is open already, spoken by python-socks.  Its Proxy dials by
# itself unless another one goes before it (forward=): in that place stands our stream.
from __future__ import annotations

import math
from importlib import import_module
from typing import TYPE_CHECKING, cast, final

import trio

from .._errors import BadResponse, PeerGone, SocksRefused

if TYPE_CHECKING:
    from python_socks.async_.trio.v2 import Proxy as SocksClient

    from .urls import Credentials, Endpoint

# RFC 1929 §2: each has one octet for its length.
_LONGEST = 255


def check_available() -> None:
    """Make sure that the package is there.

    Raises:
        ModuleNotFoundError: It is not; the message names the extra.
    """
    try:
        import_module("python_socks.async_.trio.v2")
    except ModuleNotFoundError as exc:
        raise ModuleNotFoundError(
            "SOCKS proxies need the extra: pip install trio-upgrade[socks]"
        ) from exc


def check_credentials(credentials: Credentials | None) -> None:
    """Make sure that SOCKS can carry them (RFC 1929 §2), and python-socks, too.

    Raises:
        ValueError: It cannot.
    """
    if credentials is not None:
        for part in (credentials.user, credentials.password):
            if not 1 <= len(part) <= _LONGEST or not part.isascii():
                raise ValueError("credentials in the URL that SOCKS cannot carry")


async def connect_by_socks(
    stream: trio.abc.Stream, proxy: Endpoint, target: Endpoint, *, look_up: bool
) -> None:
    """Have a SOCKS5 proxy connect to the target; the stream then leads there.

    Args:
        stream: Leads to the proxy. It is not closed here.
        proxy: The proxy.
        target: Whom to connect to.
        look_up: Whether its name is looked up here and not by the proxy.

    Raises:
        OSError: The name is not known here.
        SocksRefused: The proxy did not connect, or does not speak SOCKS5.
        BadResponse: Its answer makes no sense.
        PeerGone: It went away before its answer was complete.
    """
    from python_socks import ProxyError, ProxyType
    from python_socks.async_.trio.v2 import Proxy as SocksClient

    user = password = None
    if proxy.credentials is not None:
        user = proxy.credentials.user.decode("ascii")
        password = proxy.credentials.password.decode("ascii")
    client = SocksClient(
        ProxyType.SOCKS5,
        proxy.host,
        proxy.port,
        user,
        password,
        rdns=not look_up,
        forward=cast("SocksClient", _Opened(stream)),
    )
    try:
        # Its own timeout would be 60 s: the caller has a scope for that.
        await client.connect(target.host, target.port, timeout=math.inf)
    except ProxyError as exc:
        raise SocksRefused(str(exc), proxy.authority, exc.error_code) from exc
    except trio.BrokenResourceError as exc:
        raise PeerGone("the connection broke before the SOCKS answer") from exc
    except UnicodeDecodeError as exc:
        raise BadResponse("the SOCKS proxy's own address is malformed") from exc


@final
class _Opened:
    # What python-socks needs of the one that goes before, and of a stream.
    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream

    async def connect(self, dest_host: str, dest_port: int) -> _Opened:  # noqa: ARG002
        await trio.lowlevel.checkpoint()
        return self

    async def write(self, data: bytes) -> None:
        await self._stream.send_all(data)

    async def read_exactly(self, n: int) -> bytes:
        # Not one byte more: what follows the reply is the target's.
        data = b""
        while len(data) < n:
            received = await self._stream.receive_some(n - len(data))
            if not received:
                raise PeerGone("the SOCKS proxy ended the connection in its answer")
            data += received
        return data

    async def close(self) -> None:
        # Its owner does that.
        await trio.lowlevel.checkpoint()
