# An ssh server of the tests' own, and commands of clients that reach it by a program.
from __future__ import annotations

import os
import shlex
import shutil
import socket
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from .programs import HOST

if TYPE_CHECKING:
    from collections.abc import Iterator


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
