"""Unix sockets: which file is replaced, who may connect, which file stays at the end."""

from __future__ import annotations

import errno
import os
import shutil
import socket
import stat
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import pytest
import trio
import trio.testing

from trio_upgrade import (
    Limits,
    PeerGone,
    Server,
    open_upgrade,
    serve_listeners,
    serve_unix,
)
from trio_upgrade._streams.unix_listener import open_unix_listener

from ..apps import echo_app
from ..interop.programs import Program, start
from ..tls import make_tls_contexts

if sys.platform != "win32":
    import fcntl

RACING_SERVER = "tests.server.racing_server"
_NOBODY = 65534

pytestmark = pytest.mark.skipif(
    not hasattr(socket, "AF_UNIX"), reason="needs Unix sockets: not on Windows"
)


async def check_echo(path: str | bytes | Path) -> None:
    stream = await trio.open_unix_socket(path)
    upgraded = await open_upgrade("http://x/", "echo", stream=stream)
    async with upgraded as (_, upgraded_stream, _):
        await upgraded_stream.send_all(b"hello")
        assert await upgraded_stream.receive_some() == b"hello"


def leave_stale(path: Path, kind: int = socket.SOCK_STREAM) -> None:
    """Make the file of a socket that is gone."""
    with socket.socket(socket.AF_UNIX, kind) as sock:
        sock.bind(str(path))


class TestFile:
    """An existing file may be replaced or not; at the end only our file is removed."""

    @pytest.mark.parametrize("kind", [str, os.fsencode, lambda path: path])
    async def test_new(self, tmp_path, kind) -> None:
        """The file exists while connections are accepted, and not afterwards."""
        path = tmp_path / "socket"
        async with trio.open_nursery() as nursery:
            await nursery.start(serve_unix, echo_app, kind(path))
            await check_echo(path)
            assert path.is_socket()
            nursery.cancel_scope.cancel()

        assert os.listdir(tmp_path) == []

    @pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM])
    async def test_stale(self, tmp_path, kind: int) -> None:
        """A file whose socket is gone is replaced."""
        path = tmp_path / "socket"
        leave_stale(path, kind)
        async with trio.open_nursery() as nursery:
            await nursery.start(serve_unix, echo_app, path)
            await check_echo(path)
            nursery.cancel_scope.cancel()

        assert not path.exists()

    async def test_alive(self, tmp_path) -> None:
        """A server that listens on the path is not disturbed."""
        path = tmp_path / "socket"
        async with trio.open_nursery() as nursery:
            await nursery.start(serve_unix, echo_app, path)
            with pytest.raises(
                OSError, match="a server already listens there"
            ) as caught:
                await serve_unix(echo_app, path)
            await check_echo(path)
            nursery.cancel_scope.cancel()

        assert caught.value.errno == errno.EADDRINUSE
        assert caught.value.filename == str(path)

    async def test_alive_and_busy(self, tmp_path) -> None:
        """A server whose backlog is full is not disturbed."""
        path = tmp_path / "socket"
        with (
            socket.socket(socket.AF_UNIX) as busy,
            socket.socket(socket.AF_UNIX) as one,
        ):
            busy.bind(str(path))
            busy.listen(0)
            one.connect(str(path))
            with pytest.raises(OSError, match="a server already listens there"):
                await serve_unix(echo_app, path)

        assert path.is_socket()

    async def test_alive_with_datagrams(self, tmp_path) -> None:
        """A datagram socket in use is not replaced."""
        path = tmp_path / "socket"
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
            other.bind(str(path))
            with pytest.raises(OSError, match=os.strerror(errno.EPROTOTYPE)):
                await serve_unix(echo_app, path)

        assert path.is_socket()

    @pytest.mark.parametrize("what", ["file", "folder", "link", "pipe"])
    async def test_no_socket(self, tmp_path, what: str) -> None:
        """A file that is not a socket is an error and stays, even a link to a socket."""
        path = tmp_path / "socket"
        if what == "file":
            path.write_text("precious")
        elif what == "folder":
            path.mkdir()
        elif what == "link":
            leave_stale(tmp_path / "target")
            path.symlink_to(tmp_path / "target")
        else:
            os.mkfifo(path)
        before = path.lstat()

        with pytest.raises(FileExistsError) as caught:
            await serve_unix(echo_app, path)

        assert caught.value.filename == str(path)
        assert path.lstat() == before

    async def test_replaced(self, tmp_path) -> None:
        """A file that has replaced ours is not removed."""
        path = tmp_path / "socket"
        async with trio.open_nursery() as successor:
            async with trio.open_nursery() as nursery:
                await nursery.start(serve_unix, echo_app, path)
                path.unlink()
                await successor.start(serve_unix, echo_app, path)
                nursery.cancel_scope.cancel()
            await check_echo(path)
            successor.cancel_scope.cancel()

        assert not path.exists()

    async def test_removed(self, tmp_path) -> None:
        """It is not an error if another process has removed our file."""
        path = tmp_path / "socket"
        async with trio.open_nursery() as nursery:
            await nursery.start(serve_unix, echo_app, path)
            path.unlink()
            nursery.cancel_scope.cancel()

        assert os.listdir(tmp_path) == []

    async def test_closed_twice(self, tmp_path) -> None:
        """A listener that is closed again leaves the file of its successor.

        The successor's file often has the same inode number.
        """
        path = tmp_path / "socket"
        first = await open_unix_listener(path, mode=None, backlog=None)
        await first.aclose()
        async with await open_unix_listener(path, mode=None, backlog=None):
            await first.aclose()
            assert path.is_socket()

    async def test_relative(self, tmp_path, monkeypatch) -> None:
        """A relative path is resolved when the server starts."""
        monkeypatch.chdir(tmp_path)
        async with trio.open_nursery() as nursery:
            server = await nursery.start(serve_unix, echo_app, "socket")
            assert server.url.endswith(f"%2F{tmp_path.name}%2Fsocket")
            await check_echo("socket")
            monkeypatch.chdir("/")
            nursery.cancel_scope.cancel()

        assert os.listdir(tmp_path) == []

    async def test_drained(self, tmp_path) -> None:
        """The path is free for a successor as soon as the drain begins."""
        path = tmp_path / "socket"
        async with trio.open_nursery() as nursery:
            server: Server = await nursery.start(serve_unix, echo_app, path)
            stream = await trio.open_unix_socket(path)
            upgraded = await open_upgrade("http://x/", "echo", stream=stream)
            async with upgraded as (_, old, _):
                server.start_drain(None)
                await trio.testing.wait_all_tasks_blocked()
                assert not path.exists()
                successor: Server = await nursery.start(serve_unix, echo_app, path)
                await check_echo(path)
                await old.send_all(b"still here")
                assert await old.receive_some() == b"still here"
            await server.wait_ended()
            await check_echo(path)
            await successor.drain(0)

        assert not path.exists()


class TestMode:
    """Who may connect."""

    @pytest.mark.parametrize("umask", [0o777, 0o022, 0])
    @pytest.mark.parametrize("mode", [0o600, 0o660, 0o666])
    async def test_given(self, tmp_path, umask: int, mode: int) -> None:
        """The file has the given permissions, whatever the umask."""
        path = tmp_path / "socket"
        before = os.umask(umask)
        try:
            async with trio.open_nursery() as nursery:
                await nursery.start(partial(serve_unix, echo_app, path, mode=mode))
                assert stat.S_IMODE(path.stat().st_mode) == mode
                nursery.cancel_scope.cancel()
        finally:
            os.umask(before)

    async def test_not_given(self, tmp_path) -> None:
        """Without a mode the umask decides."""
        path = tmp_path / "socket"
        before = os.umask(0o027)
        try:
            async with trio.open_nursery() as nursery:
                await nursery.start(serve_unix, echo_app, path)
                assert stat.S_IMODE(path.stat().st_mode) == 0o750
                nursery.cancel_scope.cancel()
        finally:
            os.umask(before)

    async def test_refused_by_the_file_system(self, tmp_path, monkeypatch) -> None:
        """If the permissions cannot be set, no file is left."""

        def refuse(path: bytes, mode: int) -> None:
            assert os.fsdecode(path) == str(tmp_path / "socket")
            raise PermissionError(errno.EPERM, f"no mode {mode:o} here")

        monkeypatch.setattr(os, "chmod", refuse)
        with pytest.raises(PermissionError, match="no mode 600 here"):
            await serve_unix(echo_app, tmp_path / "socket", mode=0o600)

        assert not os.listdir(tmp_path)

    @pytest.mark.parametrize("mode", [-1, 0o1000, 660, 777])
    async def test_no_permissions(self, tmp_path, mode: int) -> None:
        """A decimal number that was meant as octal is a ValueError, and makes no file."""
        with pytest.raises(ValueError, match="at most 0o777"):
            await serve_unix(echo_app, tmp_path / "socket", mode=mode)

        assert os.listdir(tmp_path) == []

    async def test_no_number(self, tmp_path) -> None:
        """A mode that is not a number is a TypeError, and makes no file."""
        with pytest.raises(TypeError):
            await serve_unix(
                echo_app,
                tmp_path / "socket",
                mode="660",  # type: ignore[arg-type]
            )

        assert os.listdir(tmp_path) == []


async def say(server: Program, line: str) -> None:
    """Write a line to a program."""
    assert server.process.stdin is not None
    await server.process.stdin.send_all(f"{line}\n".encode())


class TestRace:
    """Several servers start at once on one stale file."""

    @pytest.mark.ids("F23")
    async def test_two_processes(self, tmp_path) -> None:
        """One listens and can be reached, the other gets EADDRINUSE, 400 times."""
        path = tmp_path / "socket"
        command = (sys.executable, "-m", RACING_SERVER, str(path))
        async with await start(*command) as one, await start(*command) as other:
            for _ in range(400):
                leave_stale(path)
                # Time for both to read it.
                moment = time.monotonic() + 0.001
                for server in (one, other):
                    await say(server, str(moment))
                found = [await one.read_line(), await other.read_line()]
                assert sorted(found) == ["EADDRINUSE", "listening"]
                with socket.socket(socket.AF_UNIX) as client:
                    client.connect(str(path))
                for server in (one, other):
                    await say(server, "stop")
                    assert await server.read_line() == "stopped"
                assert os.listdir(tmp_path) == []

    @pytest.mark.ids("F23")
    async def test_two_tasks(self, tmp_path) -> None:
        """The same within one process."""
        path = tmp_path / "socket"
        failures: list[OSError] = []

        async def serve(nursery: trio.Nursery) -> None:
            try:
                await nursery.start(serve_unix, echo_app, path)
            except OSError as exc:
                failures.append(exc)

        for _ in range(20):
            leave_stale(path)
            async with trio.open_nursery() as nursery:
                async with trio.open_nursery() as starting:
                    for _ in range(4):
                        starting.start_soon(serve, nursery)
                await check_echo(path)
                nursery.cancel_scope.cancel()

        assert [exc.errno for exc in failures] == [errno.EADDRINUSE] * 60
        assert os.listdir(tmp_path) == []

    @pytest.mark.ids("F23")
    @pytest.mark.parametrize("kind", ["LOCK_SH", "LOCK_EX"])
    async def test_lock_held_for_long(self, tmp_path, kind: str, monkeypatch) -> None:
        """A program that keeps the directory locked delays a server, no more."""
        monkeypatch.setattr("trio_upgrade._streams.unix_listener._LOCK_WAIT", 0.02)
        path = tmp_path / "socket"
        leave_stale(path)
        descriptor = os.open(tmp_path, os.O_RDONLY)
        try:
            fcntl.flock(descriptor, getattr(fcntl, kind))
            async with trio.open_nursery() as nursery:
                await nursery.start(serve_unix, echo_app, path)
                await check_echo(path)
                nursery.cancel_scope.cancel()
        finally:
            os.close(descriptor)

    @pytest.mark.ids("F23")
    @pytest.mark.parametrize("error", [errno.EBADF, errno.ENOLCK, errno.EOPNOTSUPP])
    async def test_no_locks(self, tmp_path, error: int, monkeypatch) -> None:
        """On a file system without locks a server starts without one."""

        def refuse(descriptor: int, _: int) -> None:
            assert stat.S_ISDIR(os.fstat(descriptor).st_mode)
            raise OSError(error, "scripted")

        monkeypatch.setattr(fcntl, "flock", refuse)
        path = tmp_path / "socket"
        leave_stale(path)
        async with trio.open_nursery() as nursery:
            await nursery.start(serve_unix, echo_app, path)
            await check_echo(path)
            nursery.cancel_scope.cancel()

    @pytest.mark.ids("F23")
    async def test_directory_that_cannot_be_read(self) -> None:
        """In a directory that may be written but not read a server starts, too."""
        user = os.geteuid()
        folder = tempfile.mkdtemp()
        try:
            os.chmod(folder, 0o300)
            if user == 0:
                # Root can read every directory.
                os.chown(folder, _NOBODY, -1)
                os.seteuid(_NOBODY)
            with pytest.raises(PermissionError):
                os.listdir(folder)
            path = Path(folder, "socket")
            leave_stale(path)
            async with trio.open_nursery() as nursery:
                await nursery.start(serve_unix, echo_app, path)
                await check_echo(path)
                nursery.cancel_scope.cancel()
        finally:
            os.seteuid(user)
            os.chmod(folder, 0o700)
            left = os.listdir(folder)
            shutil.rmtree(folder)

        assert left == []


class TestFailure:
    """After a failure no file of ours is left."""

    async def test_path_too_long(self, tmp_path) -> None:
        """A path over the kernel's limit is an OSError."""
        with pytest.raises(OSError, match="too long"):
            await serve_unix(echo_app, tmp_path / ("x" * 200))

    async def test_no_folder(self, tmp_path) -> None:
        """A missing directory is a FileNotFoundError."""
        with pytest.raises(FileNotFoundError):
            await serve_unix(echo_app, tmp_path / "no" / "socket")

    async def test_empty(self) -> None:
        """An empty path is a ValueError: the kernel would choose an abstract name."""
        with pytest.raises(ValueError, match="must not be empty"):
            await serve_unix(echo_app, "")

    async def test_backlog(self, tmp_path) -> None:
        """A failure after the file was made removes the file."""
        with pytest.raises(TypeError):
            await serve_unix(
                echo_app,
                tmp_path / "socket",
                backlog=1.5,  # type: ignore[arg-type]
            )

        assert os.listdir(tmp_path) == []

    async def test_cancelled(self, tmp_path) -> None:
        """A call that is cancelled before it begins makes no file."""
        path = tmp_path / "socket"
        leave_stale(path)
        before = path.stat()
        with trio.CancelScope() as scope:
            scope.cancel()
            await serve_unix(echo_app, path)

        assert scope.cancelled_caught
        assert path.stat() == before

    async def test_no_unix_sockets(self, tmp_path, monkeypatch) -> None:
        """If the platform has no Unix sockets, the error says so."""
        monkeypatch.delattr(socket, "AF_UNIX")
        with pytest.raises(OSError, match="Unix sockets") as caught:
            await serve_unix(echo_app, tmp_path / "socket")

        assert caught.value.errno == errno.EAFNOSUPPORT


class TestAbstract:
    """Names without a file, on Linux."""

    pytestmark = pytest.mark.skipif(
        sys.platform != "linux", reason="needs abstract sockets: only on Linux"
    )

    async def test_echo(self) -> None:
        """An abstract name serves without a file, and a URL can contain it."""
        name = f"\0trio_upgrade test {os.getpid()}"
        async with trio.open_nursery() as nursery:
            server = await nursery.start(serve_unix, echo_app, name)
            await check_echo(name)
            with pytest.raises(OSError, match=os.strerror(errno.EADDRINUSE)):
                await serve_unix(echo_app, name)
            shown = f"http+unix://%00trio_upgrade%20test%20{os.getpid()}"
            assert server.url == shown
            nursery.cancel_scope.cancel()

    async def test_mode(self) -> None:
        """A mode for an abstract name is a ValueError: it has no permissions."""
        with pytest.raises(ValueError, match="no permissions"):
            await serve_unix(echo_app, "\0trio_upgrade test", mode=0o600)


class TestServer:
    """It behaves like every other server."""

    async def test_url(self, tmp_path) -> None:
        """The host of the URL is the whole path, percent-encoded."""
        async with trio.open_nursery() as nursery:
            path = tmp_path / "a b%.sock"
            server = await nursery.start(serve_unix, echo_app, path)
            quoted = str(tmp_path).replace("/", "%2F")
            assert server.url == f"http+unix://{quoted}%2Fa%20b%25.sock"
            nursery.cancel_scope.cancel()

    async def test_options(self, tmp_path) -> None:
        """The options reach the server, and strict=True raises the app's errors."""

        async def app(request) -> None:
            raise LookupError("oops")

        path = tmp_path / "socket"
        limits = Limits(connections=7)
        with pytest.RaisesGroup(
            pytest.RaisesGroup(pytest.RaisesExc(LookupError, match="oops"))
        ):
            async with trio.open_nursery() as nursery:
                server = await nursery.start(
                    partial(serve_unix, app, path, limits=limits, strict=True)
                )
                assert server.limits is limits
                with pytest.raises(PeerGone):
                    await check_echo(path)
                await trio.sleep_forever()

        assert not path.exists()

    async def test_tls(self, tmp_path) -> None:
        """The scheme of the URL shows TLS over a Unix socket."""
        path = tmp_path / "socket"
        client, server_context = make_tls_contexts()
        inner = await open_unix_listener(path, mode=None, backlog=None)
        listener = trio.SSLListener(inner, server_context)
        async with trio.open_nursery() as nursery:
            server = await nursery.start(serve_listeners, echo_app, [listener])
            assert server.url.startswith("https+unix://%2F")
            stream = trio.SSLStream(
                await trio.open_unix_socket(path), client, server_hostname="localhost"
            )
            upgraded = await open_upgrade("https://localhost/", "echo", stream=stream)
            async with upgraded as (_, tls, _):
                await tls.send_all(b"hello")
                assert await tls.receive_some() == b"hello"
            nursery.cancel_scope.cancel()

        assert not path.exists()
