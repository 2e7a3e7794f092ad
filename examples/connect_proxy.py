# /// script
# requires-python = ">=3.11"
# dependencies = ["trio-upgrade"]
# ///
"""A forward proxy: tunnels (CONNECT), and requests with absolute targets.

    python examples/connect_proxy.py [PORT]
    curl --proxy http://127.0.0.1:PORT https://…

The proxy connects to the target first and then opens the tunnel, so a refusal has a
status that says why: 403 for a port that is not on the list and for an address that is
not public, 502 for a target that cannot be reached, 504 for one that does not respond.
PORT is 3128 unless given; 0 takes any free port. Ctrl-C ends it.

    python examples/connect_proxy.py PORT --any-port NETWORK ...

allows every port, and these networks although they are not public. A proxy that others
can reach should keep the lists (RFC 9110 §9.3.6).
"""

from __future__ import annotations

import logging
import sys
from functools import partial

import trio

from trio_upgrade import Server, serve_tcp
from trio_upgrade.proxy import ForwardProxy


async def main(port: int, ports: range | tuple[int, ...], networks: list[str]) -> None:
    async with ForwardProxy(ports=ports, networks=networks) as proxy:
        async with trio.open_nursery() as nursery:
            serve = partial(serve_tcp, proxy, port, host="127.0.0.1")
            server: Server = await nursery.start(serve)
            print(f"listening at {server.url}", flush=True)


if __name__ == "__main__":
    logging.basicConfig()
    words = [word for word in sys.argv[1:] if word != "--any-port"]
    any_port = "--any-port" in sys.argv[1:]
    run = partial(
        main,
        int(words[0]) if words else 3128,
        range(1, 65536) if any_port else (443, 8443),
        words[1:],
    )
    try:
        trio.run(run)
    except* KeyboardInterrupt:
        pass
