# Serves one of the frameworks, until SIGTERM.  It prints its URL, each line of the log of
# the routes, and at the end the most memory that it has used, in KiB.
from __future__ import annotations

import resource
import signal
import sys
from functools import partial

import trio

from tests.interop import asgi_frameworks
from trio_upgrade import drain_on_signal, serve_tcp
from trio_upgrade.asgi import open_asgi


class PrintedLog(list[object]):
    """A list that prints what is added."""

    def append(self, entry: object) -> None:
        print(entry, flush=True)


def read_resident() -> int:
    """Return the most memory that was resident, in KiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


async def main(framework: str, grace: float) -> None:
    async with open_asgi(asgi_frameworks.MAKERS[framework](), lifespan="on") as adapter:
        async with trio.open_nursery() as nursery:
            server = await nursery.start(
                partial(serve_tcp, adapter, 0, host="127.0.0.1")
            )
            print("listening at", server.url, flush=True)
            print("resident", read_resident(), flush=True)
            await drain_on_signal(server, signal.SIGTERM, grace=grace)
    print("resident", read_resident(), flush=True)


if __name__ == "__main__":
    asgi_frameworks.log = PrintedLog()
    trio.run(main, sys.argv[1], float(sys.argv[2]))
