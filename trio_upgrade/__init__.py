"""HTTP/1.1 connections that become something else, as ordinary Trio tasks."""

from ._client import ClientConnection as ClientConnection
from ._copy import Transfer as Transfer
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
from ._headers import Headers as Headers
from ._limits import Limits as Limits
from ._listening import inherit_listeners as inherit_listeners
from ._messages import (
    ClientResponse as ClientResponse,
    Response as Response,
    ResponseHead as ResponseHead,
    Tunnel as Tunnel,
    Upgrade as Upgrade,
)
from ._open import (
    open_connection as open_connection,
    open_tunnel as open_tunnel,
    open_upgrade as open_upgrade,
)
from ._pipe import pipe as pipe
from ._proxies import (
    Proxy as Proxy,
    proxy_from_environment as proxy_from_environment,
)
from ._relay import Relayed as Relayed, relay as relay
from ._request import Request as Request
from ._serve import (
    serve_listeners as serve_listeners,
    serve_ssl_over_tcp as serve_ssl_over_tcp,
    serve_stream as serve_stream,
    serve_tcp as serve_tcp,
    serve_unix as serve_unix,
)
from ._server import Server as Server, drain_on_signal as drain_on_signal
from ._stream import UpgradedStream as UpgradedStream
from ._target import Authority as Authority
from ._tokens import Offers as Offers
from ._upgraded import Upgraded as Upgraded
from ._watching import (
    EndReason as EndReason,
    EndRecord as EndRecord,
    ErrorRecord as ErrorRecord,
    RequestRecord as RequestRecord,
    ServerStatistics as ServerStatistics,
    SwitchRecord as SwitchRecord,
)
