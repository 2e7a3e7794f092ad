"""HTTP/1.1 connections that become something else, as ordinary Trio tasks."""

from ._client import (
    ClientConnection as ClientConnection,
    Upgraded as Upgraded,
    open_connection as open_connection,
    open_upgrade as open_upgrade,
)
from ._copy import Transfer as Transfer
from ._errors import (
    BadBody as BadBody,
    BadResponse as BadResponse,
    BodyError as BodyError,
    BodyTooLarge as BodyTooLarge,
    HalfCloseUnsupported as HalfCloseUnsupported,
    IllegalSwitch as IllegalSwitch,
    MalformedMessage as MalformedMessage,
    NotOffered as NotOffered,
    OpenError as OpenError,
    PeerGone as PeerGone,
    TrioUpgradeError as TrioUpgradeError,
    UpgradeRefused as UpgradeRefused,
    UsageError as UsageError,
)
from ._headers import Headers as Headers
from ._limits import Limits as Limits
from ._messages import (
    ClientResponse as ClientResponse,
    Response as Response,
    ResponseHead as ResponseHead,
    Upgrade as Upgrade,
)
from ._pipe import pipe as pipe
from ._relay import Relayed as Relayed, relay as relay
from ._request import Request as Request
from ._server import (
    Server as Server,
    serve_listeners as serve_listeners,
    serve_stream as serve_stream,
    serve_tcp as serve_tcp,
)
from ._stream import UpgradedStream as UpgradedStream
from ._target import Authority as Authority
from ._tokens import Offers as Offers
