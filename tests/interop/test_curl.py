"""curl as the client: ordinary requests, and requests with an offer."""

from __future__ import annotations

import os
import re
from functools import partial
from typing import TYPE_CHECKING

import pytest
import trio

from trio_upgrade import Response, serve_tcp

from ..client.no_proxy import DIFFERENT_IN_CURL, FORMS, VARYING_IN_CURL
from .programs import BOUND, HOST, example, read_url, run, start

if TYPE_CHECKING:
    from trio_upgrade import Request

pytestmark = pytest.mark.peer("curl")

# -q ignores the user's settings.  -w prints how each transfer ended, after its body.
CURL = ["curl", "-q", "--noproxy", "*", "-sS", "--max-time", str(BOUND)]
REPORT = ["-w", r"%{response_code} %{num_connects}\n"]
OFFER = ["-H", "Connection: Upgrade", "-H", "Upgrade: echo"]
# The first version whose rules for no_proxy we follow.
NO_PROXY_CURL = 8
# The fields that `curl --http2` adds to a request without TLS.
H2C_OFFER = [
    *("-H", "Connection: Upgrade, HTTP2-Settings"),
    *("-H", "Upgrade: h2c"),
    *("-H", "HTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA"),
]


async def curl_echo_server(*options: str, urls: int = 1) -> str:
    """Run curl once against examples/echo_server.py; return its output."""
    with trio.fail_after(BOUND):
        async with await start(*example("echo_server.py", 0)) as server:
            url = await read_url(server)
            result = await run(*CURL, *options, *[url] * urls)

    assert result.stderr == b""
    assert result.returncode == 0
    return result.stdout.decode()


def drop_date(output: str) -> str:
    """Remove the Date field, which changes with the clock."""
    return re.sub(r"\r\nDate: [A-Z][a-z]{2}, [^\r]+ GMT(?=\r\n)", "", output)


async def test_ordinary_request_is_answered() -> None:
    """A GET gets a 200 and the body."""
    output = await curl_echo_server(*REPORT)

    assert output == "okay\n200 1\n"


async def test_offer_is_switched() -> None:
    """An offer of echo gets exactly this 101 (RFC 9110 §7.8)."""
    with trio.fail_after(BOUND):
        async with await start(*example("echo_server.py", 0)) as server:
            url = await read_url(server)
            # After a 101 curl waits for another response, and prints nothing before its
            # time is over.
            result = await run(*CURL, "--max-time", "1", "-i", *OFFER, url)

    assert result.stdout == (
        b"HTTP/1.1 101 Switching Protocols\r\n"
        b"Connection: Upgrade\r\n"
        b"Upgrade: echo\r\n"
        b"\r\n"
    )


@pytest.mark.parametrize("content", [[], ["-d", "content"]], ids=["GET", "POST"])
async def test_offer_of_http2_is_ignored(content: list[str]) -> None:
    """An offer of h2c is an ordinary request, and the connection is used again."""
    output = await curl_echo_server(*REPORT, *H2C_OFFER, *content, urls=2)

    assert output == "okay\n200 1\nokay\n200 0\n"


async def test_head_has_no_content() -> None:
    """HEAD gets the fields of GET without content; the connection is used again."""
    output = await curl_echo_server(*REPORT, "-I", urls=2)

    head = (
        "HTTP/1.1 200 OK\r\n"
        "Content-Type: text/plain; charset=utf-8\r\n"
        "Content-Length: 5\r\n"
        "\r\n"
    )  # fmt: skip
    assert drop_date(output) == f"{head}200 1\n{head}200 0\n"


async def test_expected_continue_comes_before_the_body(nursery: trio.Nursery) -> None:
    """Curl gets the 100 before it sends 3 MiB, then the answer (RFC 9110 §10.1.1)."""
    content = bytes(3 * 1024 * 1024)

    async def measure(request: Request) -> Response:
        body = await request.read(limit=len(content))
        return Response(200, f"{len(body)} bytes")

    options = ["-i", "-H", "Expect: 100-continue", "--data-binary", "@-"]
    with trio.fail_after(BOUND):
        server = await nursery.start(
            partial(serve_tcp, measure, 0, host=HOST, strict=True)
        )
        # Without a 100 curl would wait longer than the test may take.
        options += ["--expect100-timeout", str(2 * BOUND)]
        result = await run(*CURL, *options, server.url, stdin=content)

    assert result.stderr == b""
    assert result.returncode == 0
    assert drop_date(result.stdout.decode()) == (
        "HTTP/1.1 100 Continue\r\n"
        "\r\n"
        "HTTP/1.1 200 OK\r\n"
        "Content-Type: text/plain; charset=utf-8\r\n"
        "Content-Length: 13\r\n"
        "\r\n"
        "3145728 bytes"
    )


@pytest.mark.ids("F9")
async def test_no_proxy_is_read_as_by_curl(nursery: trio.Nursery) -> None:
    """A host is dialled directly if curl does so, but for the differences we list."""
    version = (await run("curl", "--version")).stdout.split()[1].decode()
    if int(version.partition(".")[0]) < NO_PROXY_CURL:
        pytest.skip(f"needs curl {NO_PROXY_CURL} or newer, not {version}: install it")
    seen: list[str] = []

    async def listen(name: str, status: bytes) -> int:
        async def handle(stream: trio.SocketStream) -> None:
            seen.append(name)
            await stream.receive_some()
            await stream.send_all(b"HTTP/1.1 %b\r\nConnection: close\r\n\r\n" % status)

        serve = partial(trio.serve_tcp, handle, 0, host=HOST)
        listeners: list[trio.SocketListener] = await nursery.start(serve)
        port: int = listeners[0].socket.getsockname()[1]
        return port

    proxy = await listen("proxy", b"502 Bad Gateway")
    origin = await listen("origin", b"204 No Content")
    # Any host and port of a URL is connected to the origin.
    command = ["curl", "-q", "-sS", "--max-time", str(BOUND)]
    command += ["--connect-to", f"::{HOST}:{origin}"]
    different: set[tuple[str, str]] = set()
    for form in FORMS:
        if form[:2] in VARYING_IN_CURL:
            continue
        variables = {"http_proxy": f"http://{HOST}:{proxy}", "no_proxy": form.no_proxy}
        await trio.run_process(
            [*command, form.url],
            env={"PATH": os.environ["PATH"], **variables},
            capture_stdout=True,
            capture_stderr=True,
            check=False,
        )
        if seen != ["origin" if form.direct else "proxy"]:
            different.add(form[:2])
        seen.clear()

    assert different == {*DIFFERENT_IN_CURL}
