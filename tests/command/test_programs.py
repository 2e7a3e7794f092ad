"""The program as others use it: ssh through its tunnels, systemd, signals, a terminal."""

from __future__ import annotations

import hashlib
import os
import pty
import signal
import subprocess
import sys
import termios
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trio

from trio_upgrade import open_connection, open_upgrade

from ..interop.programs import (
    HOST,
    Program,
    read_url,
    run,
    start,
    wait_listening,
)
from ..interop.ssh import sshd as sshd
from ..interop.test_dialling import find_free_port

if TYPE_CHECKING:
    from ..interop.ssh import SSHD

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only on Linux")

SIZE = 100 * 2**20
ROOT = Path(__file__).parents[2]
HAPROXY = """
defaults
    mode http
    timeout connect 5s
    timeout client 30s
    timeout server 30s
    timeout tunnel 30s
frontend clients
    bind {host}:{port}
    default_backend server
backend server
    server server {server}
"""


def command(*words: object) -> list[str]:
    """Return the command that runs the program; -X dev reports what is left open."""
    program = (sys.executable, "-X", "dev", "-m", "trio_upgrade")
    return [*program, *map(str, words)]


async def ask(url: str) -> str:
    """Return the body of a response."""
    async with await open_connection(url) as connection:
        response = await connection.request("GET", "/")
        return (await response.read()).decode()


################################################################
# ssh
################################################################


async def move(sshd: SSHD, *words: object) -> None:
    """Move 100 MiB there and back by ssh, through a tunnel, and compare digests."""
    data = os.urandom(SIZE)
    client = sshd.client(*command("tunnel", *words))
    result = await run(*client, "cat; exit 7", stdin=data)

    assert result.returncode == 7, result.stderr
    assert hashlib.sha256(result.stdout).digest() == hashlib.sha256(data).digest()


SSH = [pytest.mark.peer(name) for name in ("ssh", "sshd", "ssh-keygen")]


class TestSSH:
    """Data, its end, and the status come through each proxy."""

    pytestmark = SSH

    async def test_our_proxy(self, sshd: SSHD) -> None:
        """Through our own forward proxy."""
        await wait_listening(sshd.port)
        options = ("--allow", "127.0.0.0/8", "--allow-port", sshd.port)
        words = ("proxy", "--forward", "--port", 0, *options)
        async with await start(*command(*words)) as proxy:
            url = await read_url(proxy)
            await move(sshd, HOST, sshd.port, "--via", url)

    @pytest.mark.peer("tinyproxy", required=True)
    async def test_tinyproxy(self, sshd: SSHD, tmp_path: Path) -> None:
        """Through tinyproxy, whose password is in a file."""
        await wait_listening(sshd.port)
        port = find_free_port()
        config, secret = tmp_path / "tinyproxy.conf", tmp_path / "proxy"
        lines = (f"Port {port}", f"Listen {HOST}", "BasicAuth user hunter2")
        config.write_text("\n".join([*lines, "Timeout 60", "LogLevel Critical", ""]))
        secret.write_text(f"http://user:hunter2@{HOST}:{port}\n")
        async with await start("tinyproxy", "-d", "-c", str(config)):
            await wait_listening(port)
            await move(sshd, f"{HOST}:{sshd.port}", "--via", f"@{secret}")

    @pytest.mark.peer("haproxy", required=True)
    async def test_haproxy(self, sshd: SSHD, tmp_path: Path) -> None:
        """Through an upgrade behind HAProxy, which ends at our carrier."""
        await wait_listening(sshd.port)
        (tmp_path / "carrying.py").write_text(
            CARRYING.format(host=HOST, port=sshd.port)
        )
        port = find_free_port()
        words = ("serve", "carrying:app", "--port", 0)
        async with await start(
            "env", "-C", str(tmp_path), *command(*words)
        ) as endpoint:
            server = (await read_url(endpoint)).removeprefix("http://")
            config = tmp_path / "haproxy.cfg"
            config.write_text(HAPROXY.format(host=HOST, port=port, server=server))
            async with await start("haproxy", "-db", "-q", "-f", str(config)):
                await wait_listening(port)
                url = f"http://{HOST}:{port}/ssh"
                await move(sshd, url, "--protocol", "ssh")


CARRYING = """
import trio
from trio_upgrade import Upgrade, relay, stream_scope

async def carry(request, stream, head):
    async with stream_scope(await trio.open_tcp_stream("{host}", {port})) as up:
        await relay(stream, up)

async def app(request):
    return Upgrade("ssh", carry)
"""


################################################################
# Servers
################################################################

PIDS = """
import os
from trio_upgrade import Response, Upgrade, pipe

async def echo(request, stream, head):
    await pipe(stream, stream)

async def app(request):
    if "echo" in request.upgrades:
        return Upgrade("echo", echo)
    return Response(200, str(os.getpid()))
"""
FAILING = """
import os
from contextlib import suppress
from pathlib import Path

async def app(scope, receive, send):
    # The first worker starts; each later one fails.
    await receive()
    with suppress(FileExistsError):
        Path("started").touch(exist_ok=False)
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})
        return
    await send({"type": "lifespan.startup.failed", "message": "no database"})
"""


async def serve(folder: Path, source: str, *words: object) -> Program:
    """Start serving an app, in a folder of its own."""
    (folder / "pids.py").write_text(source)
    serve = command("serve", "pids:app", "--port", 0, *words)
    return await start("env", "-C", str(folder), *serve, stderr=subprocess.PIPE)


async def read_errors(program: Program) -> str:
    """Return standard error up to its end."""
    assert program.process.stderr is not None
    return b"".join([bytes(chunk) async for chunk in program.process.stderr]).decode()


async def test_killed_worker_is_replaced(tmp_path) -> None:
    """A worker that is killed is replaced; another one's connection goes on."""
    async with await serve(tmp_path, PIDS, "--workers", 2) as program:
        url = await read_url(program)
        async with await open_connection(url) as connection:
            owner = await (await connection.request("GET", "/")).read()
            victim = owner.decode()
            while victim == owner.decode():
                victim = await ask(url)
            os.kill(int(victim), signal.SIGKILL)
            while await ask(url) in (victim, owner.decode()):
                pass
            assert await (await connection.request("GET", "/")).read() == owner
        program.process.terminate()
        assert await program.process.wait() == 0
        assert "ended by itself, killed by SIGKILL" in await read_errors(program)


async def test_worker_that_cannot_start(tmp_path) -> None:
    """If one worker cannot start the others drain, and the status is 1."""
    async with await serve(
        tmp_path, FAILING, "--workers", 2, "--asgi", "--grace", 1
    ) as program:
        assert await program.read_line() == ""
        assert await program.process.wait() == 1
        errors = await read_errors(program)

    assert "trio-upgrade worker " in errors
    assert "no database" in errors
    assert "Traceback" not in errors
    assert "a worker ended before it was ready: the others drain" in errors


@pytest.mark.parametrize("workers", [(), ("--workers", 2)])
async def test_delay(tmp_path, workers) -> None:
    """In the delay answers can say that the server leaves; a second signal ends it."""
    source = PIDS.replace("str(os.getpid())", "str(request.server.is_leaving)")
    async with await serve(tmp_path, source, *workers, "--delay", 60) as program:
        url = await read_url(program)
        assert await ask(url) == "False"
        program.process.terminate()
        while await ask(url) == "False":
            pass
        program.process.terminate()
        assert await program.process.wait() == 0
        assert await read_errors(program) == ""


@pytest.mark.parametrize("workers", [(), ("--workers", 2)])
async def test_second_signal(tmp_path, workers) -> None:
    """After SIGTERM a live tunnel goes on; the second one resets it: status 0."""
    async with await serve(tmp_path, PIDS, *workers, "--grace", "none") as program:
        url = await read_url(program)
        async with await open_upgrade(url, "echo") as (_, stream, _):
            program.process.terminate()
            while True:
                try:
                    await ask(url)
                except Exception:
                    break
            await stream.send_all(b"x")
            assert await stream.receive_some() == b"x"
            program.process.terminate()
            with pytest.raises(trio.BrokenResourceError):
                await stream.receive_some()
        assert await program.process.wait() == 0
        assert await read_errors(program) == ""


WAITING = """
import threading, time

def wait():
    threading.main_thread().join()
    print("over", flush=True)
    time.sleep(60)

threading.Thread(target=wait).start()
"""


async def test_signal_at_the_end(tmp_path) -> None:
    """A signal after the drain ends a process that waits for a thread: status 0."""
    async with await serve(tmp_path, PIDS + WAITING) as program:
        await read_url(program)
        program.process.terminate()
        assert await program.read_line() == "over"
        while program.process.returncode is None:
            # Again and again: Python does not see a signal that comes just before its
            # main thread blocks, until there is another one.
            program.process.terminate()
            with trio.move_on_after(0.5):
                await program.process.wait()
        assert program.process.returncode == 0
        assert await read_errors(program) == ""


@pytest.mark.peer("systemd-socket-activate")
@pytest.mark.parametrize("words", [("--fd", 3), ("--workers", 2)])
async def test_socket_activation(tmp_path, words) -> None:
    """The socket of systemd is served, named or not."""
    (tmp_path / "pids.py").write_text(PIDS)
    port = find_free_port()
    activate = ("systemd-socket-activate", "-l", f"{HOST}:{port}", "-E", "PYTHONPATH")
    program = command("serve", "pids:app", *words)
    wrapped = ("env", "-C", str(tmp_path), f"PYTHONPATH={ROOT}", *activate)
    async with await start(*wrapped, *program, stderr=subprocess.PIPE) as server:
        await wait_listening(port)
        assert (await ask(f"http://{HOST}:{port}")).isdigit()
        server.process.terminate()
        assert await server.process.wait() == 0


################################################################
# A terminal
################################################################


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
async def test_terminal_stays_as_it_is(number: signal.Signals) -> None:
    """The terminal is blocking while the program uses it, and after any end of it."""
    controlling, terminal = pty.openpty()
    attributes = termios.tcgetattr(terminal)
    async with await start(*command("echo", "--port", 0)) as server:
        words = command("connect", await read_url(server), "echo")
        process = await trio.lowlevel.open_process(
            words, stdin=terminal, stdout=terminal, stderr=terminal
        )
        os.write(controlling, b"hello\n")
        shown = b""
        while shown.count(b"hello") < 2:
            shown += await trio.to_thread.run_sync(os.read, controlling, 100)
        assert os.get_blocking(terminal)
        process.send_signal(number)
        status = await process.wait()

    assert status == (130 if number is signal.SIGINT else -9)
    assert os.get_blocking(terminal)
    assert termios.tcgetattr(terminal) == attributes
    os.close(controlling)
    os.close(terminal)


async def test_meter_of_a_terminal() -> None:
    """Standard error that is a terminal gets the bytes and the rate."""
    controlling, terminal = pty.openpty()
    async with await start(*command("echo", "--port", 0)) as server:
        words = command("connect", await read_url(server), "echo")
        result = await trio.run_process(
            words, stdin=bytes(1000), capture_stdout=True, stderr=terminal
        )

    assert result.stdout == bytes(1000)
    assert b"sent 1000 B, received 1000 B in " in os.read(controlling, 1000)
    os.close(controlling)
    os.close(terminal)
