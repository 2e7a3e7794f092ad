# /// script
# requires-python = ">=3.11"
# dependencies = ["trio-upgrade"]
# ///
"""A forward proxy that opens tunnels (CONNECT) and does nothing else.

    python examples/connect_proxy.py [PORT]
    curl --proxy http://127.0.0.1:PORT https://…

The proxy connects to the target first and then opens the tunnel, so a refusal has a
status that says why: 403 for a port that is not on the list, 502 for a target that cannot
be reached, 504 for a target that does not respond. PORT is 3128 unless given; 0 takes any
free port. Ctrl-C ends it.

    python examples/connect_proxy.py PORT --any-port

allows every port. A proxy that others can reach should keep the list (RFC 9110 §9.3.6).
"""

from __future__ import annotations

import logging
import sys
from functools import partial

import trio

from trio_upgrade import Request, Response, Server, relay, serve_tcp, stream_scope

SAFE_PORTS = (443, 8443)
DIAL_SECONDS = 10
IDLE_SECONDS = 3600
HALF_CLOSED_SECONDS = 60
TLS_SECONDS = 1


async def app(request: Request, *, any_port: bool) -> Response | None:
    if request.method != "CONNECT":
        return Response(405, "this proxy only tunnels\n", {"Allow": "CONNECT"})
    host, port = request.authority
    assert port is not None
    if not (any_port or port in SAFE_PORTS):
        return Response(403, f"no tunnels to port {port}\n")
    try:
        with trio.fail_after(DIAL_SECONDS):
            upstream = await trio.open_tcp_stream(host, port)
    except trio.TooSlowError:
        return Response(504, f"{request.authority} does not answer\n")
    except OSError as exc:
        return Response(502, f"cannot reach {request.authority}: {exc}\n")
    # A tunnel that is cut, for example by Ctrl-C, resets both connections: half a
    # transfer must not look like a whole one.
    async with stream_scope(upstream):
        stream, _ = await request.accept_connect()
        # Over TLS only a close can tell the client that the target has ended.
        silence = TLS_SECONDS if request.scheme == "https" else HALF_CLOSED_SECONDS
        await relay(
            stream, upstream, idle_timeout=IDLE_SECONDS, half_close_timeout=silence
        )
    return None


async def main(port: int, *, any_port: bool) -> None:
    async with trio.open_nursery() as nursery:
        tunnel = partial(app, any_port=any_port)
        serve = partial(serve_tcp, tunnel, port, host="127.0.0.1")
        server: Server = await nursery.start(serve)
        print(f"listening at {server.url}", flush=True)


if __name__ == "__main__":
    logging.basicConfig()
    words = [word for word in sys.argv[1:] if word != "--any-port"]
    run = partial(main, any_port="--any-port" in sys.argv[1:])
    try:
        trio.run(run, int(words[0]) if words else 3128)
    except* KeyboardInterrupt:
        pass
