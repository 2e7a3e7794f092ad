# SOCKS5 on a stream that is already open, spoken by python-socks.  Its Proxy dials by
# itself unless it has another Proxy to go through (forward=): we pass an object there
# that hands out our stream.
from __future__ import annotations

import math
from importlib import import_module
from typing import TYPE_CHECKING, cast, final

import trio

from .._errors import BadResponse, PeerGone, SocksRefused
from .breaks import raise_break
from .wording import escape

if TYPE_CHECKING:
    from python_socks.async_.trio.v2 import Proxy as SocksClient

    from .urls import Credentials, Endpoint

# RFC 1929 §2: each has one octet for its length.
_LONGEST = 255


def check_available() -> None:
    """Check that the package is installed.

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
    """Check that SOCKS (RFC 1929 §2) and python-socks can carry the credentials.

    Raises:
        ValueError: They cannot.
    """
    if credentials is not None:
        for part in (credentials.user, credentials.password):
            if not 1 <= len(part) <= _LONGEST or not part.isascii():
                raise ValueError("credentials in the URL that SOCKS cannot carry")


async def connect_by_socks(
    stream: trio.abc.Stream, proxy: Endpoint, target: Endpoint, *, look_up: bool
) -> None:
    """Have a SOCKS5 proxy connect to the target; the stream is then one to the target.

    Args:
        stream: The connection to the proxy. It is not closed here.
        proxy: The proxy.
        target: The host to connect to.
        look_up: Whether the target's name is looked up here and not by the proxy.

    Raises:
        OSError: The name cannot be looked up here.
        SocksRefused: The proxy did not connect, or does not speak SOCKS5.
        BadResponse: Its answer is malformed.
        PeerGone: It went away before its answer was complete.
        TLSFailed: The TLS below, to the proxy before it, broke.
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
        # Without this the package has a timeout of 60 s; our callers use cancel scopes.
        await client.connect(target.host, target.port, timeout=math.inf)
    except ProxyError as exc:
        reason = f"no tunnel to {target.authority}: {escape(str(exc))}"
        raise SocksRefused(reason, proxy.authority, exc.error_code) from exc
    except trio.BrokenResourceError as exc:
        gone = "the connection broke before the SOCKS answer"
        raise_break(exc, None, gone)
    except UnicodeDecodeError as exc:
        raise BadResponse("the SOCKS proxy's own address is malformed") from exc


@final
class _Opened:
    # The methods that python-socks calls on the Proxy to go through, and on its stream.
    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream

    async def connect(self, dest_host: str, dest_port: int) -> _Opened:  # noqa: ARG002
        await trio.lowlevel.checkpoint()
        return self

    async def write(self, data: bytes) -> None:
        await self._stream.send_all(data)

    async def read_exactly(self, n: int) -> bytes:
        # Not one byte more: the bytes after the reply are the target's.
        data = b""
        while len(data) < n:
            received = await self._stream.receive_some(n - len(data))
            if not received:
                raise PeerGone("the SOCKS proxy ended the connection in its answer")
            data += received
        return data

    async def close(self) -> None:
        # The owner of the stream closes it.
        await trio.lowlevel.checkpoint()
