"""HTTP/1.1 connections that become something else, as ordinary Trio tasks."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ._client.connection import ClientConnection as ClientConnection
    from ._client.open import (
        open_connection as open_connection,
        open_tunnel as open_tunnel,
        open_upgrade as open_upgrade,
    )
    from ._client.proxies import (
        Proxy as Proxy,
        proxy_from_environment as proxy_from_environment,
    )
    from ._client.upgraded import UpgradedConnection as UpgradedConnection
    from ._copy.engine import Progress as Progress
    from ._copy.pipe import pipe as pipe
    from ._copy.relay import RelayResult as RelayResult, relay as relay
    from ._errors import (
        BadBody as BadBody,
        BadResponse as BadResponse,
        BodyError as BodyError,
        BodyTimeout as BodyTimeout,
        BodyTooLarge as BodyTooLarge,
        HalfCloseUnsupported as HalfCloseUnsupported,
        IllegalSwitch as IllegalSwitch,
        MalformedMessage as MalformedMessage,
        NotOffered as NotOffered,
        OpenError as OpenError,
        PeerGone as PeerGone,
        Refused as Refused,
        SocksRefused as SocksRefused,
        TLSFailed as TLSFailed,
        TrioUpgradeError as TrioUpgradeError,
        TunnelRefused as TunnelRefused,
        Unavailable as Unavailable,
        UpgradeRefused as UpgradeRefused,
        UsageError as UsageError,
    )
    from ._http.headers import Headers as Headers
    from ._http.targets import Authority as Authority
    from ._http.tokens import Offers as Offers
    from ._limits import Limits as Limits
    from ._messages import (
        ClientResponse as ClientResponse,
        Response as Response,
        ResponseHead as ResponseHead,
        Tunnel as Tunnel,
        Upgrade as Upgrade,
    )
    from ._server.records import (
        EndReason as EndReason,
        EndRecord as EndRecord,
        ErrorRecord as ErrorRecord,
        RequestRecord as RequestRecord,
        ServerStatistics as ServerStatistics,
        SwitchRecord as SwitchRecord,
    )
    from ._server.request import Request as Request
    from ._server.serve import (
        serve_listeners as serve_listeners,
        serve_ssl_over_tcp as serve_ssl_over_tcp,
        serve_stream as serve_stream,
        serve_tcp as serve_tcp,
        serve_unix as serve_unix,
    )
    from ._server.server import Server as Server, drain_on_signal as drain_on_signal
    from ._streams.tcp_listeners import inherit_listeners as inherit_listeners
    from ._streams.upgraded import UpgradedStream as UpgradedStream
else:
    from importlib import import_module

    # What is not used is not imported: a server has no use for the client's rooms, nor a
    # client for the server's, and each half takes most of the time that both take.
    _ROOMS = {
        "_client.connection": "ClientConnection",
        "_copy.engine": "Progress",
        "_errors": (
            "BadBody BadResponse BodyError BodyTimeout BodyTooLarge "
            "HalfCloseUnsupported IllegalSwitch MalformedMessage NotOffered "
            "OpenError PeerGone Refused SocksRefused TLSFailed "
            "TrioUpgradeError TunnelRefused Unavailable UpgradeRefused "
            "UsageError"
        ),
        "_http.headers": "Headers",
        "_limits": "Limits",
        "_streams.tcp_listeners": "inherit_listeners",
        "_messages": "ClientResponse Response ResponseHead Tunnel Upgrade",
        "_client.open": "open_connection open_tunnel open_upgrade",
        "_copy.pipe": "pipe",
        "_client.proxies": "Proxy proxy_from_environment",
        "_copy.relay": "RelayResult relay",
        "_server.request": "Request",
        "_server.serve": (
            "serve_listeners serve_ssl_over_tcp serve_stream serve_tcp serve_unix"
        ),
        "_server.server": "Server drain_on_signal",
        "_streams.upgraded": "UpgradedStream",
        "_http.targets": "Authority",
        "_http.tokens": "Offers",
        "_client.upgraded": "UpgradedConnection",
        "_server.records": (
            "EndReason EndRecord ErrorRecord RequestRecord ServerStatistics "
            "SwitchRecord"
        ),
    }
    _HOMES = {name: room for room, names in _ROOMS.items() for name in names.split()}
    __all__ = sorted(_HOMES)

    def __getattr__(name: str) -> object:
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = globals()[name] = getattr(
            import_module(f".{_HOMES[name]}", __name__), name
        )
        return value

    def __dir__() -> list[str]:
        return sorted({*globals(), *_HOMES})
