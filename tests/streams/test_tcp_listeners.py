"""Listeners on TCP that we open, and those that a supervisor hands over."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import sys
import tempfile
from functools import partial

import pytest
import trio

from trio_upgrade import (
    Server,
    inherit_listeners,
    open_connection,
    open_server,
    serve_listeners,
    serve_ssl_over_tcp,
    serve_tcp,
)
from trio_upgrade._streams.tcp_listeners import bound_backlog, open_tcp_listeners

from ..apps import echo_app
from ..interop.programs import BOUND, HOST, Program, start
from ..tls import make_tls_contexts

needs_reuse_port = pytest.mark.skipif(
    not hasattr(socket, "SO_REUSEPORT"), reason="needs SO_REUSEPORT: not on Windows"
)
needs_unix = pytest.mark.skipif(
    not hasattr(socket, "AF_UNIX"), reason="needs Unix sockets: not on Windows"
)
open_listeners = partial(
    open_tcp_listeners, 0, host=HOST, backlog=None, reuse_port=False
)


class TestOpenTCP:
    """Options set before bind(2), and failures."""

    async def test_no_delay(self) -> None:
        """The listener has TCP_NODELAY, which accepted sockets inherit."""
        (listener,) = await open_listeners()
        async with listener:
            sock = listener.socket
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)

    @pytest.mark.skipif(
        sys.platform == "win32",
        reason="SO_REUSEADDR has another meaning: not on Windows",
    )
    async def test_restart(self) -> None:
        """A port can be used again although the kernel still has old connections."""
        (listener,) = await open_listeners()
        async with listener:
            sock = listener.socket
            assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR)

    async def test_every_address(self) -> None:
        """Without a host each available address family has its listener."""
        listeners = await open_listeners(host=None)
        families = {listener.socket.family for listener in listeners}
        for listener in listeners:
            await listener.aclose()

        assert socket.AF_INET in families
        assert families <= {socket.AF_INET, socket.AF_INET6}
        assert len(families) == len(listeners)

    async def test_one_free_port(self) -> None:
        """Port 0 is one free port for all addresses, so that one URL names them all."""
        trio.socket.set_custom_hostname_resolver(TwoAddresses())
        listeners = await open_listeners(host="both")
        names = [listener.socket.getsockname() for listener in listeners]
        for listener in listeners:
            await listener.aclose()

        assert [host for host, _ in names] == ["127.0.0.2", HOST]
        assert names[0][1] == names[1][1]

    async def test_free_port_of_every_address(self) -> None:
        """Without a host a server has one port, too."""
        async with open_server(serve_tcp, echo_app, 0) as server:
            assert server.url.endswith(f":{server.port}")

    @pytest.mark.parametrize("in_use", [1, 2, 1000])
    async def test_free_port_in_use_elsewhere(self, in_use: int) -> None:
        """If it is in use at another address, other ones are tried, but not for ever."""
        factory = SecondInUse(in_use)
        trio.socket.set_custom_socket_factory(factory)
        trio.socket.set_custom_hostname_resolver(TwoAddresses())
        if in_use == 1000:
            with pytest.raises(OSError, match="in use"):
                await open_listeners(host="both")
            assert factory.asked < 50
        else:
            listeners = await open_listeners(host="both")
            ports = {listener.socket.getsockname()[1] for listener in listeners}
            for listener in listeners:
                await listener.aclose()
            assert len(listeners) == 2
            assert len(ports) == 1

    async def test_both_families_on_one_port(self) -> None:
        """The IPv6 listener leaves the port free for an IPv4 listener."""
        (listener,) = await open_listeners(host="0.0.0.0")
        async with listener:
            port = listener.socket.getsockname()[1]
            try:
                (other,) = await open_tcp_listeners(
                    port, host="::", backlog=None, reuse_port=False
                )
            except OSError as exc:  # pragma: no cover  on a machine without IPv6
                if exc.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
                    raise
                pytest.skip("no IPv6 here: enable it on the loopback interface")
            async with other:
                assert other.socket.getsockname()[1] == port

    async def test_in_use(self) -> None:
        """A port that is in use is an OSError."""
        (listener,) = await open_listeners()
        async with listener:
            port = listener.socket.getsockname()[1]
            with pytest.raises(OSError, match="in use") as caught:
                await open_tcp_listeners(
                    port, host=HOST, backlog=None, reuse_port=False
                )

        assert caught.value.errno == errno.EADDRINUSE
        where = f"while opening a listener at {HOST!r}, port {port}"
        assert caught.value.__notes__ == [where]

    async def test_every_address_in_use(self) -> None:
        """The note says so if no host was given."""
        (listener,) = await open_listeners()
        async with listener:
            port = listener.socket.getsockname()[1]
            with pytest.raises(OSError, match="in use") as caught:
                await open_tcp_listeners(
                    port, host=None, backlog=None, reuse_port=False
                )

        where = f"while opening a listener at every address, port {port}"
        assert caught.value.__notes__ == [where]

    async def test_second_address_in_use(self) -> None:
        """If one of several addresses fails, the listeners before it are closed."""
        (taken,) = await open_listeners()
        async with taken:
            port = taken.socket.getsockname()[1]
            trio.socket.set_custom_hostname_resolver(TwoAddresses())
            with pytest.raises(OSError, match="in use"):
                await open_tcp_listeners(
                    port, host="both", backlog=None, reuse_port=False
                )
        # The first address can be used again, so its listener was closed.
        (again,) = await open_tcp_listeners(
            port, host="127.0.0.2", backlog=None, reuse_port=False
        )
        await again.aclose()

    async def test_family_unsupported(self) -> None:
        """If the kernel lacks every address family, its error is raised."""
        trio.socket.set_custom_socket_factory(NoIPv4())
        with pytest.raises(OSError, match="no such family") as caught:
            await open_listeners()

        assert caught.value.errno == errno.EAFNOSUPPORT

    async def test_family_unsupported_but_another(self) -> None:
        """An address family that the kernel lacks is skipped if another one works."""
        trio.socket.set_custom_socket_factory(NoIPv4(once=True))
        trio.socket.set_custom_hostname_resolver(TwoAddresses())
        (listener,) = await open_listeners(host="both")
        async with listener:
            assert listener.socket.getsockname()[0] == HOST

    async def test_no_socket(self) -> None:
        """Any other failure to make a socket is raised."""
        trio.socket.set_custom_socket_factory(NoIPv4(errno.EMFILE))
        with pytest.raises(OSError, match="no such family") as caught:
            await open_listeners()

        assert caught.value.errno == errno.EMFILE

    def test_backlog(self) -> None:
        """A backlog that does not fit into 16 bits is reduced."""
        assert bound_backlog(None) == 0xFFFF
        assert bound_backlog(0x10001) == 0xFFFF
        assert bound_backlog(7) == 7


class TwoAddresses(trio.abc.HostnameResolver):
    """A resolver that returns two loopback addresses for every name."""

    async def getaddrinfo(self, host, port, family=0, type=0, proto=0, flags=0):  # noqa: A002
        await trio.lowlevel.checkpoint()
        return [
            (socket.AF_INET, socket.SOCK_STREAM, 0, "", (address, int(port or 0)))
            for address in ("127.0.0.2", HOST)
        ]

    async def getnameinfo(self, sockaddr, flags):  # pragma: no cover  abstract
        raise NotImplementedError


class SecondInUse(trio.abc.SocketFactory):
    """Each port that is found free is in use at the second address, so many times."""

    def __init__(self, in_use: int) -> None:
        self.in_use = in_use
        self.asked = 0

    def socket(self, *args):
        self.asked += 1
        if self.asked % 2 == 0 and self.asked // 2 <= self.in_use:
            raise OSError(errno.EADDRINUSE, "in use")
        return trio.socket.from_stdlib_socket(socket.socket(*args))


class NoIPv4(trio.abc.SocketFactory):
    """A kernel that lacks IPv4, always or only the first time."""

    def __init__(self, code: int = errno.EAFNOSUPPORT, *, once: bool = False) -> None:
        self.code = code
        self.once = once
        self.asked = 0

    def socket(self, *args):
        self.asked += 1
        if self.once and self.asked > 1:
            return trio.socket.from_stdlib_socket(socket.socket(*args))
        raise OSError(self.code, "no such family")


class TestReusePort:
    """Several listeners on one port."""

    @needs_reuse_port
    async def test_two_servers(self) -> None:
        """Servers with reuse_port share a port, with TLS or without."""
        _, context = make_tls_contexts()
        async with trio.open_nursery() as nursery:
            start = partial(serve_tcp, echo_app, host=HOST, reuse_port=True)
            first: Server = await nursery.start(partial(start, 0))
            port = int(first.url.rpartition(":")[2])
            second: Server = await nursery.start(partial(start, port))
            secure = partial(serve_ssl_over_tcp, host=HOST, reuse_port=True)
            third = await nursery.start(partial(secure, echo_app, port, context))
            assert third.url == f"https://{HOST}:{port}"
            await third.drain(0)
            assert first.url == second.url
            served = [0, 0]
            while 0 in served:
                async with await open_connection(first.url) as connection:
                    await (await connection.request("GET", "/")).read()
                both = (first, second)
                served = [server.statistics().total_requests for server in both]
                assert sum(served) < 1000, "the kernel does not spread"
            nursery.cancel_scope.cancel()

    async def test_not_asked_for(self) -> None:
        """A second server fails if the first one did not set reuse_port."""
        async with trio.open_nursery() as nursery:
            first = await nursery.start(partial(serve_tcp, echo_app, 0, host=HOST))
            port = int(first.url.rpartition(":")[2])
            with pytest.raises(OSError, match="in use"):
                await serve_tcp(echo_app, port, host=HOST, reuse_port=True)
            nursery.cancel_scope.cancel()

    async def test_not_to_be_had(self, monkeypatch) -> None:
        """If the platform has no SO_REUSEPORT, the error says so."""
        monkeypatch.delattr(socket, "SO_REUSEPORT", raising=False)
        with pytest.raises(OSError, match="needs SO_REUSEPORT") as caught:
            await serve_tcp(echo_app, 0, host=HOST, reuse_port=True)

        assert caught.value.errno == errno.EOPNOTSUPP


# The supervisor's first descriptor in these tests, because pytest uses the usual ones.
FIRST = 200


class Supervisor:
    """Hands files over as a supervisor does: as copies, from descriptor FIRST on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.monkeypatch = monkeypatch
        self.copies: list[int] = []
        monkeypatch.setattr(
            "trio_upgrade._streams.tcp_listeners._FIRST_DESCRIPTOR", FIRST
        )

    def hand_over(self, *files, pid: str | None = None, count: str | None = None):
        for descriptor, file in enumerate(files, FIRST):
            os.dup2(file.fileno(), descriptor)
            self.copies.append(descriptor)
        setenv = self.monkeypatch.setenv
        setenv("LISTEN_PID", str(os.getpid()) if pid is None else pid)
        setenv("LISTEN_FDS", str(len(files)) if count is None else count)
        setenv("LISTEN_FDNAMES", "a:b")
        setenv("LISTEN_PIDFDID", "1")

    def close_copies(self) -> None:
        """Close the copies; fails if one of them has been closed already."""
        for descriptor in self.copies:
            os.close(descriptor)


@pytest.fixture
def supervisor(monkeypatch) -> Supervisor:
    return Supervisor(monkeypatch)


@pytest.mark.skipif(sys.platform == "win32", reason="needs descriptors: not on Windows")
class TestInherit:
    """Socket activation, sd_listen_fds(3)."""

    @needs_unix
    async def test_tcp_and_unix(self, tmp_path, supervisor) -> None:
        """Both kinds serve, in order, and child processes do not inherit them."""
        path = str(tmp_path / "socket")
        with (
            socket.create_server((HOST, 0)) as tcp,
            socket.socket(socket.AF_UNIX) as unix,
        ):
            unix.bind(path)
            unix.listen()
            supervisor.hand_over(tcp, unix)
            listeners = inherit_listeners()

        assert not [name for name in os.environ if name.startswith("LISTEN_")]
        assert [os.get_inheritable(FIRST), os.get_inheritable(FIRST + 1)] == [False] * 2
        async with trio.open_nursery() as nursery:
            server = await nursery.start(serve_listeners, echo_app, listeners)
            for stream in (None, await trio.open_unix_socket(path)):
                opening = open_connection(server.url, stream=stream)
                async with await opening as connection:
                    response = await connection.request("GET", "/a")
                    assert await response.read() == b"/a"
            nursery.cancel_scope.cancel()
        # The file belongs to the supervisor, so it stays.
        assert (tmp_path / "socket").is_socket()

    async def test_nothing(self, monkeypatch) -> None:
        """Without a supervisor the list is empty."""
        monkeypatch.delenv("LISTEN_PID", raising=False)
        monkeypatch.delenv("LISTEN_FDS", raising=False)

        assert inherit_listeners() == []

    async def test_for_another_process(self, supervisor) -> None:
        """Sockets for another process are not used; the variables are removed anyway."""
        supervisor.hand_over(pid="1", count="1")

        assert inherit_listeners() == []
        assert "LISTEN_FDS" not in os.environ

    @pytest.mark.parametrize("text", ["", "x", "-1", "1.0", "\u0661"])
    @pytest.mark.parametrize("name", ["pid", "count"])
    async def test_no_number(self, supervisor, name: str, text: str) -> None:
        """A variable that is not a number is an error that names the variable."""
        supervisor.hand_over(**{name: text})
        variable = {"pid": "LISTEN_PID", "count": "LISTEN_FDS"}[name]
        with pytest.raises(ValueError, match=f"{variable} is not a number: '{text}'"):
            inherit_listeners()

    async def test_not_open(self, supervisor) -> None:
        """A descriptor that is not open is an error that names the descriptor."""
        supervisor.hand_over(count="1")
        with pytest.raises(OSError, match=f"descriptor {FIRST}") as caught:
            inherit_listeners()

        assert caught.value.errno == errno.EBADF

    async def test_no_socket(self, supervisor) -> None:
        """A file that is not a socket is an error; the sockets before it stay open."""
        with socket.create_server((HOST, 0)) as good, tempfile.TemporaryFile() as file:
            supervisor.hand_over(good, file)
            with pytest.raises(OSError, match=f"descriptor {FIRST + 1}") as caught:
                inherit_listeners()

        assert caught.value.errno == errno.ENOTSOCK
        assert "LISTEN_FDS" not in os.environ
        supervisor.close_copies()

    @pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM])
    async def test_not_listening(self, supervisor, kind: int) -> None:
        """A socket that does not listen is an error; the sockets before it stay open."""
        with socket.create_server((HOST, 0)) as good, socket.socket(type=kind) as bad:
            supervisor.hand_over(good, bad)
            with pytest.raises(ValueError, match=rf"descriptor {FIRST + 1}: .* socket"):
                inherit_listeners()

        supervisor.close_copies()

    async def test_whole_process(self) -> None:
        """A program that is started with sockets from descriptor 3 on serves on them."""
        launcher = (
            "import os, sys\n"
            "os.dup2(int(sys.argv[1]), 3)\n"
            "os.environ |= {'LISTEN_PID': str(os.getpid()), 'LISTEN_FDS': '1'}\n"
            "os.execv(sys.executable, [sys.executable, '-X', 'dev', '-c', sys.argv[2]])"
        )
        with socket.create_server((HOST, 0)) as sock:
            address = sock.getsockname()
            command = [sys.executable, "-c", launcher, str(sock.fileno()), PROGRAM]
            pipe = subprocess.PIPE
            with trio.fail_after(BOUND):
                process = await trio.lowlevel.open_process(
                    command, stdin=pipe, stdout=pipe, pass_fds=[sock.fileno()]
                )
                async with Program(process) as program:
                    await check_activated(program, await trio.open_tcp_stream(*address))

    @pytest.mark.peer("systemd-socket-activate")
    async def test_systemd(self, tmp_path) -> None:
        """A program that systemd starts at the first connection serves it."""
        path = tmp_path / "socket"
        script = [sys.executable, "-X", "dev", "-c", PROGRAM]
        command = ["systemd-socket-activate", f"--listen={path}", *script]
        with trio.fail_after(BOUND):
            async with await start(*command, stderr=subprocess.PIPE) as program:
                assert program.process.stderr is not None
                said = b""
                while b"Listening on" not in said:
                    said += await program.process.stderr.receive_some()
                await check_activated(program, await trio.open_unix_socket(path))


# Serves on the inherited sockets, and responds with the variables that a child would see.
PROGRAM = """
import os, trio
from trio_upgrade import Response, inherit_listeners, serve_listeners

async def app(request):
    left = sorted(name for name in os.environ if name.startswith("LISTEN_"))
    return Response(200, f"{os.getpid()} {left}")

trio.run(serve_listeners, app, inherit_listeners())
"""


async def check_activated(program: Program, stream: trio.abc.Stream) -> None:
    async with await open_connection("http://x", stream=stream) as connection:
        response = await connection.request("GET", "/")
        assert await response.read() == f"{program.process.pid} []".encode()
