"""curl at the other end: ordinary requests, and offers that it makes in passing."""

from __future__ import annotations

import re
from functools import partial
from typing import TYPE_CHECKING

import pytest
import trio

from trio_upgrade import Response, serve_tcp

from .programs import BOUND, HOST, example, read_url, run, start

if TYPE_CHECKING:
    from trio_upgrade import Request

pytestmark = pytest.mark.peer("curl")

# -q: no settings of the user's.  -w: how each transfer ended, behind its body.
CURL = ["curl", "-q", "--noproxy", "*", "-sS", "--max-time", str(BOUND)]
REPORT = ["-w", r"%{response_code} %{num_connects}\n"]
OFFER = ["-H", "Connection: Upgrade", "-H", "Upgrade: echo"]
# What `curl --http2` adds to a request in the clear.
H2C_OFFER = [
    *("-H", "Connection: Upgrade, HTTP2-Settings"),
    *("-H", "Upgrade: h2c"),
    *("-H", "HTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA"),
]


async def curl_echo_server(*options: str, urls: int = 1) -> str:
    """Ask examples/echo_server.py in one run of curl; return what it prints."""
    with trio.fail_after(BOUND):
        async with await start(*example("echo_server.py", 0)) as server:
            url = await read_url(server)
            result = await run(*CURL, *options, *[url] * urls)

    assert result.stderr == b""
    assert result.returncode == 0
    return result.stdout.decode()


def drop_date(output: str) -> str:
    """Take off the only field that changes with the clock."""
    return re.sub(r"\r\nDate: [A-Z][a-z]{2}, [^\r]+ GMT(?=\r\n)", "", output)


async def test_ordinary_request_is_answered() -> None:
    """GET gets 200 and the body."""
    output = await curl_echo_server(*REPORT)

    assert output == "okay\n200 1\n"


async def test_offer_is_switched() -> None:
    """An offer of echo gets the 101, in these bytes."""
    with trio.fail_after(BOUND):
        async with await start(*example("echo_server.py", 0)) as server:
            url = await read_url(server)
            # curl takes what follows a 101 for a response that is still to come; it
            # prints nothing before its time is up.
            result = await run(*CURL, "--max-time", "1", "-i", *OFFER, url)

    assert result.stdout == (
        b"HTTP/1.1 101 Switching Protocols\r\n"
        b"Connection: Upgrade\r\n"
        b"Upgrade: echo\r\n"
        b"\r\n"
    )


@pytest.mark.parametrize("content", [[], ["-d", "content"]], ids=["GET", "POST"])
async def test_offer_of_http2_is_passed_over(content: list[str]) -> None:
    """An offer of h2c is an ordinary request, and the connection carries the next."""
    output = await curl_echo_server(*REPORT, *H2C_OFFER, *content, urls=2)

    assert output == "okay\n200 1\nokay\n200 0\n"


async def test_head_has_no_content() -> None:
    """HEAD gets GET's fields alone, and the connection carries the next."""
    output = await curl_echo_server(*REPORT, "-I", urls=2)

    head = (
        "HTTP/1.1 200 OK\r\n"
        "Content-Type: text/plain\r\n"
        "Content-Length: 5\r\n"
        "\r\n"
    )  # fmt: skip
    assert drop_date(output) == f"{head}200 1\n{head}200 0\n"


async def test_expected_continue_comes_before_the_body(nursery: trio.Nursery) -> None:
    """The 100 that curl waits for comes, then the answer to the 3 MiB that it sends."""
    content = bytes(3 * 1024 * 1024)

    async def measure(request: Request) -> Response:
        body = await request.read(limit=len(content))
        return Response(200, f"{len(body)} bytes")

    options = ["-i", "-H", "Expect: 100-continue", "--data-binary", "@-"]
    with trio.fail_after(BOUND):
        server = await nursery.start(
            partial(serve_tcp, measure, 0, host=HOST, strict=True)
        )
        # A curl that waits in vain waits longer than the test may take.
        options += ["--expect100-timeout", str(2 * BOUND)]
        result = await run(*CURL, *options, server.url, stdin=content)

    assert result.stderr == b""
    assert result.returncode == 0
    assert drop_date(result.stdout.decode()) == (
        "HTTP/1.1 100 Continue\r\n"
        "\r\n"
        "HTTP/1.1 200 OK\r\n"
        "Content-Length: 13\r\n"
        "\r\n"
        "3145728 bytes"
    )
