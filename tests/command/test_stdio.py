"""Standard input and output as streams, and what is shown on a terminal."""

from __future__ import annotations

import os
import pty
import socket
import sys
import time
import tty
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing
from websockets.exceptions import ConnectionClosedError

from trio_upgrade._command import output, stdio
from trio_upgrade._command.dialling import Recorder
from trio_upgrade._command.errors import CommandFailed, OutputClosed, describe
from trio_upgrade._command.masking import escape, hide, mask_target, mask_userinfo
from trio_upgrade._command.meter import Meter, format_bytes
from trio_upgrade._command.session import run_session
from trio_upgrade._command.stdio import Input, Output
from trio_upgrade._command.websocket import Conversation

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")


class Pair:
    """Two connected descriptors; what is written to the second is read from the first."""

    def __init__(self, kind: str) -> None:
        if kind == "pipe":
            self.reader, self.writer = os.pipe()
        elif kind.startswith("terminal"):
            self.writer, self.reader = pty.openpty()
            tty.setraw(self.reader)
            if kind == "terminal, reversed":
                self.writer, self.reader = self.reader, self.writer
        else:
            ours, theirs = socket.socketpair()
            self.reader, self.writer = ours.detach(), theirs.detach()

    def close(self) -> None:
        for descriptor in (self.reader, self.writer):
            os.close(descriptor)


@pytest.fixture(params=["pipe", "terminal", "terminal, reversed", "socket"])
def pair(request) -> Iterator[Pair]:
    found = Pair(request.param)
    yield found
    found.close()


async def test_input(pair: Pair) -> None:
    """Bytes are received, and the inherited descriptor stays blocking meanwhile."""
    async with Input(pair.reader) as source:
        os.write(pair.writer, b"hello")
        assert await source.receive_some(3) == b"hel"
        assert await source.receive_some() == b"lo"
        assert os.get_blocking(pair.reader)
        with trio.move_on_after(0.01) as scope:
            await source.receive_some()
        assert scope.cancelled_caught
        # The thread that reads a socket is still there: let it end.
        os.write(pair.writer, b"x")

    assert os.get_blocking(pair.reader)


async def test_output(pair: Pair) -> None:
    """Bytes are sent, without a change of the descriptor; the end is seen."""
    writer = os.dup(pair.writer)
    async with Output(writer) as sink:
        await sink.wait_send_all_might_not_block()
        await sink.send_all(memoryview(b"hello"))
        assert os.get_blocking(pair.writer)
        assert os.read(pair.reader, 100) == b"hello"
    # Its number is still in use.
    assert os.write(writer, b"dropped") == 7
    os.close(writer)


@pytest.mark.parametrize("kind", ["pipe", "socket"])
async def test_output_without_a_reader(kind: str) -> None:
    """A reader that is gone is known at once."""
    pair = Pair(kind)
    sink = Output(pair.writer)
    os.close(pair.reader)
    with pytest.raises(OutputClosed):
        await sink.send_all(b"x")
    await sink.aclose()
    os.close(pair.writer)


async def test_end_of_input() -> None:
    """The end is the empty answer; a terminal that is gone counts as the end."""
    reader, writer = os.pipe()
    os.close(writer)
    async with Input(reader) as source:
        assert await source.receive_some() == b""
    os.close(reader)
    for kind in ("terminal", "terminal, reversed"):
        pair = Pair(kind)
        async with Input(pair.reader) as source:
            os.close(pair.writer)
            assert await source.receive_some() == b""
        os.close(pair.reader)


async def test_descriptors_of_the_wrong_direction() -> None:
    """An error that is no end of a terminal or of a reader is named."""
    reader = os.open(os.devnull, os.O_WRONLY)
    writer = os.open(os.devnull, os.O_RDONLY)
    with pytest.raises(CommandFailed, match="cannot read standard input: Bad file"):
        await Input(reader).receive_some()
    with pytest.raises(CommandFailed, match="cannot write to standard output: Bad"):
        await Output(writer).send_all(b"x")
    os.close(reader)
    os.close(writer)


async def test_output_to_a_terminal_that_is_gone() -> None:
    """A terminal that is gone has no reader."""
    pair = Pair("terminal")
    sink = Output(pair.reader)
    os.close(pair.writer)
    with pytest.raises(OutputClosed):
        await sink.send_all(b"x")
    await sink.aclose()
    os.close(pair.reader)


async def test_recorded_request() -> None:
    """The stream that keeps a request is one of Trio, and ends."""
    recorder = Recorder()
    async with recorder:
        await recorder.wait_send_all_might_not_block()
        await recorder.send_all(b"x")
        assert await recorder.receive_some() == b""

    assert recorder.sent == b"x"


async def test_websocket_that_ends_while_a_line_is_sent() -> None:
    """The end is told once, by the task that receives."""

    class Lost:
        close_code, close_reason = 1006, ""

        def __init__(self) -> None:
            self.ended = trio.Event()

        async def send(self, _message):
            self.ended.set()
            raise ConnectionClosedError(None, None)

        async def recv(self):
            await self.ended.wait()
            await trio.testing.wait_all_tasks_blocked()
            raise ConnectionClosedError(None, None)

    source, sink = trio.testing.memory_stream_pair()
    await sink.send_all(b"line\n")
    websocket: Any = Lost()
    conversation = Conversation(websocket, source, sink, is_pretty=False)
    with pytest.raises(CommandFailed, match="the connection was lost"):
        await conversation.run(1)


async def test_files(tmp_path) -> None:
    """Files are read from where they stand, and written there."""
    path = tmp_path / "file"
    path.write_bytes(b"0123456789")
    descriptor = os.open(path, os.O_RDWR)
    os.read(descriptor, 5)
    async with Input(descriptor) as source:
        assert await source.receive_some() == b"56789"
    async with Output(descriptor) as sink:
        await sink.send_all(b"abc")
    os.close(descriptor)
    assert path.read_bytes() == b"0123456789abc"


async def test_pipe_that_cannot_be_reopened(monkeypatch) -> None:
    """Without /proc, or the right to use it, threads read and write."""
    real = os.open

    def refuse(path, *rest):
        if str(path).startswith("/proc"):
            raise PermissionError
        return real(path, *rest)

    monkeypatch.setattr(os, "open", refuse)
    pair = Pair("pipe")
    async with Output(pair.writer) as sink, Input(pair.reader) as source:
        await sink.send_all(b"x")
        assert await source.receive_some() == b"x"
    pair.close()


async def test_descriptors_that_are_nonblocking() -> None:
    """Another program may have made a socket non-blocking: the threads wait."""
    pair = Pair("socket")
    os.set_blocking(pair.reader, False)
    os.set_blocking(pair.writer, False)
    data = bytes(1_000_000)
    received = bytearray()

    async with trio.open_nursery() as nursery:
        source, sink = Input(pair.reader), Output(pair.writer)
        nursery.start_soon(sink.send_all, data)
        while len(received) < len(data):
            received += await source.receive_some()
        async with trio.open_nursery() as inner:
            inner.start_soon(source.receive_some)
            await trio.testing.wait_all_tasks_blocked(0.05)
            os.write(pair.writer, b"x")

    assert received == data
    pair.close()


def test_closed_descriptors() -> None:
    """A standard stream that the parent has closed is /dev/null."""
    before = os.dup(0)
    os.close(0)
    try:
        stdio.fill_descriptors()
        assert os.path.samestat(os.fstat(0), os.stat(os.devnull))
    finally:
        os.dup2(before, 0)
        os.close(before)


async def test_session_at_a_terminal(nursery) -> None:
    """At a terminal the session ends with the peer: its user sees nothing any more."""
    pair, (reader, writer) = Pair("terminal"), os.pipe()
    near, far = trio.testing.memory_stream_pair()
    nursery.start_soon(far.send_all, b"bye")
    await trio.testing.wait_all_tasks_blocked()
    nursery.start_soon(far.send_eof)
    shown = Meter(is_shown=True, is_live=True)
    await run_session(near, meter=shown, stdin=pair.reader, stdout=writer)

    assert os.read(reader, 10) == b"bye"
    assert (shown.sent.bytes, shown.received.bytes) == (0, 3)
    for descriptor in reader, writer:
        os.close(descriptor)
    pair.close()


@pytest.mark.parametrize("is_live", [True, False])
def test_meter(is_live: bool, capsys, monkeypatch) -> None:
    """The last line says how much was moved; a meter that is not shown says nothing."""
    monkeypatch.setattr(time, "monotonic", iter([0.0, 2.0, 5.0]).__next__)
    meter = Meter(is_shown=True, is_live=is_live)
    meter.sent.left_to_right = 3 * 2**20
    meter.received.left_to_right = 10
    meter.finish()
    line = "sent 3.0 MiB, received 10 B in 2.0 s, 1.5 MiB/s"

    assert capsys.readouterr().err == (f"\r{line:<64}\n" if is_live else f"{line}\n")
    Meter.for_terminal().finish()
    assert capsys.readouterr().err == ""


def test_bytes_with_units() -> None:
    """Bytes have the unit that a person reads."""
    numbers = (0, 1023, 1024, 2**40, 2**50)

    assert [*map(format_bytes, numbers)] == [
        "0 B",
        "1023 B",
        "1.0 KiB",
        "1.0 TiB",
        "1024.0 TiB",
    ]


def test_masks() -> None:
    """No userinfo, no query, no control character."""
    assert mask_userinfo("no http://u:p@h/ nor ws://p/w@h") == (
        "no http://***@h/ nor ws://***@h"
    )
    assert mask_target("/path") == "/path"
    assert mask_target("http://u:p@h/path?q=1") == "http://***@h/path?***"
    # Neither the host nor a secret so short that it is in many words.
    assert hide("no http://h/a/bc in abc", ["http://h/a/bc", "abc"]) == (
        "no http://h/*** in abc"
    )
    assert escape("a\x1b[0m\x9bä") == "a\\x1b[0m\\x9bä"


def test_descriptions() -> None:
    """An OSError is told by its reason and file, without its number."""
    assert describe(FileNotFoundError(2, "No such file", "x")) == "x: No such file"
    assert describe(OSError("all attempts failed")) == "all attempts failed"


@pytest.mark.parametrize("is_pretty", [True, False])
def test_messages(is_pretty: bool) -> None:
    """On a terminal JSON is indented, and no control acts; elsewhere text is as it is."""
    conversation = Conversation(None, None, None, is_pretty=is_pretty)  # type: ignore[arg-type]
    messages = ('{"a":["ä"]}', "\x1b[2J\nx", b"\0", "1")
    shown = [conversation._format(message).decode() for message in messages]

    assert shown == (
        [
            '{\n  "a": [\n    "ä"\n  ]\n}\n',
            "\\x1b[2J\nx\n",
            "binary, 1 bytes: AA==\n",
            "1\n",
        ]
        if is_pretty
        else ['{"a":["ä"]}\n', "\x1b[2J\nx\n", "AA==\n", "1\n"]
    )


def test_announcement_without_a_reader(monkeypatch) -> None:
    """A server goes on if nobody reads its URL, and ends without a complaint."""
    reader, writer = os.pipe()
    os.close(reader)
    before = os.dup(1)
    os.dup2(writer, 1)
    os.close(writer)
    try:
        monkeypatch.setattr(sys, "stdout", os.fdopen(1, "w", closefd=False))
        output.announce("http://h")
        output.flush_stdout()
        sys.stdout.close()
        output.flush_stdout()
        monkeypatch.setattr(sys, "stdout", None)
        output.flush_stdout()
        assert os.write(1, b"x") == 1
    finally:
        os.dup2(before, 1)
        os.close(before)
