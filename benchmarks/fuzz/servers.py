"""The servers that get the requests: the library; Node and nginx if they are found."""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, final

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

HERE = Path(__file__).parent
HOST = "127.0.0.1"
OURS, NODE, NGINX = "ours", "Node", "nginx"
# Seconds that a server may take to listen.
START_SECONDS = 20.0

# nginx asks itself over a Unix socket, so that it reads the whole body first, and the
# second server says how long the body was.  It has only what was understood: no field of
# the client is passed on.
NGINX_CONFIG = """
daemon off;
master_process off;
worker_processes 1;
pid {folder}/nginx.pid;
error_log {folder}/error.log info;
events {{ worker_connections 512; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    client_max_body_size 0;
    keepalive_requests 100000;
    server {{
        listen {host}:{port};
        location / {{
            proxy_pass http://unix:{folder}/seen.sock;
            proxy_method POST;
            proxy_pass_request_headers off;
            proxy_set_header Seen "$request_method $request_uri";
            proxy_ignore_client_abort on;
        }}
    }}
    server {{
        listen unix:{folder}/seen.sock;
        location / {{
            add_header Seen-Raw "$content_length;$http_seen";
            return 200 "";
        }}
    }}
}}
"""


@final
class Target:
    """A running server.

    Args:
        name: Its name in the report.
        ports: The port for ordinary answers, and the one that switches; without the
            second the server gets no request that may switch.
        log: The file in which it says why it refuses; None if it says so in its answers.
    """

    def __init__(
        self, name: str, ports: Sequence[int], log: IO[str] | None = None
    ) -> None:
        self.name = name
        self.port = ports[0]
        self.switching_port = ports[1] if len(ports) > 1 else None
        self._log = log

    def read_log(self) -> str | None:
        """Return what was logged since the last call; None if there is no log."""
        return None if self._log is None else self._log.read()


@contextmanager
def running(command: Sequence[str], cwd: Path | None = None) -> Iterator[IO[bytes]]:
    """Run a program; give its output, and end it."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, cwd=cwd)
    assert process.stdout is not None
    with process:
        try:
            yield process.stdout
        finally:
            process.terminate()


@contextmanager
def start_printing(name: str, command: Sequence[str]) -> Iterator[Target]:
    """Run a target that prints its ports."""
    with running(command) as output:
        ports = [int(port) for port in output.readline().split()]
        if not ports:
            raise RuntimeError(f"{name} did not start: {' '.join(command)}")
        yield Target(name, ports)


@contextmanager
def start_ours(_folder: Path) -> Iterator[Target]:
    """Run the library."""
    with start_printing(OURS, [sys.executable, str(HERE / "target.py")]) as target:
        yield target


@contextmanager
def start_node(_folder: Path) -> Iterator[Target]:
    """Run Node."""
    with start_printing(NODE, ["node", str(HERE / "node_target.js")]) as target:
        yield target


@contextmanager
def start_nginx(folder: Path) -> Iterator[Target]:
    """Run nginx with files in a folder of its own; its user needs no rights."""
    with socket.create_server((HOST, 0)) as unused:
        port: int = unused.getsockname()[1]
    config, log = folder / "nginx.conf", folder / "error.log"
    config.write_text(NGINX_CONFIG.format(folder=folder, host=HOST, port=port))
    log.touch()
    command = ["nginx", "-p", str(folder), "-e", str(log), "-c", str(config)]
    with running(command, cwd=folder), log.open(errors="replace") as lines:
        wait_listening(port)
        yield Target(NGINX, [port], lines)


def wait_listening(port: int) -> None:
    """Wait until a program accepts connections."""
    end = time.monotonic() + START_SECONDS
    while True:
        try:
            socket.create_connection((HOST, port)).close()
        except OSError:
            if time.monotonic() > end:
                raise
            time.sleep(0.02)
        else:
            return


# What to run for each name, and the program that it needs.
STARTS = {
    OURS: (start_ours, sys.executable),
    NODE: (start_node, "node"),
    NGINX: (start_nginx, "nginx"),
}


def find_servers() -> list[str]:
    """Return the names of the servers whose programs are found."""
    return [name for name, (_, program) in STARTS.items() if shutil.which(program)]


def find_reason(log: str) -> str:
    """Return in nginx's own words why it refused; empty if it did not say."""
    matches = re.findall(r"\*\d+ (client sent .*?)(?:: \"| while |, client: )", log)
    return matches[-1] if matches else ""
