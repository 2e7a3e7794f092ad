# The same WebSockets in three frameworks: Starlette, FastAPI and Litestar.  What happens
# in them is written into a log, which the tests read.
#
# No "from __future__ import annotations" here: FastAPI and Litestar read the annotations.

from collections.abc import Callable
from typing import Any

import fastapi
import litestar
import litestar.exceptions
import starlette.exceptions
import starlette.responses
import starlette.routing
import starlette.websockets
import trio
from starlette.applications import Starlette
from starlette.websockets import WebSocketDisconnect

log: list[Any] = []


async def echo(websocket: Any) -> None:
    """Choose the first subprotocol, and echo each text."""
    offered = websocket.scope["subprotocols"]
    await websocket.accept(offered[0] if offered else None)
    try:
        while True:
            await websocket.send_text(await websocket.receive_text())
    except WebSocketDisconnect as exc:
        log.append((exc.code, exc.reason))
        # Nothing is left to close, and no error either.
        await websocket.close()


async def close(websocket: Any) -> None:
    """Close with a code of its own."""
    await websocket.accept()
    await websocket.close(4001, "why")


async def refuse(websocket: Any) -> None:
    """Close before the accept."""
    await websocket.close()


async def deny(websocket: Any) -> None:
    """Answer with a response."""
    response = starlette.responses.JSONResponse({"login": "first"}, 401)
    await websocket.send_denial_response(response)


async def fail(websocket: Any) -> None:
    """Raise, after the accept."""
    await websocket.accept()
    raise LookupError("a bug")


async def leave(websocket: Any) -> None:
    """Return, after the accept."""
    await websocket.accept()


async def policy(websocket: Any) -> None:
    """Raise an exception that is a close."""
    await websocket.accept()
    raise starlette.exceptions.WebSocketException(1008, "no")


async def tick(websocket: Any) -> None:
    """Send until the client has left."""
    await websocket.accept()
    try:
        while True:
            await websocket.send_text("tick")
            await trio.sleep(0.005)
    except WebSocketDisconnect:
        log.append("left")


ROUTES = {
    "/echo": echo,
    "/close": close,
    "/refuse": refuse,
    "/deny": deny,
    "/fail": fail,
    "/leave": leave,
    "/policy": policy,
    "/tick": tick,
}


def make_starlette() -> Starlette:
    """Return the routes in Starlette."""
    route = starlette.routing.WebSocketRoute
    return Starlette(routes=[route(path, called) for path, called in ROUTES.items()])


def make_fastapi() -> fastapi.FastAPI:
    """Return the routes in FastAPI."""
    app = fastapi.FastAPI()

    def add(path: str, called: Any) -> None:
        @app.websocket(path)
        async def route(websocket: fastapi.WebSocket) -> None:
            await called(websocket)

    for path, called in ROUTES.items():
        add(path, called)
    return app


def make_litestar() -> litestar.Litestar:
    """Return the routes in Litestar, which has no denial response."""
    socket_type = litestar.WebSocket[Any, Any, Any]

    @litestar.websocket("/echo")
    async def get_echo(socket: socket_type) -> None:
        offered = socket.scope["subprotocols"]
        await socket.accept(offered[0] if offered else None)
        try:
            while True:
                await socket.send_text(await socket.receive_text())
        except litestar.exceptions.WebSocketDisconnect as exc:
            log.append((exc.code, ""))

    @litestar.websocket("/close")
    async def get_close(socket: socket_type) -> None:
        await socket.accept()
        await socket.close(4001, "why")

    @litestar.websocket("/refuse")
    async def get_refuse(socket: socket_type) -> None:
        await socket.close()

    @litestar.websocket("/fail")
    async def get_fail(socket: socket_type) -> None:
        await socket.accept()
        raise LookupError("a bug")

    @litestar.websocket("/leave")
    async def get_leave(socket: socket_type) -> None:
        await socket.accept()

    @litestar.websocket("/policy")
    async def get_policy(socket: socket_type) -> None:
        await socket.accept()
        raise litestar.exceptions.WebSocketException(detail="no", code=1008)

    @litestar.websocket("/tick")
    async def get_tick(socket: socket_type) -> None:
        await socket.accept()
        try:
            while True:
                await socket.send_text("tick")
                await trio.sleep(0.005)
        except OSError:
            log.append("left")
            raise

    routes = [
        get_echo,
        get_close,
        get_refuse,
        get_fail,
        get_leave,
        get_policy,
        get_tick,
    ]
    return litestar.Litestar([*routes], openapi_config=None)


MAKERS: dict[str, Callable[[], Any]] = {
    "starlette": make_starlette,
    "fastapi": make_fastapi,
    "litestar": make_litestar,
}
