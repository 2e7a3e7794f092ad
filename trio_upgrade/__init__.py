"""HTTP/1.1 connections that become something else, as ordinary Trio tasks."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ._client.connection import ClientConnection as ClientConnection
    from ._client.open import (
        DialOptions as DialOptions,
        open_connection as open_connection,
        open_tunnel as open_tunnel,
        open_upgrade as open_upgrade,
    )
    from ._client.pool import ConnectionPool as ConnectionPool
    from ._client.pool_response import PooledResponse as PooledResponse
    from ._client.pool_statistics import PoolStatistics as PoolStatistics
    from ._client.proxies import Proxy as Proxy
    from ._client.proxy_environment import (
        proxy_from_environment as proxy_from_environment,
    )
    from ._client.response import (
        ClientResponse as ClientResponse,
        Refused as Refused,
        TunnelRefused as TunnelRefused,
        UpgradeRefused as UpgradeRefused,
    )
    from ._client.upgraded import UpgradedConnection as UpgradedConnection
    from ._copy.pipe import pipe as pipe
    from ._copy.progress import Progress as Progress
    from ._copy.relay import RelayResult as RelayResult, relay as relay
    from ._errors import (
        BadBody as BadBody,
        BadResponse as BadResponse,
        BodyError as BodyError,
        BodyTimeout as BodyTimeout,
        BodyTooLarge as BodyTooLarge,
        EndOfStream as EndOfStream,
        HalfCloseUnsupported as HalfCloseUnsupported,
        IllegalSwitch as IllegalSwitch,
        MalformedMessage as MalformedMessage,
        NotOffered as NotOffered,
        OpenError as OpenError,
        PeerGone as PeerGone,
        SocksRefused as SocksRefused,
        TLSFailed as TLSFailed,
        TooLong as TooLong,
        TrioUpgradeError as TrioUpgradeError,
        Unavailable as Unavailable,
        UsageError as UsageError,
    )
    from ._http.headers import Headers as Headers, HeadersLike as HeadersLike
    from ._http.messages import ResponseHead as ResponseHead
    from ._http.targets import Authority as Authority
    from ._http.tokens import Offers as Offers
    from ._limits import Limits as Limits
    from ._room.room import (
        Room as Room,
        RoomMember as RoomMember,
        open_room as open_room,
    )
    from ._server.end_reason import EndReason as EndReason
    from ._server.forwarded import Forwarded as Forwarded, forwarded as forwarded
    from ._server.open_server import open_server as open_server
    from ._server.records import (
        EndRecord as EndRecord,
        ErrorRecord as ErrorRecord,
        RequestRecord as RequestRecord,
        SwitchRecord as SwitchRecord,
    )
    from ._server.request import Request as Request
    from ._server.response import (
        App as App,
        Response as Response,
        Tunnel as Tunnel,
        Upgrade as Upgrade,
        UpgradeHandler as UpgradeHandler,
    )
    from ._server.serve import (
        ServeOptions as ServeOptions,
        serve_listeners as serve_listeners,
        serve_ssl_over_tcp as serve_ssl_over_tcp,
        serve_stream as serve_stream,
        serve_tcp as serve_tcp,
        serve_unix as serve_unix,
    )
    from ._server.server import Server as Server, drain_on_signal as drain_on_signal
    from ._server.statistics import ServerStatistics as ServerStatistics
    from ._server.streamed_response import StreamedResponse as StreamedResponse
    from ._streams.scope import stream_scope as stream_scope
    from ._streams.tcp_listeners import inherit_listeners as inherit_listeners
    from ._streams.tls import TLSStream as TLSStream
    from ._streams.trusted_peers import (
        TrustedLike as TrustedLike,
        TrustedPeers as TrustedPeers,
    )
    from ._streams.upgraded import UpgradedStream as UpgradedStream
    from ._workers.run import run_workers as run_workers
    from ._workers.worker import Worker as Worker

    __version__: str
else:
    from importlib import import_module

    # Each name is imported when it is first used: a server needs no module of the client,
    # nor a client one of the server, and each half takes most of the time of both.
    _MODULES = {
        "_client.connection": "ClientConnection",
        "_client.open": "DialOptions open_connection open_tunnel open_upgrade",
        "_client.pool": "ConnectionPool",
        "_client.pool_response": "PooledResponse",
        "_client.pool_statistics": "PoolStatistics",
        "_client.proxies": "Proxy",
        "_client.proxy_environment": "proxy_from_environment",
        "_client.response": "ClientResponse Refused TunnelRefused UpgradeRefused",
        "_client.upgraded": "UpgradedConnection",
        "_copy.pipe": "pipe",
        "_copy.progress": "Progress",
        "_copy.relay": "RelayResult relay",
        "_errors": (
            "BadBody BadResponse BodyError BodyTimeout BodyTooLarge EndOfStream "
            "HalfCloseUnsupported IllegalSwitch MalformedMessage "
            "NotOffered OpenError PeerGone SocksRefused TLSFailed TooLong "
            "TrioUpgradeError Unavailable UsageError"
        ),
        "_http.headers": "Headers HeadersLike",
        "_http.messages": "ResponseHead",
        "_http.targets": "Authority",
        "_http.tokens": "Offers",
        "_limits": "Limits",
        "_room.room": "Room RoomMember open_room",
        "_server.end_reason": "EndReason",
        "_server.forwarded": "Forwarded forwarded",
        "_server.open_server": "open_server",
        "_server.records": "EndRecord ErrorRecord RequestRecord SwitchRecord",
        "_server.request": "Request",
        "_server.response": "App Response Tunnel Upgrade UpgradeHandler",
        "_server.serve": (
            "ServeOptions serve_listeners serve_ssl_over_tcp serve_stream serve_tcp "
            "serve_unix"
        ),
        "_server.server": "Server drain_on_signal",
        "_server.statistics": "ServerStatistics",
        "_server.streamed_response": "StreamedResponse",
        "_streams.scope": "stream_scope",
        "_streams.tcp_listeners": "inherit_listeners",
        "_streams.tls": "TLSStream",
        "_streams.trusted_peers": "TrustedLike TrustedPeers",
        "_streams.upgraded": "UpgradedStream",
        "_workers.run": "run_workers",
        "_workers.worker": "Worker",
    }
    _HOMES = {
        name: module for module, names in _MODULES.items() for name in names.split()
    }
    __all__ = sorted(_HOMES)

    def __getattr__(name: str) -> object:
        if name == "__version__":
            # Read when it is asked for: importlib.metadata is slow to import.
            from importlib.metadata import version

            value = version("trio-upgrade")
        elif name in _HOMES:
            value = getattr(import_module(f".{_HOMES[name]}", __name__), name)
        else:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        globals()[name] = value
        return value

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__, "__version__"})
