# TLS for tests: a certificate authority made on the spot, and streams on top of a pair.
from __future__ import annotations

import ssl
from functools import partial
from typing import TYPE_CHECKING

import trio
import trustme

if TYPE_CHECKING:
    from .sockets import Pair


def make_tls_contexts() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Return a client's and a server's context, with a certificate for "localhost"."""
    authority = trustme.CA()
    client = ssl.create_default_context()
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.configure_trust(client)
    authority.issue_cert("localhost").configure_cert(server)
    return client, server


def wrap_tls(
    pair: tuple[trio.abc.Stream, trio.abc.Stream],
    contexts: tuple[ssl.SSLContext, ssl.SSLContext],
    *,
    https_compatible: bool,
) -> tuple[trio.SSLStream[trio.abc.Stream], trio.SSLStream[trio.abc.Stream]]:
    """Return TLS over both ends of a pair: first the client, then the server."""
    wrap = partial(trio.SSLStream, https_compatible=https_compatible)
    return (
        wrap(pair[0], contexts[0], server_hostname="localhost"),
        wrap(pair[1], contexts[1], server_side=True),
    )


async def tls_pair(pair: Pair) -> Pair:
    """Return TLS over both ends of a pair, after the handshake; ours is the server."""
    far, near = wrap_tls(
        (pair[1], pair[0]), make_tls_contexts(), https_compatible=False
    )
    async with trio.open_nursery() as nursery:
        nursery.start_soon(near.do_handshake)
        nursery.start_soon(far.do_handshake)
    return near, far
