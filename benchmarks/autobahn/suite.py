"""Run Autobahn's testsuite against our server and our client.

    python -m benchmarks.autobahn [--quick] [--proxy] [--wstest PROGRAM] [--reports DIR]

All WebSocket libraries are judged by this suite. Its program, ``wstest``, needs Python
2.7; ``nox -s autobahn`` installs it. The whole suite has 517 cases for each side, and
takes about eleven minutes; ``--quick`` runs those of parts 1 to 7 and 10, without the
large messages and the compression, in half a minute. The exit status is 1 unless each
case has an expected result; see ``verdict.py``. With ``--proxy`` each side is tested
through our reverse proxy, and the same results are expected.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.compare.load import HOST, ServerError
from benchmarks.compare.programs import BOUND, ROOT, Program, environment

from .verdict import ALL_CASES, QUICK, QUICK_CASES, judge

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

# The suite sends messages in over 65,536 fragments, and websockets accepts 4,096 unless
# this says otherwise.
PYTHON = ("env", "WEBSOCKETS_MAX_FRAGMENTS=100000", sys.executable)
SERVER = (*PYTHON, str(Path(__file__).with_name("echo_server.py")), "{port}")
CLIENT = (*PYTHON, "-m", "benchmarks.autobahn.client")
PROXY = (sys.executable, str(Path(__file__).with_name("proxy.py")))
# Where `nox -s autobahn` installs it.
INSTALLED = ROOT / ".nox" / ".cache" / "autobahn" / "bin" / "wstest"


def find_wstest() -> str | None:
    """Return the path of ``wstest``; None if it is not found."""
    return shutil.which("wstest") or shutil.which(INSTALLED)


def make_environment() -> dict[str, str]:
    """Return the environment for Python 2.7: without our modules and variables."""
    return {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}


@contextmanager
def reached(port: int, *, proxied: bool) -> Iterator[str]:
    """Yield the URL of the server at a port, or of a proxy that forwards to it."""
    if not proxied:
        yield f"ws://{HOST}:{port}"
        return
    with Program((*PROXY, f"{HOST}:{port}", "{port}"), None) as proxy:
        yield f"ws://{HOST}:{proxy.port}"


def try_server(wstest: str, folder: Path, cases: list[str], *, proxied: bool) -> Path:
    """Let ``wstest`` test our server; return the folder of the report."""
    reports = folder / "server"
    with Program(SERVER, None) as server, reached(server.port, proxied=proxied) as url:
        spec = {"servers": [{"agent": "trio_upgrade server", "url": url}]}
        subprocess.run(
            prepare(wstest, "fuzzingclient", reports, cases, spec),
            check=True,
            cwd=folder,
            env=make_environment(),
            stdout=subprocess.DEVNULL,
        )
    return reports


def try_client(wstest: str, folder: Path, cases: list[str], *, proxied: bool) -> Path:
    """Let ``wstest`` test our client; return the folder of the report."""
    reports = folder / "client"
    with socket.socket() as sock:
        sock.bind((HOST, 0))
        port: int = sock.getsockname()[1]
    url = f"ws://{HOST}:{port}"
    command = prepare(wstest, "fuzzingserver", reports, cases, {"url": url})
    with subprocess.Popen(
        # Without its page of the reports, which would be at port 8080.
        [*command, "--webport", "0"],
        cwd=folder,
        env=make_environment(),
        stdout=subprocess.DEVNULL,
    ) as server:
        try:
            wait_listening(server, port)
            with reached(port, proxied=proxied) as way:
                client = [*CLIENT, way, "trio_upgrade"]
                subprocess.run(client, check=True, cwd=ROOT, env=environment())
        finally:
            server.kill()
    return reports


def prepare(
    wstest: str, mode: str, reports: Path, cases: list[str], spec: Mapping[str, object]
) -> list[str]:
    """Write the specification of a run, and return its command."""
    whole = {
        "outdir": str(reports),
        "cases": cases,
        "exclude-cases": [],
        "exclude-agent-cases": {},
        **spec,
    }
    file = reports.with_suffix(".json")
    file.write_text(json.dumps(whole))
    return [wstest, "-m", mode, "-s", str(file)]


def wait_listening(server: subprocess.Popen[bytes], port: int) -> None:
    """Wait until the suite's server listens."""
    end = time.monotonic() + BOUND
    while time.monotonic() < end and server.poll() is None:
        with suppress(OSError), socket.create_connection((HOST, port)):
            return
        time.sleep(0.05)
    raise ServerError("wstest does not listen")


def main(words: Sequence[str] | None = None) -> int:
    """Test both sides; return 1 if one of them has an unexpected result."""
    parser = argparse.ArgumentParser(prog="benchmarks.autobahn")
    parser.add_argument("--quick", action="store_true", help="parts 1 to 7 and 10 only")
    parser.add_argument("--proxy", action="store_true", help="through our proxy")
    parser.add_argument("--wstest", default=find_wstest(), help="the suite's program")
    parser.add_argument("--reports", type=Path, help="keep the suite's pages here")
    options = parser.parse_args(words)
    if options.wstest is None:
        parser.error("wstest is not found: nox -s autobahn installs it")
    cases, count = (QUICK, QUICK_CASES) if options.quick else (["*"], ALL_CASES)
    with tempfile.TemporaryDirectory() as temporary:
        folder = (options.reports or Path(temporary)).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        failed = False
        for try_side in try_server, try_client:
            reports = try_side(options.wstest, folder, cases, proxied=options.proxy)
            verdict = judge(reports, count)
            print(verdict, flush=True)
            failed |= bool(verdict.mistakes)
    return int(failed)
