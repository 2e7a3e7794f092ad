# What a break of the stream means before the switch: TLS that failed, or a server that
# is gone.  In TLS 1.3 a client's handshake is over before the server has seen its
# certificate (RFC 8446 §2, figure 1).  So the alert that refuses it comes with the first
# receive; it is as much a failed handshake as in TLS 1.2.
from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

from .._errors import PeerGone, TLSFailed
from .._http_stream import find_tls_error

if TYPE_CHECKING:
    import trio


def raise_break(
    exc: trio.BrokenResourceError,
    where: str | None,
    gone: str,
    *,
    earlier: trio.BrokenResourceError | None = None,
    request_sent: bool = False,
) -> NoReturn:
    """Raise what the break of a stream means.

    Args:
        exc: The break.
        where: The peer in TLS, for the message; None if the caller of the caller names
            it, and it may be a proxy on the way.
        gone: The message if TLS did not fail.
        earlier: An earlier break of the same stream, None if there was none. After it a
            TLS stream breaks again without a reason.
        request_sent: Whether any byte of the request was given to the stream.

    Raises:
        TLSFailed: A TLS error broke the stream; it is the cause.
        PeerGone: The peer went away.
    """
    failure = find_tls_error(exc) or find_tls_error(earlier)
    if failure is None:
        raise PeerGone(gone, request_sent=request_sent) from exc
    # Errors that OpenSSL did not make, of another implementation, may lack attributes.
    reason = (
        getattr(failure, "verify_message", None)
        or getattr(failure, "reason", None)
        or failure
    )
    what = "TLS failed" if where is None else f"no TLS with {where}"
    raise TLSFailed(f"{what}: {reason}") from failure
