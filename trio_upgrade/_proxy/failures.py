# What a client is told when the upstream fails.  The texts name no address, port or
# reason of the system: they would show the network behind the proxy.
from __future__ import annotations

from typing import Final, NamedTuple

import trio

from .. import (
    BadResponse,
    BodyError,
    IllegalSwitch,
    OpenError,
    PeerGone,
    Response,
    TLSFailed,
)


class Failure(NamedTuple):
    """A status and its reason, as the client gets them."""

    status: int
    text: str

    def respond(self) -> Response:
        """Return the response."""
        return Response(self.status, f"{self.text}\n")


UNREACHABLE: Final = Failure(502, "the upstream cannot be reached")
CONNECT_TIMEOUT: Final = Failure(
    504, "the upstream did not accept a connection in time"
)
ANSWER_TIMEOUT: Final = Failure(504, "the upstream did not answer in time")
CLOSED: Final = Failure(503, "this proxy is closed")
LOOP: Final = Failure(508, "the request has passed this proxy before")

# The first class that an exception is of decides.
_TEXTS: Final = (
    (TLSFailed, "TLS with the upstream failed"),
    (IllegalSwitch, "the upstream switched protocols against the rules"),
    (BadResponse, "the upstream did not answer in HTTP"),
    (PeerGone, "the upstream closed the connection before its answer"),
    (BodyError, "the upstream broke off its answer"),
    (OpenError, "the upstream refused the connection"),
    (trio.BrokenResourceError, "the connection to the upstream broke"),
)


def name_failure(error: Exception) -> Failure:
    """Return the failure that an exception of the upstream's side means."""
    for kind, text in _TEXTS:
        if isinstance(error, kind):
            return Failure(502, text)
    return UNREACHABLE
