# The files of examples/deploy with the real programs, and two servers that are replaced
# one after the other.
#
# A file is used as it is, but for some values, which fill() replaces: ports, folders, and
# the seconds between two checks of health.  A value that is not there is an error, so the
# file and the test cannot drift apart.
from __future__ import annotations

import os
import random
import shutil
import signal
import socket
import subprocess
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, final

import trio

from benchmarks.restart.load import Tally, loading
from benchmarks.restart.proxies import wait_listening
from trio_upgrade import OpenError, open_connection, open_upgrade

from .programs import EXAMPLES, HOST, Program, example, read_url, start

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

    from trio_upgrade import UpgradedStream

DEPLOY = EXAMPLES / "deploy"
# Below the ports that Linux gives to clients: one of those could be in use just when the
# server that had it is started again.
PORTS = range(20_000, 32_000)
# Seconds: a delay for which every recipe, as the tests fill it, has noticed the 503.
DELAY = 1.0
GRACE = 10.0
# Seconds that a proxy has to end before it is killed.
END_SECONDS = 5.0
# Seconds from one connection to the next, and from one offer to the next.
EVERY, EVERY_OFFER = 0.005, 0.02
# Tunnels that are open when a server is told to end; each server has some of them.
TUNNELS = 4


def free_port() -> int:
    """Return a port on which no program listens."""
    while True:
        port = random.choice(PORTS)
        with socket.socket() as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                sock.bind((HOST, port))
            except OSError:
                continue
            return port


def fill(name: str, values: Mapping[str, object]) -> str:
    """Return the text of a recipe with other values.

    Args:
        name: The file in examples/deploy.
        values: What is replaced, by what.
    """
    text = (DEPLOY / name).read_text()
    for old, new in values.items():
        assert old in text, f"{name} has no {old!r}"
        text = text.replace(old, str(new))
    return text


################################################################
# Proxies
################################################################

# nginx.conf is a file for its http block.
NGINX = """
daemon off;
master_process off;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{ worker_connections 2048; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    include {site};
}}
"""
# apache.conf is a site; the modules are those that Debian enables, and those that the
# file names.  Apache refuses to serve as root; another user than root serves as itself.
APACHE = """
ServerRoot {folder}
ServerName localhost
PidFile {folder}/apache.pid
ErrorLog {folder}/error.log
DefaultRuntimeDir {folder}
{modules}
User www-data
Group www-data
Include {site}
"""
APACHE_MODULES = Path("/usr/lib/apache2/modules")
APACHE_ENABLED = ("mpm_event", "authz_core")


class Proxy(NamedTuple):
    """How a recipe is run.

    Attributes:
        program: The program.
        recipe: Its file.
        values: What else is replaced: how often a server's health is checked.
        command: The program's arguments.
        keeps_half_close: Whether an end of one direction reaches the other side alone.
    """

    program: str
    recipe: str
    values: dict[str, str]
    command: tuple[str, ...]
    keeps_half_close: bool


PROXIES = {
    "nginx": Proxy(
        "nginx",
        "nginx.conf",
        {},
        ("-p", "{folder}", "-e", "{folder}/error.log", "-c", "{config}"),
        keeps_half_close=False,
    ),
    "haproxy": Proxy(
        "haproxy",
        "haproxy.cfg",
        {"inter 2s": "inter 200ms"},
        ("-db", "-q", "-f", "{config}"),
        keeps_half_close=True,
    ),
    "caddy": Proxy(
        "caddy",
        "Caddyfile",
        {
            "admin localhost:2019": "admin unix/{folder}/admin",
            "health_interval 2s": "health_interval 200ms",
        },
        ("run", "--adapter", "caddyfile", "--config", "{config}"),
        keeps_half_close=False,
    ),
    "apache": Proxy(
        "apache2",
        "apache.conf",
        {"hcinterval=2": "hcinterval=200ms"},
        ("-D", "FOREGROUND", "-f", "{config}"),
        keeps_half_close=True,
    ),
}


def write_config(name: str, folder: Path, values: Mapping[str, object]) -> Path:
    """Write a recipe with other values, and what its program needs besides."""
    proxy = PROXIES[name]
    others = {old: new.format(folder=folder) for old, new in proxy.values.items()}
    site = folder / "site"
    site.write_text(fill(proxy.recipe, {**values, **others}))
    if name not in ("nginx", "apache"):
        return site
    config = folder / "config"
    if name == "nginx":
        config.write_text(NGINX.format(folder=folder, site=site))
        return config
    (line,) = [line for line in site.read_text().splitlines() if "a2enmod" in line]
    modules = [*APACHE_ENABLED, *line.split("a2enmod")[1].split(), "slotmem_shm"]
    paths = ((module, APACHE_MODULES / f"mod_{module}.so") for module in modules)
    loading = "\n".join(f"LoadModule {name}_module {path}" for name, path in paths)
    config.write_text(APACHE.format(folder=folder, modules=loading, site=site))
    return config


@asynccontextmanager
async def open_proxy(
    name: str, folder: Path, ports: Sequence[int]
) -> AsyncIterator[int]:
    """Run a recipe in front of two ports; give its port."""
    port = free_port()
    one, two = ports
    values = {":8080": f":{port}", ":8001": f":{one}", ":8002": f":{two}"}
    config = write_config(name, folder, values)
    program = PROXIES[name]
    words = [word.format(folder=folder, config=config) for word in program.command]
    # Caddy keeps its state there.
    environment = {"HOME": str(folder), "XDG_DATA_HOME": str(folder)}
    with (folder / "output").open("wb") as output:
        process = await trio.lowlevel.open_process(
            [shutil.which(program.program) or program.program, *words],
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **environment},
        )
    async with Program(process):
        try:
            await wait_listening(port, process)
            yield port
        finally:
            # Apache's other processes end with the first one, but not if it is killed.
            process.terminate()
            with trio.move_on_after(END_SECONDS, shield=True):
                await process.wait()


@asynccontextmanager
async def open_tinyproxy(folder: Path, target: int) -> AsyncIterator[str]:
    """Run tinyproxy, which makes tunnels to one port; give its URL."""
    port = free_port()
    config = folder / "tinyproxy.conf"
    values = {"Port 8888": f"Port {port}", "ConnectPort 443": f"ConnectPort {target}"}
    config.write_text(fill("tinyproxy.conf", values))
    with (folder / "output").open("wb") as output:
        process = await trio.lowlevel.open_process(
            ["tinyproxy", "-d", "-c", str(config)],
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    async with Program(process):
        await wait_listening(port, process)
        yield f"http://{HOST}:{port}"


################################################################
# Two servers
################################################################


@final
class Place(trio.abc.AsyncResource):
    """A port, and the server that has it at the moment: examples/deploy/app.py."""

    def __init__(self, delay: float) -> None:
        self.port = free_port()
        self.delay = delay
        self._program: Program | None = None

    @property
    def process(self) -> trio.Process:
        """The process of the server."""
        assert self._program is not None
        return self._program.process

    async def start(self) -> None:
        """Start a server, and wait until it listens."""
        times = "--delay", self.delay, "--grace", GRACE
        command = example("deploy/app.py", "--port", self.port, *times)
        self._program = await start(*command)
        await read_url(self._program)

    async def wait_draining(self) -> None:
        """Wait until the server accepts no connection, some time after a signal."""
        while True:
            try:
                stream = await trio.open_tcp_stream(HOST, self.port)
            except OSError:
                return
            await stream.aclose()
            await trio.sleep(0.01)

    async def wait_ended(self) -> None:
        """Wait until a server that drains has ended, by itself and without an error."""
        assert await self.process.wait() == 0
        await self.aclose()

    async def aclose(self) -> None:
        """Kill the server if it still runs."""
        if self._program is not None:
            await self._program.aclose()


@asynccontextmanager
async def open_places(*, delay: float) -> AsyncIterator[tuple[Place, Place]]:
    """Start two servers."""
    async with Place(delay) as one, Place(delay) as two:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(one.start)
            nursery.start_soon(two.start)
        yield one, two


async def ask(port: int) -> int:
    """Return the process id of the server that answers."""
    async with await open_connection(f"http://{HOST}:{port}") as connection:
        response = await connection.request("GET", "/")
        return int(await response.read())


async def wait_for_answer(port: int, process: trio.Process) -> None:
    """Wait until a process answers through a proxy."""
    while await ask(port) != process.pid:
        pass


async def offer(port: int, tally: Tally) -> None:
    """Make one offer, and have something echoed."""
    tally.connections += 1
    how = "refused offer"
    try:
        async with await open_upgrade(f"http://{HOST}:{port}", "echo") as (
            _,
            stream,
            _,
        ):
            how = "cut tunnel"
            await stream.send_all(b"hello")
            assert await stream.receive_exactly(5) == b"hello"
    except (OpenError, OSError, trio.BrokenResourceError) as exc:
        tally.lost[f"{how}: {exc}"] += 1
    else:
        tally.answered += 1


async def replace(place: Place, port: int) -> None:
    """Replace a server behind a proxy as the recipes say, while tunnels are open.

    Args:
        place: The server.
        port: The proxy's port.
    """
    async with AsyncExitStack() as stack:
        tunnels: list[UpgradedStream] = []
        for _ in range(TUNNELS):
            opened = await open_upgrade(f"http://{HOST}:{port}", "echo")
            tunnels.append((await stack.enter_async_context(opened)).stream)
        place.process.send_signal(signal.SIGTERM)
        await place.wait_draining()
        # Those of the server that drains have the grace to end.
        for tunnel in tunnels:
            await tunnel.send_all(b"still here")
            assert await tunnel.receive_exactly(10) == b"still here"
    await place.wait_ended()
    await place.start()
    await wait_for_answer(port, place.process)


@asynccontextmanager
async def loading_both(port: int) -> AsyncIterator[tuple[Tally, Tally]]:
    """Make requests and offers as long as the block runs; then wait for the answers."""
    async with (
        loading(port, EVERY) as requests,
        loading(port, EVERY_OFFER, offer) as offers,
    ):
        yield requests, offers
