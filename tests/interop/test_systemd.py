"""app.socket and app@.service: checked by systemd, and servers replaced under load."""

from __future__ import annotations

import re
import shlex
import shutil
import socket
import subprocess
import sys
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trio

from benchmarks.restart.load import Tally, loading
from trio_upgrade import open_upgrade

from .programs import HOST, Program, example, read_url, run
from .recipes import DEPLOY, EVERY, EVERY_OFFER, fill, free_port, offer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "how-to" / "systemd.md"
# The environment that the page makes, and that the unit uses.
VENV = "/srv/app/.venv"
REPLACEMENTS = 6
# What systemd does before it starts a server: the socket is descriptor 3.
HAND_OVER = 'LISTEN_FDS=1 LISTEN_PID=$$ exec "$@" 3<&0 </dev/null'


def find_arguments() -> list[str]:
    """Return the arguments that the unit gives to the app."""
    unit = (DEPLOY / "app@.service").read_text()
    (line,) = re.findall(r"^ExecStart=(.*)$", unit, re.MULTILINE)
    _, script, *arguments = shlex.split(line)
    assert script.endswith("/app.py")
    return arguments


def find_command() -> list[str]:
    """Return the command that systemd.md names instead of the app's own program."""
    line = rf"^ExecStart={VENV}/bin/python -m trio_upgrade (.*)$"
    (words,) = re.findall(line, PAGE.read_text(), re.MULTILINE)
    return [sys.executable, "-X", "dev", "-m", "trio_upgrade", *words.split()]


COMMANDS = {
    "app.py": example("deploy/app.py", *find_arguments()),
    "serve": find_command(),
    "workers": [*find_command(), "--workers", "2"],
}


async def start_server(sock: socket.socket, command: list[str]) -> Program:
    """Start a server that gets the socket when a connection waits in it."""
    path = f"{ROOT}:{DEPLOY}"
    activate = ["systemd-socket-activate", f"-EPYTHONPATH={path}"]
    process = await trio.lowlevel.open_process(
        ["sh", "-c", HAND_OVER, "sh", *activate, *command],
        stdin=sock.fileno(),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    return Program(process)


@pytest.mark.peer("systemd-analyze")
async def test_units_are_right(tmp_path: Path) -> None:
    """Every setting is one of systemd, and it would find the program."""
    socket_unit = fill("app.socket", {"127.0.0.1:8001": f"{HOST}:{free_port()}"})
    (tmp_path / "app.socket").write_text(socket_unit)
    # The page installs the program into /srv/app, which this machine has not.
    assert f"python3 -m venv {VENV}\n" in PAGE.read_text()
    installed = {
        f"{VENV}/bin/python": shutil.which("sh"),
        "WorkingDirectory=/srv/app": f"WorkingDirectory={tmp_path}",
    }
    (tmp_path / "app@.service").write_text(fill("app@.service", installed))
    units = [str(tmp_path / name) for name in ("app.socket", "app@.service")]
    result = await run("systemd-analyze", "verify", *units)
    # It says something about units of the machine, too.
    said = (result.stdout + result.stderr).decode().splitlines()

    assert [line for line in said if "app" in line] == []
    assert result.returncode == 0


async def offer_twice(port: int, tally: Tally) -> None:
    """Make one offer, and make it again if the answer is a 503.

    A server that drains refuses offers, and one can be on its way on a connection that
    was accepted just before.  No proxy is here that would try another server.
    """
    first = Tally()
    await offer(port, first)
    if any("503" in how for how in first.lost):
        first = Tally()
        await offer(port, first)
    tally.connections += 1
    tally.answered += first.answered
    tally.lost += first.lost


@asynccontextmanager
async def loading_both(port: int) -> AsyncIterator[tuple[Tally, Tally]]:
    """Make requests and offers as long as the block runs; then wait for the answers."""
    async with (
        loading(port, EVERY) as requests,
        loading(port, EVERY_OFFER, offer_twice) as offers,
    ):
        yield requests, offers


@pytest.mark.peer("systemd-socket-activate")
@pytest.mark.parametrize("name", COMMANDS)
async def test_servers_are_replaced(name: str) -> None:
    """Two servers accept from one socket; six replacements under load lose nothing.

    A server is the app's own program, or `python -m trio_upgrade serve`.
    """
    command = COMMANDS[name]
    with socket.create_server((HOST, 0), backlog=socket.SOMAXCONN) as sock:
        port = sock.getsockname()[1]
        servers = [await start_server(sock, command), await start_server(sock, command)]
        try:
            async with loading_both(port) as tallies:
                for server in servers:
                    await read_url(server)
                for _ in range(REPLACEMENTS):
                    old = servers.pop(0)
                    async with await open_upgrade(f"http://{HOST}:{port}", "echo") as (
                        _,
                        stream,
                        _,
                    ):
                        old.process.terminate()
                        await stream.send_all(b"still here")
                        assert await stream.receive_exactly(10) == b"still here"
                    async with old:
                        assert await old.process.wait() == 0
                    servers.append(await start_server(sock, command))
                    await read_url(servers[-1])
        finally:
            for server in servers:
                await server.aclose()

    for tally in tallies:
        assert not tally.lost
        assert tally.answered == tally.connections > 100
