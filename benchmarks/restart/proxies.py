"""Proxies in front of the workers, configured in several ways.

*kept*: connections to the workers are kept and used again. A worker may end such a
connection at any time, so no proxy can know whether it is still open; each proxy repeats
a request that failed for this reason. *once*: a new connection for every request, and a
request is sent once only, so that whatever a worker loses is lost for the client.
*strict*: as *kept*, but one failure takes a worker out for ten seconds, as nginx does
unless it has ``max_fails=0``.
"""

from __future__ import annotations

import os
import socket
import subprocess
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import trio

from .load import HOST, connect

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path

CONFIGS = {
    "nginx": """
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
    upstream workers {{
        server {host}:{one} {server};
        server {host}:{two} {server};
        {upstream}
    }}
    server {{
        listen {host}:{port} backlog=4096;
        location / {{
            proxy_pass http://workers;
            proxy_http_version 1.1;
            {location}
        }}
    }}
}}
""",
    "haproxy": """
defaults
    mode http
    timeout connect 5s
    timeout client 10s
    timeout server 10s
frontend clients
    bind {host}:{port}
    default_backend workers
backend workers
    balance roundrobin
    {backend}
    server one {host}:{one}
    server two {host}:{two}
""",
    "caddy": """
{{
    admin off
    auto_https off
}}
http://{host}:{port} {{
    reverse_proxy {host}:{one} {host}:{two} {{
        lb_policy round_robin
        {proxy}
    }}
}}
""",
}
KEPT = {
    "server": "max_fails=0",
    "upstream": "keepalive 16;",
    "location": 'proxy_set_header Connection "";',
    "backend": "option redispatch\n retry-on all-retryable-errors\n http-reuse always",
    "proxy": "lb_try_duration 5s",
}
ONCE = {
    "server": "max_fails=0",
    "upstream": "",
    "location": "proxy_next_upstream off;",
    "backend": "retries 0\n http-reuse never",
    "proxy": "transport http {\n keepalive off\n }",
}
SETTINGS = {"kept": KEPT, "once": ONCE, "strict": {**KEPT, "server": ""}}
COMMANDS = {
    "nginx": ("nginx", "-p", "{folder}", "-e", "{folder}/error.log", "-c", "{config}"),
    "haproxy": ("haproxy", "-db", "-f", "{config}"),
    "caddy": ("caddy", "run", "--adapter", "caddyfile", "--config", "{config}"),
}


@asynccontextmanager
async def open_proxy(
    name: str, folder: Path, ports: Sequence[int], *, settings: str
) -> AsyncIterator[int]:
    """Run a proxy in front of two ports; give its port.

    Args:
        name: Its name, a key of CONFIGS.
        folder: A folder for its files.
        ports: The two ports.
        settings: How it is configured, a key of SETTINGS.
    """
    with socket.create_server((HOST, 0)) as unused:
        port: int = unused.getsockname()[1]
    one, two = ports
    config = folder / "config"
    values: dict[str, object] = {
        "host": HOST,
        "port": port,
        "one": one,
        "two": two,
        "folder": folder,
    }
    values |= SETTINGS[settings]
    config.write_text(CONFIGS[name].format_map(values))
    command = [word.format(folder=folder, config=config) for word in COMMANDS[name]]
    with (folder / "output").open("wb") as output:
        process = await trio.lowlevel.open_process(
            command,
            stdout=output,
            stderr=subprocess.STDOUT,
            # Caddy keeps its state there.
            env={**os.environ, "HOME": str(folder), "XDG_DATA_HOME": str(folder)},
        )
        try:
            await wait_listening(port, process)
            yield port
        finally:
            process.kill()
            with trio.CancelScope(shield=True):
                await process.wait()


async def wait_listening(port: int, process: trio.Process) -> None:
    """Wait until a program accepts connections.

    Raises:
        RuntimeError: It has ended.
    """
    while process.poll() is None:
        try:
            stream = await connect(port)
        except OSError:
            await trio.sleep(0.01)
        else:
            await stream.aclose()
            return
    raise RuntimeError(f"{process.args!r} ended with status {process.returncode}")
