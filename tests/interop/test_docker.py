"""Docker's exec, from its own client and from examples/docker_exec.py.

Both run against a substitute for the daemon, an app of ours on a Unix socket.
"""

from __future__ import annotations

import os
import ssl
import subprocess
import sys
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest
import trio
import trustme

from trio_upgrade import serve_ssl_over_tcp, serve_unix

from ..docs.blocks import ROOT, read_blocks
from ..tls_streams import VERSIONS
from .docker_daemon import Daemon
from .programs import BOUND, Program, example, run

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

pytestmark = pytest.mark.skipif(
    sys.platform == "win32", reason="needs Unix sockets and sh: not on Windows"
)
needs_docker = pytest.mark.peer("docker")
clients = pytest.mark.parametrize(
    "client", [pytest.param("docker", marks=needs_docker), "docker_exec.py"]
)
DOCS = ROOT / "docs"
MESSAGE = b"through Docker\n"


@asynccontextmanager
async def serving(folder: Path) -> AsyncIterator[tuple[Daemon, str]]:
    """Serve the daemon; yield it and the URL of its socket as Docker writes it."""
    daemon = Daemon()
    path = folder / "docker.sock"
    async with trio.open_nursery() as nursery:
        serve = partial(serve_unix, daemon.app, path, mode=0o600, strict=True)
        await nursery.start(serve)
        with trio.fail_after(BOUND):
            yield daemon, f"unix://{path}"
        nursery.cancel_scope.cancel()


def docker(host: str, *arguments: str) -> list[str]:
    """Return the command for Docker's client, without a configuration of its own."""
    nowhere = host.removeprefix("unix://") + ".config"
    return ["docker", "--config", nowhere, "-H", host, "exec", *arguments]


def interactive(client: str, host: str, *arguments: str) -> list[str]:
    """Return the command for either client that passes on standard input."""
    if client == "docker":
        return docker(host, "-i", *arguments)
    return example(client, "-H", host, *arguments)


@clients
async def test_outputs_and_status(client: str, tmp_path) -> None:
    """The two outputs of the command come separately, and then its status."""
    script = "cat; echo error >&2; exit 3"
    async with serving(tmp_path) as (_, host):
        command = interactive(client, host, "box", "sh", "-c", script)
        result = await run(*command, stdin=MESSAGE)

    assert (result.stdout, result.stderr) == (MESSAGE, b"error\n")
    assert result.returncode == 3


@clients
async def test_input_ends_by_half_close(client: str, tmp_path) -> None:
    """5 MB go in and come back; the half-close ends the command's input."""
    content = os.urandom(5_000_000)
    async with serving(tmp_path) as (_, host):
        command = interactive(client, host, "box", "cat")
        result = await run(*command, stdin=content)

    assert result.returncode == 0, result.stderr
    assert result.stdout == content


@clients
async def test_input_not_read(client: str, tmp_path) -> None:
    """A command may end before it has read its input."""
    async with serving(tmp_path) as (_, host):
        command = interactive(client, host, "box", "echo", "enough")
        result = await run(*command, stdin=bytes(5_000_000))

    assert result.stdout == b"enough\n"
    assert result.returncode == 0


@clients
async def test_no_such_container(client: str, tmp_path) -> None:
    """The message of the daemon is shown."""
    async with serving(tmp_path) as (_, host):
        result = await run(*interactive(client, host, "nobody", "cat"))

    assert b"No such container: nobody" in result.stderr
    assert result.returncode == 1


@clients
async def test_refused_start(client: str, tmp_path) -> None:
    """A refusal of the offer is a failure, and the client shows it."""
    async with serving(tmp_path) as (_, host):
        result = await run(*interactive(client, host, "box", "refused"))

    assert b"409" in result.stderr
    assert result.returncode == 1


@asynccontextmanager
async def serving_tls(folder: Path, version: str) -> AsyncIterator[list[str]]:
    """Serve the daemon over TLS; yield the options that name it for either client."""
    authority = trustme.CA()
    pem = folder / "ca.pem"
    authority.cert_pem.write_to_path(str(pem))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    context.minimum_version = context.maximum_version = VERSIONS[version]
    async with trio.open_nursery() as nursery:
        serve = partial(serve_ssl_over_tcp, strict=True, host="127.0.0.1")
        server = await nursery.start(serve, Daemon().app, 0, context)
        with trio.fail_after(BOUND):
            port = server.url.rpartition(":")[2]
            yield ["-H", f"tcp://localhost:{port}", "--tlscacert", str(pem)]
        nursery.cancel_scope.cancel()


@clients
@pytest.mark.ids("F13")
@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("size", [6, 3_000_000])
async def test_input_ends_over_tls(
    client: str, version: str, size: int, tmp_path
) -> None:
    """Over TLS the end of the input ends the command too, and its output arrives."""
    content = os.urandom(size)
    script = "cat; echo done >&2; exit 3"
    async with serving_tls(tmp_path, version) as options:
        command = [*options, "box", "sh", "-c", script]
        if client == "docker":
            tls = ["docker", "--config", str(tmp_path / "config"), "--tlsverify"]
            command = [*tls, *options, "exec", "-i", "box", "sh", "-c", script]
        else:
            command = example(client, *command)
        result = await run(*command, stdin=content)

    assert result.stderr == b"done\n"
    assert result.stdout == content
    assert result.returncode == 3


async def test_calls_of_the_example(tmp_path) -> None:
    """The example makes three requests, each on its own connection."""
    async with serving(tmp_path) as (daemon, host):
        await run(*interactive("docker_exec.py", host, "box", "true"))

    assert daemon.calls == [
        "POST /containers/box/exec",
        "POST /exec/0/start",
        "GET /exec/0/json",
    ]


async def test_recipe_of_the_page(tmp_path) -> None:
    """The program of docs/how-to/docker.md gets both outputs, and a refusal's text."""
    page = (DOCS / "how-to" / "docker.md").read_text()
    (_, recipe), *_ = read_blocks(page)
    names: dict[str, Any] = {}
    exec(compile(recipe.text, "docs/how-to/docker.md", "exec"), names)
    command = ["sh", "-c", "cat; echo failed >&2"]
    async with serving(tmp_path) as (daemon, host):
        url = f"http+unix://{quote(host.removeprefix('unix://'), safe='')}"
        outputs = await names["run"](url, "box", command, MESSAGE)
        with pytest.raises(RuntimeError, match="No such container: bix"):
            await names["run"](url, "bix", command, MESSAGE)

    assert outputs == (MESSAGE, b"failed\n")
    assert daemon.execs["0"].config["Tty"] is False


@pytest.mark.parametrize("sent", [b"\1\0\0", b"\2\0\0\0\0\0\0\3oo"])
async def test_cut_frame(sent: bytes, tmp_path) -> None:
    """An end in the middle of a frame is reported as an error."""
    async with serving(tmp_path) as (daemon, host):
        daemon.sends_only = sent
        result = await run(*interactive("docker_exec.py", host, "box", "true"))

    assert b"in the middle of a frame" in result.stderr
    assert result.returncode == 1


async def test_end_before_the_end_of_the_command(tmp_path) -> None:
    """An end while the command still runs is reported as an error."""
    async with serving(tmp_path) as (daemon, host):
        daemon.sends_only = b"\1\0\0\0\0\0\0\2ok"
        result = await run(*interactive("docker_exec.py", host, "box", "true"))

    assert result.stdout == b"ok"
    assert b"before the command" in result.stderr
    assert result.returncode == 1


async def test_no_daemon(tmp_path) -> None:
    """Without a daemon the example fails with one line and no traceback."""
    result = await run(*example("docker_exec.py", "-H", f"unix://{tmp_path}/no", "x"))

    assert result.returncode == 1
    assert result.stderr.count(b"\n") == 1
    assert b"No such file" in result.stderr


@needs_docker
async def test_without_input(tmp_path) -> None:
    """Without -i Docker half-closes at once and still reads the output."""
    async with serving(tmp_path) as (daemon, host):
        result = await run(*docker(host, "box", "cat"), stdin=b"not wanted")

    assert (result.stdout, result.stderr, result.returncode) == (b"", b"", 0)
    # Some versions make other requests before these.
    assert daemon.calls[-3:] == [
        "POST /containers/box/exec",
        "POST /exec/0/start",
        "GET /exec/0/json",
    ]


@needs_docker
async def test_terminal_for_output(tmp_path) -> None:
    """With -t the output of the command is a terminal, without frames."""
    script = "test -t 1 && test -t 2 && echo yes && exit 4"
    async with serving(tmp_path) as (_, host):
        result = await run(*docker(host, "-t", "box", "sh", "-c", script))

    assert (result.stdout, result.stderr) == (b"yes\r\n", b"")
    assert result.returncode == 4


@needs_docker
async def test_terminal_both_ways(tmp_path) -> None:
    """With -it a typed line arrives, and there is no half-close."""
    script = "stty -echo; echo what; read answer; echo got $answer; exit 5"
    ours, theirs = os.openpty()
    async with serving(tmp_path) as (_, host), trio.lowlevel.FdStream(ours) as terminal:
        command = docker(host, "-it", "box", "sh", "-c", script)
        process = await trio.lowlevel.open_process(
            command, stdin=theirs, stdout=subprocess.PIPE
        )
        os.close(theirs)
        async with Program(process) as program:
            assert await program.read_line() == "what\r"
            await terminal.send_all(b"42\r")
            assert await program.read_line() == "got 42\r"
            assert await program.read_line() == ""
            status = await process.wait()

    assert status == 5
