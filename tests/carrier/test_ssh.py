"""ssh through each carrier, by the example, with other carriers blocked."""

from __future__ import annotations

import os
import shlex
import shutil
import socket
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trio

from trio_upgrade import relay, stream_scope

from ..interop.programs import (
    BOUND,
    HOST,
    example,
    read_url,
    run,
    start,
    wait_listening,
)
from .scenes import (
    CARRIERS,
    CONNECT,
    UPGRADE,
    WEBSOCKET,
    Carriers,
    refuse,
    stay_silent,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [
    pytest.mark.peer("ssh"),
    pytest.mark.peer("sshd"),
    pytest.mark.peer("ssh-keygen"),
]

# More than any buffer on the way.
SIZE = 4 * 2**20


class SSHD:
    """An sshd of the test's own: its keys, its port on the loopback, only this user."""

    def __init__(self, folder: Path, port: int) -> None:
        self.folder = folder
        self.port = port

    def client(self, *proxy: str) -> list[str]:
        """Return the command of a client that goes through a program."""
        options = {
            "BatchMode": "yes",
            "IdentitiesOnly": "yes",
            "ProxyCommand": shlex.join(proxy),
            "StrictHostKeyChecking": "no",
            "UserKnownHostsFile": "/dev/null",
        }
        words = [f"-o{name}={value}" for name, value in options.items()]
        return ["ssh", "-F", "none", "-i", str(self.folder / "user"), *words, "x"]


@pytest.fixture
def sshd(tmp_path: Path) -> Iterator[SSHD]:
    """Run a private sshd, as the user who runs the tests."""
    for name in "host", "user":
        subprocess.run(
            ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / name],
            check=True,
        )
    if os.geteuid() == 0:
        # Where no service of the system has made it.
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    with socket.socket() as sock:
        sock.bind((HOST, 0))
        port = sock.getsockname()[1]
    config = tmp_path / "config"
    settings = {
        "ListenAddress": f"{HOST}:{port}",
        "HostKey": tmp_path / "host",
        "AuthorizedKeysFile": tmp_path / "user.pub",
        "PidFile": "none",
        "StrictModes": "no",
        "UsePAM": "no",
        "PasswordAuthentication": "no",
        "KbdInteractiveAuthentication": "no",
        "PermitRootLogin": "prohibit-password",
    }
    config.write_text("".join(f"{key} {value}\n" for key, value in settings.items()))
    # sshd wants its full path.
    program = shutil.which("sshd")
    assert program is not None
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen([program, "-D", "-e", "-f", config], stderr=log)
    try:
        yield SSHD(tmp_path, port)
    finally:
        process.terminate()
        process.wait()


@pytest.mark.parametrize(
    ("blocked", "tried"),
    [
        ({}, [UPGRADE]),
        ({WEBSOCKET: refuse(404), CONNECT: refuse(405)}, [UPGRADE]),
        ({UPGRADE: stay_silent}, [UPGRADE, WEBSOCKET]),
        ({UPGRADE: refuse(400), CONNECT: refuse(405)}, [UPGRADE, WEBSOCKET]),
        ({UPGRADE: refuse(426), WEBSOCKET: stay_silent}, [*CARRIERS]),
    ],
)
async def test_ssh(nursery, sshd, blocked, tried) -> None:
    """A command, its input and output of 4 MiB and its status come through each."""

    async def carry(request, stream) -> None:
        async with stream_scope(await trio.open_tcp_stream(HOST, sshd.port)) as up:
            await relay(stream, up, tls_ends=True)

    await wait_listening(sshd.port)
    carriers = Carriers(carry)
    carriers.blocked = blocked
    url = await carriers.start(nursery)
    client = sshd.client(*example("carrier.py", "dial", url, 1))
    data = os.urandom(SIZE)
    with trio.fail_after(BOUND):
        result = await run(*client, "cat; exit 7", stdin=data)

    assert result.returncode == 7, result.stderr
    assert result.stdout == data
    assert carriers.tried == tried
    await carriers.server.drain(5)


async def test_example(sshd) -> None:
    """Both ends of the example, and ssh between them."""
    await wait_listening(sshd.port)
    command = example("carrier.py", "serve", 0, f"{HOST}:{sshd.port}")
    with trio.fail_after(BOUND):
        async with await start(*command) as server:
            url = await read_url(server)
            client = sshd.client(*example("carrier.py", "dial", f"{url}/ssh"))
            result = await run(*client, "echo", "through")

    assert result.stdout == b"through\n", result.stderr
    assert result.returncode == 0


async def test_all_blocked(nursery, sshd) -> None:
    """If nothing gets through, ssh ends, and the causes are on its standard error."""
    carriers = Carriers()
    carriers.allow_only("none")
    url = await carriers.start(nursery)
    client = sshd.client(*example("carrier.py", "dial", url))
    with trio.fail_after(BOUND):
        result = await run(*client, "true")

    assert result.returncode == 255
    assert b"no carrier gets through" in result.stderr
    await carriers.server.drain(5)
