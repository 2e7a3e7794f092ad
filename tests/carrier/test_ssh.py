"""ssh through each carrier, by the example, with other carriers blocked."""

from __future__ import annotations

import os

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
from ..interop.ssh import sshd as sshd
from .scenes import (
    CARRIERS,
    CONNECT,
    UPGRADE,
    WEBSOCKET,
    Carriers,
    refuse,
    stay_silent,
)

pytestmark = [
    pytest.mark.peer("ssh"),
    pytest.mark.peer("sshd"),
    pytest.mark.peer("ssh-keygen"),
]

# More than any buffer on the way.
SIZE = 4 * 2**20


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
