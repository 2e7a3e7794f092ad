# /// script
# requires-python = ">=3.11"
# dependencies = ["trio-upgrade", "starlette"]
# ///
"""A Starlette app and raw upgrades on one port.

    python examples/asgi_app.py [PORT]

``GET /`` and ``GET /ticks`` are answered by Starlette, under Trio; an offer of ``echo``
switches to a raw echo. Try ``curl -N http://127.0.0.1:1337/ticks``, and
``python examples/echo_client.py http://127.0.0.1:1337/``. PORT is 1337 unless given; 0
takes any free port. Ctrl-C or SIGTERM drains the server and ends the app's lifespan.
"""

import signal
import sys
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import trio
from starlette.applications import Starlette
from starlette.requests import Request as HTTPRequest
from starlette.responses import JSONResponse, StreamingResponse
from starlette.routing import Route

from trio_upgrade import (
    Request,
    Upgrade,
    UpgradedStream,
    drain_on_signal,
    pipe,
    serve_tcp,
)
from trio_upgrade.asgi import open_asgi


@asynccontextmanager
async def lifespan(_app: Starlette) -> AsyncGenerator[dict[str, str], None]:
    yield {"greeting": "hello"}
    print("goodbye", flush=True)


async def home(request: HTTPRequest) -> JSONResponse:
    return JSONResponse({"greeting": request.state.greeting})


async def ticks(_request: HTTPRequest) -> StreamingResponse:
    async def count() -> AsyncIterator[str]:
        for number in range(3):
            await trio.sleep(0.1)
            yield f"tick {number}\n"

    return StreamingResponse(count(), media_type="text/plain")


async def echo(_request: Request, stream: UpgradedStream, _head: bytes) -> None:
    await pipe(stream, stream)


async def upgrade(_request: Request) -> Upgrade:
    return Upgrade("echo", echo)


async def main(port: int) -> None:
    app = Starlette(
        routes=[Route("/", home), Route("/ticks", ticks)], lifespan=lifespan
    )
    adapting = open_asgi(app, fallback=upgrade, upgrades=["echo"])
    async with adapting as adapter, trio.open_nursery() as nursery:
        serve = partial(serve_tcp, adapter, port, host="127.0.0.1")
        server = await nursery.start(serve)
        print(f"listening at {server.url}", flush=True)
        await drain_on_signal(server, signal.SIGTERM, signal.SIGINT, grace=3)


if __name__ == "__main__":
    trio.run(main, int(sys.argv[1]) if len(sys.argv) > 1 else 1337)
