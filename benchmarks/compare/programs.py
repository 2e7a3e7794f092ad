"""The programs that are compared: how they are found, started and measured."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Self

from .load import HOST, ServerError

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
PEERS = Path(__file__).with_name("peers")
# Where Node's packages may be: `nox -s bench` installs them in the first of these, Debian
# in the second.
NODE_PATH = (
    str(ROOT / ".nox" / ".cache" / "node" / "node_modules"),
    "/usr/share/nodejs",
)
# Seconds until a program listens, or ends.
BOUND = 15

HAPROXY = """\
global
  maxconn 1000
  nbthread 1
defaults
  mode tcp
  option splice-auto
  timeout connect 5s
  timeout client 60s
  timeout server 60s
listen relay
  bind 127.0.0.1:{port}
  server upstream 127.0.0.1:{upstream}
"""
NGINX = """\
{modules}daemon off;
master_process off;
pid {folder}/nginx.pid;
error_log stderr crit;
events {{ worker_connections 1000; }}
stream {{ server {{
  listen 127.0.0.1:{port};
  proxy_pass 127.0.0.1:{upstream};
  proxy_buffer_size 64k;
}} }}
"""
HAPROXY_HTTP = """\
global
  maxconn 2000
  nbthread 1
defaults
  mode http
  http-reuse always
  option splice-auto
  timeout connect 5s
  timeout client 60s
  timeout server 60s
  timeout tunnel 1h
listen proxy
  bind 127.0.0.1:{port}
  option forwardfor
  server upstream 127.0.0.1:{upstream}
"""
NGINX_HTTP = """\
daemon off;
master_process off;
pid {folder}/nginx.pid;
error_log stderr crit;
events {{ worker_connections 4000; }}
http {{
  access_log off;
  keepalive_requests 1000000000;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  map $http_upgrade $connection_options {{ default upgrade; "" ""; }}
  upstream echo {{
    server 127.0.0.1:{upstream};
    keepalive 64;
    keepalive_requests 1000000000;
  }}
  server {{
    listen 127.0.0.1:{port};
    location / {{
      proxy_pass http://echo;
      proxy_http_version 1.1;
      proxy_set_header Host $host;
      proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
      proxy_set_header Upgrade $http_upgrade;
      proxy_set_header Connection $connection_options;
    }}
  }}
}}
"""
# Programs that need a configuration file, and its text, by the first two words of the
# command.
CONFIGURATIONS: dict[tuple[str, ...], str] = {
    ("haproxy", "tcp"): HAPROXY,
    ("haproxy", "http"): HAPROXY_HTTP,
    ("nginx", "tcp"): NGINX,
    ("nginx", "http"): NGINX_HTTP,
}


class Cores(NamedTuple):
    """The core of the server and the core of the load generator.

    None if this platform does not let a process choose.
    """

    server: int | None
    load: int | None

    @classmethod
    def find(cls) -> Cores:
        """Take the first two cores that this process may use, or the only one."""
        if sys.platform != "linux":
            return cls(None, None)
        allowed = sorted(os.sched_getaffinity(0))
        return cls(allowed[0], allowed[:2][-1])


@contextmanager
def pinned(core: int | None) -> Iterator[None]:
    """Run on this core during the block; processes started in it inherit the core."""
    if core is None or sys.platform != "linux":
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


class Calm:
    """Waits, for a limited time, until no other work uses the cores.

    Other work, also that of other virtual machines, is noticed when a loop takes longer
    than its best time so far. The counters of stolen time do not show all of it.
    """

    # The longest wait, in seconds; and the factor from the best time that is still calm.
    MOST, SLACK = 1.0, 1.15

    def __init__(self, cores: Cores, patience: float) -> None:
        self._cores = set(cores)
        self._patience = patience
        self.waited = 0.0
        self._least = float("inf")

    def wait(self) -> None:
        """Return as soon as all cores are calm, or after the longest wait."""
        began = time.monotonic()
        while not self._calm():
            took = time.monotonic() - began
            if took > min(self.MOST, self._patience - self.waited):
                break
            time.sleep(0.05)
        self.waited += time.monotonic() - began

    def _calm(self) -> bool:
        took = [self._spin(core) for core in self._cores]
        self._least = min(self._least, *took)
        return max(took) < self._least * self.SLACK

    @staticmethod
    def _spin(core: int | None) -> float:
        with pinned(core):
            began = time.perf_counter()
            for _ in range(200_000):
                pass
            return time.perf_counter() - began


def environment() -> dict[str, str]:
    """Return the environment of programs: the clone's library, and .pyc files kept."""
    kept = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    node = [*NODE_PATH, *filter(None, [os.environ.get("NODE_PATH")])]
    return kept | {"PYTHONPATH": str(ROOT), "NODE_PATH": os.pathsep.join(node)}


class Program:
    """A server or a relay in its own process, which listens at ``port``."""

    def __init__(self, command: tuple[str, ...], core: int | None) -> None:
        with socket.socket() as sock:
            sock.bind((HOST, 0))
            self.port: int = sock.getsockname()[1]
        # The server behind a relay, which shares the load generator's core.
        self.beside: Program | None = None
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - stop() closes it
        self._folder = tempfile.TemporaryDirectory()
        words = self._configure(command)
        with pinned(core):
            self._process = subprocess.Popen(
                words, env=environment(), stdout=self._log, stderr=subprocess.STDOUT
            )
        try:
            self._wait_until_it_listens()
        except BaseException:
            self.stop()
            raise

    def _configure(self, command: tuple[str, ...]) -> list[str]:
        """Put the port, or the path of a configuration file, into the command.

        A program in Go is built first; only the first time takes long.
        """
        name, *rest = command
        folder = self._folder.name
        values = {"port": self.port, "folder": folder, "modules": ""}
        if text := CONFIGURATIONS.get(command[:2]):
            values["upstream"] = rest.pop()
            file = Path(folder, "configuration")
            if text == NGINX:
                values["modules"] = load_stream_module(find("nginx"))
            file.write_text(text.format(**values))
            options = ["-db", "-q", "-f"] if name == "haproxy" else ["-p", folder, "-c"]
            return [find(name), *options, str(file)]
        if name == "go":
            source, *rest = rest
            program = str(Path(folder, "program"))
            build = [find("go"), "build", "-o", program, source]
            subprocess.run(build, check=True, capture_output=True)
            command = (program, *rest)
        return [word.format(**values) for word in command]

    def _wait_until_it_listens(self) -> None:
        end = time.monotonic() + BOUND
        while time.monotonic() < end and self._process.poll() is None:
            with suppress(OSError), socket.create_connection((HOST, self.port)):
                return
            time.sleep(0.02)
        self._log.seek(0)
        said = self._log.read().decode(errors="replace").strip().splitlines()
        raise ServerError(f"does not listen: {(said or ['no message'])[-1]}")

    def stop(self) -> None:
        """Kill the process: it has nothing to lose."""
        self._process.kill()
        self._process.wait()
        self._log.close()
        self._folder.cleanup()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def cpu(self) -> float | None:
        """The CPU seconds that it has used, with its children; None without /proc."""
        try:
            return sum(map(_cpu, self._processes()))
        except OSError:
            return None

    def memory(self) -> int | None:
        """The bytes of its memory, with its children; None without /proc.

        Of a page that several processes share each has its part.
        """
        try:
            return sum(map(_memory, self._processes()))
        except OSError:
            return None

    def descriptors(self) -> int | None:
        """How many descriptors the process has open; None without /proc."""
        try:
            return len(os.listdir(f"/proc/{self._process.pid}/fd"))
        except OSError:
            return None

    def _processes(self) -> list[int]:
        """The ids of the process and of its children, which have none of their own."""
        pid = self._process.pid
        with suppress(OSError):
            # This file is missing in some kernels.
            children = Path(f"/proc/{pid}/task/{pid}/children").read_text()
            return [pid, *map(int, children.split())]
        return [pid]


def _cpu(pid: int) -> float:
    folder = Path(f"/proc/{pid}")
    # schedstat counts nanoseconds, stat only ticks of 10 ms.
    tasks = [path.read_text() for path in folder.glob("task/*/schedstat")]
    if tasks:
        return sum(int(text.split()[0]) for text in tasks) / 1e9
    fields = (folder / "stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _memory(pid: int) -> int:
    folder = Path(f"/proc/{pid}")
    for name, field in (("smaps_rollup", "Pss"), ("status", "VmRSS")):
        with suppress(OSError):
            text = (folder / name).read_text()
            if found := re.search(rf"^{field}: +(\d+) kB", text, re.MULTILINE):
                return int(found[1]) * 1024
    raise OSError("there is no /proc")


def kernel_memory() -> int | None:
    """Return the bytes of the kernel's own objects on this machine; None without /proc.

    Sockets, files and entries of epoll are such objects. Data in transit is not counted.
    """
    with suppress(OSError):
        text = Path("/proc/meminfo").read_text()
        if found := re.search(r"^Slab: +(\d+) kB", text, re.MULTILINE):
            return int(found[1]) * 1024
    return None


def commit() -> str:
    """Return the commit that is measured, "" outside a clone."""
    command = ["git", "describe", "--always", "--dirty=, with changes"]
    with suppress(OSError):
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        return done.stdout.strip()
    return ""


def load_stream_module(program: str) -> str:
    """Return the line that loads nginx's stream module, "" if it is compiled in."""
    said = subprocess.run([program, "-V"], capture_output=True, check=True).stderr
    prefix = re.search(r"--modules-path=(\S+)", said.decode())
    module = Path(prefix[1] if prefix else "", "ngx_stream_module.so")
    return (
        f"load_module {module};\n" if "--with-stream=dynamic" in said.decode() else ""
    )


def find(name: str) -> str:
    """Return a program's path; nginx and HAProxy may be outside the user's PATH."""
    return shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin") or name


def find_node_package(name: str) -> bool:
    """Return whether Node, if it is found, finds a package."""
    command = [find("node"), "-e", "require.resolve(process.argv[1])", name]
    with suppress(OSError):
        done = subprocess.run(command, env=environment(), capture_output=True)
        return not done.returncode
    return False


def missing(needed: str) -> str:
    """Return why a peer cannot be compared, "" if it can.

    Args:
        needed: Any number of words: ``program:NAME``, ``module:NAME`` for a Python
            module, ``node:NAME`` for a package of Node, ``nginx:stream`` for nginx with
            that module.
    """
    return next(filter(None, map(_missing, needed.split())), "")


def _missing(needed: str) -> str:
    kind, _, name = needed.partition(":")
    if kind == "module":
        return "" if importlib.util.find_spec(name) else f"no Python module {name}"
    if kind == "node":
        return "" if find_node_package(name) else f"no Node package {name}"
    program = kind if kind == "nginx" else name
    path = find(program)
    if not shutil.which(path):
        return f"no program {program}"
    if kind == "nginx":
        line = load_stream_module(path)
        if line and not Path(line[:-2].removeprefix("load_module ")).exists():
            return "no stream module of nginx"
    return ""
