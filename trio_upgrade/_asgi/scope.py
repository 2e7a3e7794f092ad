# The scope of an ASGI application: what it is told about a connection.  The part that an
# HTTP request and a WebSocket have in common is apart from what only one of them has.
from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote

from .. import forwarded

if TYPE_CHECKING:
    from .. import Request, TrustedPeers
    from .types import Scope

# Not "2.4": from that version on, Starlette waits for an OSError of send() and does not
# listen for http.disconnect, so that a stream which is silent would go on after its
# client has left.
_HTTP_VERSION = "2.3"
# From this one on, an application may expect that send() raises an OSError when the
# client is gone.  The reason against it for HTTP does not hold: Starlette asks for the
# version only in streams of HTTP.
_WEBSOCKET_VERSION = "2.4"


def make_http_scope(
    request: Request, root_path: str, state: dict[str, Any], trusted: TrustedPeers
) -> Scope:
    """Return the scope of an HTTP request.

    Args:
        request: The request.
        root_path: The path below which a proxy shows the application; it is put before
            the path of the request.
        state: The state of the lifespan; the scope gets a shallow copy.
        trusted: The proxies that may say who the client is and what it asked for.
    """
    extensions: dict[str, dict[str, Any]] = {}
    if request.http_version != "1.0":
        # To HTTP/1.0 neither can be sent (RFC 9110 §15.2, RFC 9112 §7.1.2).
        extensions["http.response.trailers"] = {}
        extensions["http.response.early_hint"] = {}
    scope = make_connection_scope(request, root_path, state, trusted)
    scope["type"] = "http"
    scope["asgi"] = {"version": "3.0", "spec_version": _HTTP_VERSION}
    # In upper case, as the specification says; but methods have case (RFC 9110 §9.1).
    scope["method"] = request.method.upper()
    scope["extensions"] = extensions
    return scope


def make_websocket_scope(
    request: Request, root_path: str, state: dict[str, Any], trusted: TrustedPeers
) -> Scope:
    """Return the scope of a WebSocket; its arguments are those of an HTTP request's."""
    scope = make_connection_scope(request, root_path, state, trusted)
    scope["type"] = "websocket"
    scope["asgi"] = {"version": "3.0", "spec_version": _WEBSOCKET_VERSION}
    scope["scheme"] = "wss" if scope["scheme"] == "https" else "ws"
    scope["subprotocols"] = [
        name.strip()
        for value in request.headers.get_list("sec-websocket-protocol")
        for name in value.split(",")
        if name.strip()
    ]
    scope["extensions"] = {"websocket.http.response": {}}
    return scope


def make_connection_scope(
    request: Request, root_path: str, state: dict[str, Any], trusted: TrustedPeers
) -> dict[str, Any]:
    """Return the part of a scope that every kind of connection has.

    See :func:`make_http_scope` for the arguments.
    """
    raw_path = request.path
    path = unquote(raw_path) if "%" in raw_path else raw_path
    if root_path and raw_path != "*":
        # The specification: path includes root_path, as after a proxy that has cut it.
        path, raw_path = root_path + path, quote(root_path) + raw_path
    peer, scheme = request.peer, request.scheme
    headers = [(name.lower(), value) for name, value in request.headers.raw]
    if trusted:
        found = forwarded(request, trusted)
        peer, scheme = found.peer, found.scheme
        if found.host != request.authority:
            # Frameworks make the URLs of their answers from this field.
            headers = [field for field in headers if field[0] != b"host"]
            headers.append((b"host", str(found.host).encode()))
    return {
        "http_version": request.http_version,
        "scheme": scheme,
        "path": path,
        "raw_path": raw_path.encode("latin-1", "replace"),
        "query_string": request.query.encode("latin-1"),
        "root_path": root_path,
        "headers": headers,
        # A Unix socket of a client has a path at most, and ASGI no form for it.
        "client": peer if isinstance(peer, tuple) else None,
        "server": _find_server(request),
        "state": state.copy(),
    }


def _find_server(request: Request) -> tuple[str, int | None] | None:
    local = request.local
    if isinstance(local, str):
        return (local, None)
    return local
