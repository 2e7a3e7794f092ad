"""Chromium as the client: what a browser makes of a response."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import pytest
import trio

from trio_upgrade import Response, serve_tcp

from .chromium import COMMAND
from .programs import BOUND, HOST, run

if TYPE_CHECKING:
    from pathlib import Path

    from trio_upgrade import Request

pytestmark = pytest.mark.peer("chromium")

SCRIPT = "<script>document.write('it ' + 'ran')</script>"


@pytest.mark.ids("F29")
@pytest.mark.parametrize(
    ("headers", "runs"),
    [({}, False), ({"Content-Type": "text/html"}, True)],
    ids=["text", "HTML"],
)
async def test_script_in_a_str(
    headers: dict[str, str], runs: bool, nursery: trio.Nursery, tmp_path: Path
) -> None:
    """A str is shown as text, so a script in it does not run; only as HTML it does.

    Error messages often repeat what a client has sent: in a page it would be code.
    """

    async def app(request: Request) -> Response:
        # At the beginning, where a browser looks if no field says what a content is.
        return Response(400, f"{SCRIPT} is no name", headers)

    server = await nursery.start(partial(serve_tcp, app, 0, host=HOST, strict=True))
    with trio.fail_after(BOUND):
        profile = f"--user-data-dir={tmp_path}"
        result = await run(*COMMAND, "--dump-dom", profile, f"{server.url}/")
    page = result.stdout.decode()

    assert ("it ran" in page) == runs, page
    assert ("&lt;script&gt;" in page) != runs, page
