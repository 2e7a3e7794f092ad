# The same routes in three frameworks: Starlette, FastAPI and Litestar.  What happens in
# them is written into a log, which the tests read.
#
# No "from __future__ import annotations" here: FastAPI and Litestar read the annotations.

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Annotated, Any

import fastapi
import litestar
import litestar.background_tasks
import litestar.datastructures
import litestar.enums
import litestar.params
import litestar.response
import sniffio
import starlette.background
import starlette.requests
import starlette.responses
import starlette.routing
import trio
from starlette.applications import Starlette

CHUNK = bytes(64 * 1024)
BIG = 100 * 1024 * 1024
# Seconds between two questions whether the client is there.
POLL = 0.02

log: list[Any] = []


async def count_up() -> AsyncIterator[bytes]:
    """Yield three lines, each after a moment."""
    for number in range(3):
        await trio.sleep(0.01)
        yield b"%d\n" % number


async def send_big() -> AsyncIterator[bytes]:
    """Yield 100 MiB."""
    for _ in range(BIG // len(CHUNK)):
        yield CHUNK


async def send_endlessly() -> AsyncIterator[bytes]:
    """Yield for ever, and count what was taken."""
    try:
        while True:
            log.append(len(CHUNK))
            yield CHUNK
    finally:
        log.append("closed")


async def wait_endlessly() -> AsyncIterator[bytes]:
    """Yield one line, and nothing more."""
    try:
        yield b"one\n"
        await trio.sleep_forever()
    finally:
        log.append("closed")


async def work() -> None:
    """Work on after the answer."""
    await trio.sleep(0.05)
    log.append("background")


async def poll(request: Any) -> None:
    """Ask whether the client is there until it is not."""
    log.append("asked")
    while not await request.is_disconnected():  # noqa: ASYNC110  as users write it
        await trio.sleep(POLL)
    log.append("gone")


async def count(pieces: AsyncIterator[bytes]) -> int:
    """Return how many bytes a body has."""
    size = 0
    async for piece in pieces:
        size += len(piece)
    return size


def find_library() -> str | None:
    """Return the async library, in a thread: none."""
    try:
        return sniffio.current_async_library()
    except sniffio.AsyncLibraryNotFoundError:
        return None


@asynccontextmanager
async def live(_app: object) -> AsyncIterator[dict[str, str]]:
    """Put something into the state."""
    log.append("startup")
    try:
        yield {"pool": "pool"}
    finally:
        log.append("shutdown")


def make_starlette() -> Starlette:
    """Return the routes in Starlette."""
    request_type = starlette.requests.Request
    route = starlette.routing.Route
    json = starlette.responses.JSONResponse
    stream = starlette.responses.StreamingResponse

    async def get_json(request: request_type) -> json:
        return json({"state": request.state.pool, "library": find_library()})

    def get_thread(_request: request_type) -> json:
        return json({"library": find_library()})

    def get_error(_request: request_type) -> json:
        raise LookupError("a bug")

    async def get_background(_request: request_type) -> json:
        return json({}, background=starlette.background.BackgroundTask(work))

    async def post_upload(request: request_type) -> json:
        async with request.form() as form:
            file: Any = form["file"]
            return json({"name": file.filename, "size": len(await file.read())})

    async def post_big(request: request_type) -> json:
        return json({"size": await count(request.stream())})

    async def get_poll(request: request_type) -> json:
        await poll(request)
        return json({})

    def streamer(content: Any) -> Any:
        async def get(_request: request_type) -> stream:
            return stream(content())

        return get

    return Starlette(
        lifespan=live,
        routes=[
            route("/json", get_json),
            route("/thread", get_thread),
            route("/error", get_error),
            route("/background", get_background),
            route("/upload", post_upload, methods=["POST"]),
            route("/big", post_big, methods=["POST"]),
            route("/big", streamer(send_big)),
            route("/poll", get_poll),
            route("/stream", streamer(count_up)),
            route("/endless", streamer(send_endlessly)),
            route("/silent", streamer(wait_endlessly)),
        ],
    )


def make_fastapi() -> fastapi.FastAPI:
    """Return the routes in FastAPI."""
    app = fastapi.FastAPI(lifespan=live)
    stream = fastapi.responses.StreamingResponse

    @app.get("/json")
    async def get_json(request: fastapi.Request) -> dict[str, Any]:
        return {"state": request.state.pool, "library": find_library()}

    @app.get("/thread")
    def get_thread() -> dict[str, Any]:
        return {"library": find_library()}

    @app.get("/error")
    def get_error() -> None:
        raise LookupError("a bug")

    @app.get("/background")
    async def get_background(tasks: fastapi.BackgroundTasks) -> dict[str, Any]:
        tasks.add_task(work)
        return {}

    @app.post("/upload")
    async def post_upload(file: fastapi.UploadFile) -> dict[str, Any]:
        return {"name": file.filename, "size": len(await file.read())}

    @app.post("/big")
    async def post_big(request: fastapi.Request) -> dict[str, Any]:
        return {"size": await count(request.stream())}

    @app.get("/big")
    async def get_big() -> stream:
        return stream(send_big())

    @app.get("/poll")
    async def get_poll(request: fastapi.Request) -> dict[str, Any]:
        await poll(request)
        return {}

    @app.get("/stream")
    async def get_stream() -> stream:
        return stream(count_up())

    @app.get("/endless")
    async def get_endless() -> stream:
        return stream(send_endlessly())

    @app.get("/silent")
    async def get_silent() -> stream:
        return stream(wait_endlessly())

    return app


def make_litestar() -> litestar.Litestar:
    """Return the routes in Litestar; it cannot ask whether its client is there."""
    stream = litestar.response.Stream
    upload = Annotated[
        litestar.datastructures.UploadFile,
        litestar.params.Body(media_type=litestar.enums.RequestEncodingType.MULTI_PART),
    ]

    @asynccontextmanager
    async def live_here(app: litestar.Litestar) -> AsyncIterator[None]:
        async with live(app) as state:
            app.state.update(state)
            yield

    @litestar.get("/json")
    async def get_json(request: litestar.Request[Any, Any, Any]) -> dict[str, Any]:
        return {"state": request.app.state["pool"], "library": find_library()}

    @litestar.get("/thread", sync_to_thread=True)
    def get_thread() -> dict[str, Any]:
        return {"library": find_library()}

    @litestar.get("/error", sync_to_thread=True)
    def get_error() -> None:
        raise LookupError("a bug")

    @litestar.get("/background")
    async def get_background() -> litestar.Response[dict[str, Any]]:
        task = litestar.background_tasks.BackgroundTask(work)
        return litestar.Response({}, background=task)

    @litestar.post("/upload", status_code=200)
    async def post_upload(data: upload) -> dict[str, Any]:
        file: Any = data
        return {"name": file.filename, "size": len(await file.read())}

    @litestar.post("/big", status_code=200, request_max_body_size=None)
    async def post_big(request: litestar.Request[Any, Any, Any]) -> dict[str, Any]:
        return {"size": await count(request.stream())}

    @litestar.get("/big")
    async def get_big() -> stream:
        return stream(send_big())

    @litestar.get("/stream")
    async def get_stream() -> stream:
        return stream(count_up())

    @litestar.get("/endless")
    async def get_endless() -> stream:
        return stream(send_endlessly())

    @litestar.get("/silent")
    async def get_silent() -> stream:
        return stream(wait_endlessly())

    return litestar.Litestar(
        [
            get_json,
            get_thread,
            get_error,
            get_background,
            post_upload,
            post_big,
            get_big,
            get_stream,
            get_endless,
            get_silent,
        ],
        lifespan=[live_here],
        openapi_config=None,
    )


MAKERS: dict[str, Callable[[], Any]] = {
    "starlette": make_starlette,
    "fastapi": make_fastapi,
    "litestar": make_litestar,
}
