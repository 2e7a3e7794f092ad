"""TLSStream: Trio's stream contract over TLS, with a half-close."""

from __future__ import annotations

import os
import random
import socket
import ssl
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

from trio_upgrade._streams.resetting import reset_on_close
from trio_upgrade._streams.socket_stream import adopt_stream, detach_socket
from trio_upgrade._streams.tls import TLSStream

from ..cancelling import CancelAtStep
from ..sockets import clog as clog_socket, direct, tcp_pair
from ..tls_records import RecordSender, log_keys
from ..tls_streams import (
    TRANSPORTS,
    VERSIONS,
    clog,
    close_all,
    contexts as make_contexts,
    handshake,
    new,
    opened,
    receive_all,
)

if TYPE_CHECKING:
    from pathlib import Path

MIB = 1024 * 1024
every_version = pytest.mark.parametrize("version", VERSIONS)


class TestContract:
    """It keeps Trio's contract of a half-closeable stream."""

    @every_version
    @pytest.mark.parametrize("swapped", [False, True])
    @pytest.mark.parametrize("kind", ["tcp", "unix"])
    async def test_sockets(self, kind: str, version: str, swapped: bool) -> None:
        """Over kernel sockets, buffers full or not, the client or the server first."""

        async def make():
            pair = await opened(version, TRANSPORTS[kind])
            return pair[::-1] if swapped else pair

        async def make_clogged():
            pair = await make()
            for stream in pair:
                await clog(stream)
            return pair

        await trio.testing.check_half_closeable_stream(make, make_clogged)

    @every_version
    @pytest.mark.parametrize("swapped", [False, True])
    async def test_memory(self, version: str, swapped: bool) -> None:
        """Over streams in memory; a lockstep stream blocks until the peer receives."""

        async def make():
            pair = await new(version, TRANSPORTS["memory"])
            return pair[::-1] if swapped else pair

        async def make_clogged():
            pair = await opened(version, TRANSPORTS["lockstep"])
            return pair[::-1] if swapped else pair

        await trio.testing.check_half_closeable_stream(make, make_clogged)

    @every_version
    async def test_implicit_handshake(self, version: str) -> None:
        """The handshake is made on first use."""

        async def make():
            return await new(version)

        await trio.testing.check_half_closeable_stream(make, None)

    @every_version
    async def test_tls_in_tls(self, version: str) -> None:
        """Over another TLS stream."""

        async def make():
            return await opened(version, TRANSPORTS["tls"])

        await trio.testing.check_half_closeable_stream(make, None)


class TestBulk:
    """Much data arrives in order, whatever the other direction does."""

    @every_version
    @pytest.mark.parametrize("kind", ["tcp", "memory"])
    async def test_both_ways_at_once(self, kind: str, version: str) -> None:
        """Ten megabytes each way, of which the kernel holds only a part."""
        near, far = await new(version, TRANSPORTS[kind])
        data = os.urandom(MIB) * 10

        async def send(stream: TLSStream) -> None:
            await stream.send_all(memoryview(data))
            await stream.send_eof()

        async def receive(stream: TLSStream) -> None:
            assert await receive_all(stream) == data

        async with near, far, trio.open_nursery() as nursery:
            for stream in near, far:
                nursery.start_soon(send, stream)
                nursery.start_soon(receive, stream)

    @every_version
    async def test_a_client_that_does_not_read(self, version: str) -> None:
        """A client sends and closes at once: no tickets come that make that a reset."""
        contexts = make_contexts(version)
        near, far = await tcp_pair()
        client = detach_socket(near.socket)
        client.settimeout(5)
        # The kernel takes all at once, so that the client closes before it is sent.
        client.setsockopt(socket.IPPROTO_TCP, trio.socket.TCP_NOTSENT_LOWAT, 0)

        def send() -> None:
            with contexts[0].wrap_socket(client, server_hostname="localhost") as tls:
                tls.sendall(b"x" * 300_000)

        receiver = TLSStream(
            adopt_stream(far), contexts[1], server_side=True, https_compatible=True
        )
        async with receiver:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(trio.to_thread.run_sync, send)
                await receiver.do_handshake()
            assert len(await receive_all(receiver)) == 300_000

    async def test_records_are_joined(self) -> None:
        """One call returns what several records hold, within max_bytes."""
        near, far = await opened()
        async with near, far:
            for _ in range(20):
                await near.send_all(b"x" * 1000)
            await near.send_all(b"y" * 10_000)
            await trio.testing.wait_all_tasks_blocked()

            assert await far.receive_some(19_500) == b"x" * 19_500
            assert await far.receive_some(1) == b"x"
            assert await far.receive_some() == b"x" * 499 + b"y" * 10_000

    async def test_an_idle_stream_keeps_little(self) -> None:
        """OpenSSL's buffers never shrink, so a long input is fed in parts."""
        near, far = await opened()
        async with near, far:
            far_bio = far._incoming
            async with trio.open_nursery() as nursery:
                nursery.start_soon(near.send_all, b"x" * MIB)
                got = 0
                while got < MIB:
                    got += len(await far.receive_some())
                    assert far_bio.pending < 40_000
            assert far._backlog == b""


class TestEnds:
    """One direction ends by a close_notify, and the other stays open."""

    @every_version
    async def test_send_eof(self, version: str) -> None:
        """Data still comes from the peer after our end; then both know of both ends."""
        near, far = await opened(version)
        async with near, far:
            await near.send_all(b"question")
            await near.send_eof()
            await near.send_eof()

            assert await receive_all(far) == b"question"
            await far.send_all(b"answer")
            await far.send_eof()
            assert await receive_all(near) == b"answer"
            for stream in near, far:
                assert await stream.receive_some() == b""
                with pytest.raises(trio.ClosedResourceError):
                    await stream.send_all(b"")
                assert stream.receive_some_nowait(1) == b""

    @every_version
    async def test_unread_data(self, version: str) -> None:
        """Our end loses no byte that was decrypted, received or in the kernel."""
        near, far = await opened(version)
        async with near, far:
            await far.send_all(b"abc" * 10)
            await far.send_all(b"def" * 10)
            assert await near.receive_some(1) == b"a"
            await far.send_all(b"ghi" * 10)
            await near.send_eof()
            await far.send_all(b"jkl" * 10)
            await far.aclose()

            assert near.pending() == 29
            assert await near.receive_some(4) == b"bcab"
            rest = await receive_all(near, 7)
            assert b"abcab" + rest == b"".join(
                part * 10 for part in (b"abc", b"def", b"ghi", b"jkl")
            )

    async def test_backlog(self) -> None:
        """Our end loses no byte of a long input that is fed in parts."""
        near, far = await opened()
        async with near, far:
            await far.send_all(b"x" * 60_000)
            await trio.testing.wait_all_tasks_blocked()
            assert await near.receive_some(1) == b"x"
            assert near._backlog
            await near.send_eof()
            await far.send_eof()
            assert len(await receive_all(near)) == 59_999

    @every_version
    async def test_end_after_data_in_one_packet(self, version: str) -> None:
        """Data that came together with the end is returned first."""
        near, far = await opened(version)
        async with near, far:
            await far.send_all(b"bye")
            await far.send_all(b"bye")
            await far.send_eof()
            await trio.testing.wait_all_tasks_blocked()
            assert await near.receive_some() == b"byebye"
            assert await near.receive_some() == b""
            await near.send_all(b"x")
            assert await far.receive_some() == b"x"

    @every_version
    async def test_unwrap(self, version: str) -> None:
        """After both ends the transport is given back, with the bytes after TLS."""
        near, far = await opened(version)

        async def end() -> None:
            assert await receive_all(far) == b""
            transport, rest = await far.unwrap()
            assert rest == b""
            await transport.send_all(b"plain " * 20_000)
            await transport.aclose()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(end)
            transport, rest = await near.unwrap()
            assert (rest + await receive_all(transport)) == b"plain " * 20_000
        await transport.aclose()
        for stream in near, far:
            with pytest.raises(trio.ClosedResourceError):
                await stream.receive_some()
            await stream.aclose()

    async def test_unwrap_while_the_peer_sends(self) -> None:
        """A peer that goes on sending after our end does not end TLS."""
        near, far = await opened()
        async with near, far:
            await far.send_all(b"more")
            with pytest.raises(trio.BrokenResourceError):
                await near.unwrap()


class TestCut:
    """A connection that was cut never looks like one that ended."""

    @every_version
    @pytest.mark.parametrize("compatible", [False, True])
    async def test_no_close_notify(self, version: str, compatible: bool) -> None:
        """A bare FIN is an end to an https_compatible stream only."""
        near, far = await opened(version, https_compatible=compatible)
        async with near, far:
            await near.send_all(b"half")
            await raw(near).send_eof()

            assert await far.receive_some() == b"half"
            for _ in range(2):
                if compatible:
                    assert await far.receive_some() == b""
                else:
                    with pytest.raises(trio.BrokenResourceError) as caught:
                        await far.receive_some()
                    assert isinstance(caught.value.__cause__, ssl.SSLEOFError)
            if compatible:
                # The peer may still read.
                await far.send_all(b"x")
                await far.send_eof()
                assert await receive_all(near) == b"x"
            else:
                with pytest.raises(trio.BrokenResourceError):
                    await far.send_all(b"x")

    @pytest.mark.parametrize("compatible", [False, True])
    @pytest.mark.parametrize("sent", [b"", b"\x16\x03\x01"])
    async def test_within_the_handshake(self, sent: bytes, compatible: bool) -> None:
        """The same for the implicit handshake; do_handshake() raises in any case."""
        near, far = await new(https_compatible=compatible)
        async with near, far:
            await near.transport_stream.send_all(sent)
            await near.transport_stream.aclose()
            with pytest.raises(trio.BrokenResourceError) as caught:
                await far.do_handshake()
            assert isinstance(caught.value.__cause__, ssl.SSLEOFError)
            if compatible:
                assert await far.receive_some() == b""
            else:
                with pytest.raises(trio.BrokenResourceError):
                    await far.receive_some()
            with pytest.raises(trio.BrokenResourceError):
                await far.send_all(b"x")

    @every_version
    @pytest.mark.parametrize("compatible", [False, True])
    async def test_reset(self, version: str, compatible: bool) -> None:
        """The kernel reports a reset once and then an end; we report it each time."""
        near, far = await opened(version, https_compatible=compatible)
        await near.send_all(b"x")
        assert await far.receive_some() == b"x"
        reset_on_close(near.transport_stream)
        near.close()
        async with far:
            for _ in range(2):
                with pytest.raises(trio.BrokenResourceError) as caught:
                    await far.receive_some()
                assert isinstance(caught.value.__cause__, ConnectionResetError)
            with pytest.raises(trio.BrokenResourceError):
                await far.send_all(b"x")

    async def test_memory_that_breaks(self) -> None:
        """The errors of another transport pass through."""
        near, far = await new(transport=TRANSPORTS["memory"])

        async def fail() -> None:
            raise trio.BrokenResourceError

        raw(far).receive_stream.receive_some_hook = fail
        async with near, far:
            with pytest.raises(trio.BrokenResourceError) as caught:
                await far.receive_some()
            assert caught.value.__cause__ is None

    @every_version
    async def test_peer_that_closes_at_once(self, version: str) -> None:
        """A peer may answer our close_notify by a close, or not at all."""
        near, far = await opened(version)
        await near.send_eof()
        assert await far.receive_some() == b""
        await far.transport_stream.aclose()
        with pytest.raises(trio.BrokenResourceError):
            await near.receive_some()
        await near.aclose()

    async def test_peer_that_goes_on_sending(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """aclose() drops what has come, a part of it if that is too much."""
        monkeypatch.setattr("trio_upgrade._streams.tls_connection._MOST_DISCARDED", 1)
        near, far = await opened()
        await clog(far)
        await near.aclose()
        await far.aclose()

    @every_version
    async def test_peer_that_never_answers(self, version: str) -> None:
        """aclose() does not wait for the peer's end."""
        near, far = await opened(version)
        await near.aclose()
        assert await far.receive_some() == b""
        await far.aclose()

    @pytest.mark.parametrize("compatible", [False, True])
    async def test_aclose(self, compatible: bool) -> None:
        """It sends a close_notify, but not if the stream is https_compatible."""
        near, far = await opened(https_compatible=compatible)
        await near.aclose()
        alert = await receive_all(far.transport_stream)
        assert (alert == b"") is compatible
        await far.aclose()


class TestAlerts:
    """The peer learns from an alert why the connection broke."""

    @every_version
    @pytest.mark.parametrize("kind", ["tcp", "memory", "lockstep"])
    async def test_unknown_authority(self, kind: str, version: str) -> None:
        """A client that does not trust the server says so."""
        _, server = make_contexts(version)
        stranger, _ = make_contexts(version)
        near, far = await new(version, TRANSPORTS[kind], pair=(stranger, server))
        errors = await fail_both(near, far)

        assert errors[near].reason == "CERTIFICATE_VERIFY_FAILED"
        assert errors[far].reason == "TLSV1_ALERT_UNKNOWN_CA"

    @every_version
    @pytest.mark.parametrize("kind", ["tcp", "memory"])
    async def test_certificate_required(self, kind: str, version: str) -> None:
        """A server that wants a certificate says so; in TLS 1.3 to the first receive."""
        client, server = make_contexts(version)
        server.verify_mode = ssl.CERT_REQUIRED
        near, far = await new(version, TRANSPORTS[kind], pair=(client, server))
        errors = await fail_both(near, far)

        assert errors[far].reason == "PEER_DID_NOT_RETURN_A_CERTIFICATE"
        assert (
            errors[near].reason
            == {
                "1.2": "SSLV3_ALERT_HANDSHAKE_FAILURE",
                "1.3": "TLSV13_ALERT_CERTIFICATE_REQUIRED",
            }[version]
        )

    @every_version
    async def test_damaged_record(self, version: str) -> None:
        """An error after the handshake is told to the peer, and is kept."""
        near, far = await opened(version)
        async with near, far:
            await near.send_all(b"fine")
            await near.transport_stream.send_all(b"\x17\x03\x03\x00\x20" + b"?" * 32)
            await trio.testing.wait_all_tasks_blocked()
            assert await far.receive_some() == b"fine"
            for _ in range(2):
                with pytest.raises(trio.BrokenResourceError) as caught:
                    await far.receive_some()
                assert "DECRYPTION_FAILED_OR_BAD_RECORD_MAC" in str(caught.value)
            for call in (
                partial(far.send_all, b"x"),
                far.send_eof,
                far.unwrap,
            ):
                with pytest.raises(trio.BrokenResourceError, match="BAD_RECORD_MAC"):
                    await call()

            with pytest.raises(trio.BrokenResourceError) as caught:
                await near.receive_some()
            assert "ALERT_BAD_RECORD_MAC" in str(caught.value)

    async def test_damage_while_ending(self) -> None:
        """A reader meets an error while another task waits to send our end."""
        near, far = await opened()
        await clog(near)

        async def fail(call) -> None:
            with pytest.raises(trio.BrokenResourceError, match="BAD_RECORD_MAC"):
                await call()

        async with near, far, trio.open_nursery() as nursery:
            nursery.start_soon(fail, near.send_eof)
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(fail, near.receive_some)
            await far.transport_stream.send_all(b"\x17\x03\x03\x00\x20" + b"?" * 32)
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(fail, partial(receive_all, far))

    @every_version
    async def test_peer_that_does_not_speak_tls(self, version: str) -> None:
        """Bytes that are no TLS break the handshake, for all tasks."""
        near, far = await new(version)
        async with near, far:
            await near.transport_stream.send_all(b"GET / HTTP/1.1\r\n\r\n")
            for call in (far.do_handshake, far.receive_some):
                with pytest.raises(trio.BrokenResourceError, match="HTTP_REQUEST"):
                    await call()

    async def test_peer_that_is_gone(self) -> None:
        """An alert that cannot be sent does not hide the error."""
        near, far = await opened()
        await near.transport_stream.send_all(b"\x17\x03\x03\x00\x20" + b"?" * 32)
        reset_on_close(near.transport_stream)
        await trio.testing.wait_all_tasks_blocked()
        far._feed(await far.transport_stream.receive_some())
        near.close()
        with pytest.raises(trio.BrokenResourceError, match="BAD_RECORD_MAC"):
            far.receive_some_nowait(1)
        await far.aclose()


async def fail_both(near: TLSStream, far: TLSStream) -> dict[TLSStream, ssl.SSLError]:
    """Let both sides meet the error of TLS, and return the errors."""
    errors: dict[TLSStream, ssl.SSLError] = {}

    async def fail(stream: TLSStream) -> None:
        with pytest.raises(trio.BrokenResourceError) as caught:
            await stream.receive_some()
        assert isinstance(caught.value.__cause__, ssl.SSLError)
        errors[stream] = caught.value.__cause__

    async with near, far, trio.open_nursery() as nursery:
        nursery.start_soon(fail, near)
        nursery.start_soon(fail, far)
    return errors


class TestCancelled:
    """A cancelled call loses nothing that Trio's contract promises to keep."""

    @every_version
    @pytest.mark.parametrize("kind", ["tcp", "memory"])
    async def test_receiving(self, kind: str, version: str) -> None:
        """Reads that are cancelled at random steps lose no byte."""
        near, far = await opened(version, TRANSPORTS[kind])
        data = os.urandom(300_000)
        got = bytearray()
        rng = random.Random(0)

        async def send() -> None:
            position = 0
            while position < len(data):
                size = rng.randrange(1, 30_000)
                await near.send_all(data[position : position + size])
                position += size
                await trio.lowlevel.checkpoint()
            await near.send_eof()

        async with near, far, trio.open_nursery() as nursery:
            nursery.start_soon(send)
            while True:
                instrument = CancelAtStep(rng.randrange(1, 10))
                trio.lowlevel.add_instrument(instrument)
                with instrument.scope:
                    chunk = await far.receive_some(rng.choice([1, 999, 70_000, None]))
                    got += chunk
                    if not chunk:
                        break
                trio.lowlevel.remove_instrument(instrument)
            trio.lowlevel.remove_instrument(instrument)
        assert got == data

    @every_version
    async def test_sending(self, version: str) -> None:
        """After a cancelled send nothing follows, not even a proper end."""
        near, far = await opened(version)
        async with near, far:
            with trio.CancelScope() as scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(near.send_all, b"x" * 20 * MIB)
                    await trio.testing.wait_all_tasks_blocked()
                    scope.cancel()
            assert near.unsent

            for send in (partial(near.send_all, b"y"), near.send_eof):
                with pytest.raises(trio.BrokenResourceError, match="send was cut"):
                    await send()
            await far.send_all(b"read")
            assert await near.receive_some() == b"read"
            await near.aclose()
            got = bytearray()
            with pytest.raises(trio.BrokenResourceError):
                while True:
                    got += await far.receive_some()
            assert got == b"x" * len(got)
            assert 0 < len(got) < 20 * MIB

    async def test_sending_in_memory(self) -> None:
        """Over another stream nothing can be sent after a cancelled send."""
        near, far = await opened(transport=TRANSPORTS["lockstep"])
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(near.send_all, b"x")
                await trio.testing.wait_all_tasks_blocked()
                scope.cancel()
        with pytest.raises(trio.BrokenResourceError):
            await near.send_all(b"x")
        await near.aclose()
        await trio.aclose_forcefully(far)

    async def test_before_it_began(self) -> None:
        """A send that was cancelled in its checkpoint has not begun: nothing is cut."""
        near, far = await opened()
        with trio.CancelScope() as scope:
            scope.cancel()
            await near.send_all(b"x")
        await near.aclose()
        assert await far.receive_some() == b""
        await far.aclose()

    @every_version
    @pytest.mark.parametrize("side", [0, 1])
    async def test_handshake(self, version: str, side: int) -> None:
        """Another call goes on with a handshake that was cancelled at any step."""
        for step in range(1, 100):
            pair = await new(version)
            async with pair[0], pair[1], trio.open_nursery() as nursery:
                nursery.start_soon(pair[1 - side].do_handshake)
                through = not await cancel_at(step, pair[side].do_handshake)
                await pair[side].send_all(b"x")
                assert await pair[1 - side].receive_some() == b"x"
            if through:
                return
        raise AssertionError("it did not end")

    @every_version
    @pytest.mark.parametrize("side", [0, 1])
    @pytest.mark.parametrize("kind", ["tcp", "memory"])
    async def test_everywhere(self, kind: str, version: str, side: int) -> None:
        """Cancelled at any step of a whole life, the transport is closed and no more."""
        waiting = tasks_waiting()
        for step in range(1, 200):
            pair = await new(version, TRANSPORTS[kind])
            ours, peer = pair[side], pair[1 - side]

            async def live(ours: TLSStream = ours) -> None:
                async with ours:
                    await ours.do_handshake()
                    await ours.send_all(b"x" * 100_000)
                    assert await ours.receive_some()
                    await ours.send_eof()
                    while await ours.receive_some():
                        pass

            async def answer(peer: TLSStream = peer) -> None:
                async with peer:
                    with suppress(trio.BrokenResourceError):
                        while await peer.receive_some():
                            await peer.send_all(b"y")
                        await peer.send_eof()

            async with trio.open_nursery() as nursery:
                nursery.start_soon(answer)
                cancelled = await cancel_at(step, live)
            for stream in pair:
                with pytest.raises(trio.ClosedResourceError):
                    await stream.transport_stream.send_all(b"x")
                assert not stream.receiving
                assert not stream.sending
            assert tasks_waiting() == waiting
            if not cancelled:
                return
        raise AssertionError("it did not end")

    @pytest.mark.parametrize("method", ["send_eof", "aclose"])
    async def test_end_on_a_full_socket(self, method: str) -> None:
        """send_eof() can be called again; a cancelled aclose() has closed."""
        near, far = await opened()
        sent = await clog(near)
        async with far:
            with trio.CancelScope() as scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(getattr(near, method))
                    await trio.testing.wait_all_tasks_blocked()
                    scope.cancel()
            if method == "send_eof":
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(near.send_eof)
                    assert len(await receive_all(far)) == sent
                await near.aclose()
            else:
                assert raw(near).fileno() == -1
                with pytest.raises(trio.BrokenResourceError):
                    await receive_all(far)


class TestTasks:
    """One task receives and one sends; what they need from each other is hidden."""

    @every_version
    @pytest.mark.parametrize("kind", ["tcp", "memory"])
    async def test_handshake_by_two(self, kind: str, version: str) -> None:
        """Both tasks make the handshake, and either goes on if the other is cancelled."""
        for cancelled in ("neither", "receiver", "sender"):
            near, far = await new(version, TRANSPORTS[kind])
            scopes = {"receiver": trio.CancelScope(), "sender": trio.CancelScope()}
            got: list[bytes] = []

            async def receive(stream=near, scopes=scopes, got=got) -> None:
                with scopes["receiver"]:
                    got.append(await stream.receive_some())

            async def send(stream=near, scopes=scopes) -> None:
                with scopes["sender"]:
                    await stream.send_all(b"x")

            async with near, far, trio.open_nursery() as nursery:
                nursery.start_soon(receive)
                nursery.start_soon(send)
                await trio.testing.wait_all_tasks_blocked()
                if cancelled != "neither":
                    scopes[cancelled].cancel()
                if cancelled == "sender":
                    await far.do_handshake()
                else:
                    assert await far.receive_some() == b"x"
                await far.send_all(b"y")
            assert got == ([] if cancelled == "receiver" else [b"y"])

    async def test_reader_does_not_wait_for_the_sender(self) -> None:
        """A reader goes on when the handshake is sent, whatever a sender has added."""
        near, far = await new()
        raw(near).setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        raw(far).setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        async with near, far, trio.open_nursery() as nursery:
            nursery.start_soon(near.send_all, b"x" * MIB)
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(far.do_handshake)
            with trio.fail_after(5):
                assert await self._answered(near, far) == b"y"
            nursery.cancel_scope.cancel()

    async def _answered(self, near: TLSStream, far: TLSStream) -> bytes:
        got: list[bytes] = []

        async def receive() -> None:
            got.append(await near.receive_some())

        async with trio.open_nursery() as nursery:
            nursery.start_soon(receive)
            await far.send_all(b"y")
        return got[0]

    async def test_handshake_on_a_full_socket(self) -> None:
        """Tasks that have to send share one wait."""
        near, far = direct(await tcp_pair())
        await clog_socket(near)
        client, _ = make_contexts("1.3")
        stream = TLSStream(near, client, server_hostname="localhost")

        async def fail(call) -> None:
            with pytest.raises(trio.ClosedResourceError):
                await call()

        async with far, trio.open_nursery() as nursery:
            nursery.start_soon(fail, stream.receive_some)
            nursery.start_soon(fail, partial(stream.send_all, b"x"))
            await trio.testing.wait_all_tasks_blocked()
            await stream.aclose()

    @pytest.mark.parametrize("method", ["send_all", "send_eof", "send_some_nowait"])
    async def test_busy_sending(self, method: str) -> None:
        """A second sender gets BusyResourceError, and aclose() closes forcefully."""
        near, far = await opened()
        await clog(near)
        args = () if method == "send_eof" else (b"x",)

        async def send() -> None:
            with pytest.raises(trio.ClosedResourceError):
                await near.send_all(b"x")

        async with far, trio.open_nursery() as nursery:
            nursery.start_soon(send)
            await trio.testing.wait_all_tasks_blocked()
            with pytest.raises(trio.BusyResourceError):
                result = getattr(near, method)(*args)
                await result
            await near.aclose()

    async def test_busy_receiving(self) -> None:
        """A second receiver gets BusyResourceError."""
        near, far = await opened()
        async with near, far, trio.open_nursery() as nursery:
            nursery.start_soon(near.receive_some)
            await trio.testing.wait_all_tasks_blocked()
            with pytest.raises(trio.BusyResourceError):
                await near.receive_some()
            with pytest.raises(trio.BusyResourceError):
                near.receive_some_nowait(1)
            nursery.cancel_scope.cancel()

    async def test_closed_by_two(self) -> None:
        """A second aclose() does not disturb the first, which waits for the socket."""
        near, far = await opened()
        await clog(near)
        async with far, trio.open_nursery() as nursery:
            nursery.start_soon(near.aclose)
            await trio.testing.wait_all_tasks_blocked()
            await near.aclose()
            await near.aclose()


class TestKeyUpdate:
    """The peer changes its key and may ask for ours, so a reader has to send."""

    @pytest.mark.parametrize("side", [0, 1])
    @pytest.mark.parametrize("kind", ["tcp", "memory"])
    async def test_answer(self, tmp_path: Path, kind: str, side: int) -> None:
        """Each key update is answered once, if it asks for that."""
        ours, peer, records = await updating(tmp_path, side, kind)
        async with ours, peer:
            for answer in (True, False, True):
                await peer.transport_stream.send_all(
                    records.data(b"old")
                    + records.key_update(answer=answer)
                    + records.data(b"new")
                )
                got = b""
                while len(got) < 6:
                    got += await ours.receive_some()
                assert got == b"oldnew"
                await ours.send_all(b"with our new key")
                assert await peer.receive_some() == b"with our new key"
            peer._ended = True  # A close_notify would have the wrong number.

    async def test_after_our_end(self, tmp_path: Path) -> None:
        """After our close_notify nothing can be sent, and the peer's data still comes."""
        ours, peer, records = await updating(tmp_path)
        async with ours, peer:
            await ours.send_all(b"x")
            await ours.send_eof()
            assert await receive_all(peer) == b"x"
            await peer.transport_stream.send_all(
                records.key_update(answer=True)
                + records.data(b"late")
                + records.close_notify()
            )
            assert await receive_all(ours) == b"late"
            peer._ended = True

    @pytest.mark.parametrize("kind", ["tcp", "memory"])
    async def test_only_a_reader(self, tmp_path: Path, kind: str) -> None:
        """A task that only reads sends the answer, over any transport."""
        ours, peer, records = await updating(tmp_path, kind=kind)
        async with ours, peer, trio.open_nursery() as nursery:
            nursery.start_soon(ours.receive_some)
            for _ in range(2):  # OpenSSL answers the first one together with the next.
                await peer.transport_stream.send_all(records.key_update(answer=True))
            assert await peer.transport_stream.receive_some()
            await peer.transport_stream.send_all(records.data(b"x"))
            peer._ended = True

    @pytest.mark.parametrize("sender", [False, True])
    async def test_full_socket(self, tmp_path: Path, sender: bool) -> None:
        """A reader that cannot send its answer goes on reading, and sends it later."""
        ours, peer, records = await updating(tmp_path)
        sent = await clog(ours)
        got = bytearray()

        async def receive() -> None:
            while True:
                got.extend(await ours.receive_some())

        async with ours, peer, trio.open_nursery() as nursery:
            if sender:
                nursery.start_soon(ours.send_all, b"y")
                await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(receive)
            for data in (b"1", b"2", b"3"):
                await peer.transport_stream.send_all(
                    records.key_update(answer=True) + records.data(data)
                )
                await trio.testing.wait_all_tasks_blocked()
            assert got == b"123"
            assert ours.unsent

            total = 0
            while total < sent + sender:
                total += len(await peer.receive_some())
            await trio.testing.wait_all_tasks_blocked()
            assert ours.unsent == 0
            peer._ended = True
            nursery.cancel_scope.cancel()

    async def test_cancelled_while_answering(self) -> None:
        """The reader gets Cancelled itself, not a group of those of two tasks."""
        near, far = await opened()
        await clog(near)
        # As after a key update whose answer the kernel does not take.
        near._answer = near._output
        caught: list[BaseException] = []

        async def read() -> None:
            try:
                await near.receive_some()
            except BaseException as exc:
                caught.append(exc)
                raise

        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        assert [type(exc) for exc in caught] == [trio.Cancelled]
        await close_all(near, far)

    async def test_close_while_answering(self, tmp_path: Path) -> None:
        """aclose() wakes a reader that waits for both directions."""
        ours, peer, records = await updating(tmp_path)
        await clog(ours)

        async def receive() -> None:
            with pytest.raises(trio.ClosedResourceError):
                await ours.receive_some()

        async with peer, trio.open_nursery() as nursery:
            nursery.start_soon(receive)
            for _ in range(2):
                await peer.transport_stream.send_all(records.key_update(answer=True))
            await trio.testing.wait_all_tasks_blocked()
            ours.close()
            peer._ended = True

    async def test_answer_that_cannot_be_sent(self, tmp_path: Path) -> None:
        """What came before the answer failed is still received."""
        ours, peer, records = await updating(tmp_path)
        await peer.transport_stream.send_all(
            records.key_update(answer=True)
            + records.data(b"last words")
            + records.key_update(answer=True)
        )
        await trio.testing.wait_all_tasks_blocked()
        ours._feed(await ours.transport_stream.receive_some())
        reset_on_close(peer.transport_stream)
        peer.close()
        async with ours:
            assert await ours.receive_some() == b"last words"
            with pytest.raises(trio.BrokenResourceError):
                await ours.receive_some()


async def updating(
    path: Path, side: int = 1, kind: str = "tcp"
) -> tuple[TLSStream, TLSStream, RecordSender]:
    """Return our stream, its peer, and a sender of records in place of the peer.

    Args:
        path: A folder for the log of the keys.
        side: Whether we are the server.
        kind: The kind of transport.
    """
    contexts = make_contexts("1.3")
    log_keys(contexts[1 - side], path / "keys")
    pair = await opened(transport=TRANSPORTS[kind], pair=contexts)
    ours, peer = pair[side], pair[1 - side]
    # A server's tickets have not been sent so far, and are never sent.
    peer._outgoing.read()
    who = "SERVER" if side == 0 else "CLIENT"
    return ours, peer, RecordSender(path / "keys", f"{who}_TRAFFIC_SECRET_0", 0)


class TestNoWait:
    """Methods without a checkpoint, for code that has one anyway."""

    async def test_receive(self) -> None:
        """It returns None, bytes, or b"" at the end of the stream."""
        near, far = await opened()
        async with near, far:
            assert near.receive_some_nowait(2) is None
            await far.send_all(b"xyz")
            assert near.receive_some_nowait(2) == b"xy"
            assert near.receive_some_nowait(2) == b"z"
            assert near.receive_some_nowait(2) is None
            async with trio.open_nursery() as nursery:
                nursery.start_soon(near.wait_readable)
                await trio.testing.wait_all_tasks_blocked()
                await far.send_eof()
            assert near.receive_some_nowait(2) == b""

    async def test_send(self) -> None:
        """It takes a part of the data, and nothing before the kernel took that."""
        near, far = await opened()
        async with near, far:
            assert near.send_some_nowait(b"") == 0
            assert near.send_some_nowait(b"x" * 40_000) == 32_768
            sent = 32_768 + await clog(near)
            assert near.unsent
            assert near.send_some_nowait(b"x") == 0
            got = 0
            while not (taken := near.send_some_nowait(b"x")):
                got += len(await far.receive_some())
            sent += taken
            async with trio.open_nursery() as nursery:
                nursery.start_soon(near.wait_send_all_might_not_block)
                while got < sent:
                    got += len(await far.receive_some())
            assert near.unsent == 0
            assert near.send_some_nowait(b"y") == 1
            assert await far.receive_some() == b"y"

    async def test_before_the_handshake(self) -> None:
        """They do not make the handshake, in which OpenSSL would check no name."""
        near, far = await new()
        async with near, far:
            with pytest.raises(trio.NeedHandshakeError):
                near.receive_some_nowait(1)
            with pytest.raises(trio.NeedHandshakeError):
                near.send_some_nowait(b"x")

    async def test_close(self) -> None:
        """close() wakes a task that waits, and the peer sees no proper end."""
        near, far = await opened()

        async def receive() -> None:
            with pytest.raises(trio.ClosedResourceError):
                await near.receive_some()

        async with far, trio.open_nursery() as nursery:
            nursery.start_soon(receive)
            await trio.testing.wait_all_tasks_blocked()
            near.close()
            with pytest.raises(trio.BrokenResourceError):
                await far.receive_some()

    async def test_unsent_end_while_another_task_sends(self) -> None:
        """What is left of our end is sent by one task at a time."""
        near, far = await opened()
        await near.send_eof()
        await near.wait_sent_some()
        near.sending = True
        with pytest.raises(trio.BusyResourceError):
            await near.wait_sent_some()
        near.sending = False
        await close_all(near, far)


class TestSession:
    """The attributes of trio.SSLStream, and the arguments."""

    @every_version
    async def test_attributes(self, version: str) -> None:
        """They have the values that trio.SSLStream reports."""
        client, server = make_contexts(version)
        for context in client, server:
            context.set_alpn_protocols(["http/1.1"])
        near, far = await opened(pair=(client, server))
        trio_far, trio_near = direct(await tcp_pair())
        other = trio.SSLStream(trio_near, client, server_hostname="localhost")
        async with near, far:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(other.do_handshake)
                nursery.start_soon(
                    TLSStream(trio_far, server, server_side=True).do_handshake
                )
            for name in ("context", "server_side", "server_hostname", "session_reused"):
                assert getattr(near, name) == getattr(other, name)
            for name in (
                *("cipher", "compression", "pending", "selected_alpn_protocol"),
                *("shared_ciphers", "version", "getpeercert"),
            ):
                assert getattr(near, name)() == getattr(other, name)()
            assert near.getpeercert(binary_form=True) == other.getpeercert(True)
            assert near.selected_alpn_protocol() == "http/1.1"
            assert near.version() == f"TLSv{version}"
            assert far.shared_ciphers()
            assert far.server_side
            if version == "1.2":
                assert near.get_channel_binding() == far.get_channel_binding()
        await trio_near.aclose()
        await trio_far.aclose()

    async def test_before_the_handshake(self) -> None:
        """What the handshake decides cannot be read earlier."""
        near, far = await new()
        async with near, far:
            assert near.session is None
            with pytest.raises(trio.NeedHandshakeError, match="cipher"):
                near.cipher()

    @every_version
    async def test_resumption(self, version: str) -> None:
        """A session can be set on a new stream of the same context."""
        pair = make_contexts(version)
        near, far = await opened(pair=pair)
        async with near, far:
            # In TLS 1.3 the tickets come with the first bytes of the server.
            await far.send_all(b"x")
            assert await near.receive_some() == b"x"
            session = near.session
            assert not near.session_reused
        assert session is not None
        near, far = await new(pair=pair)
        async with near, far:
            near.session = session
            await handshake(near, far)
            assert near.session_reused
            assert far.session_reused

    async def test_context_by_name(self) -> None:
        """A callback for the server's name can set another context."""
        client, server = make_contexts("1.3")
        other = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        names = []

        def choose(tls, name, context) -> None:
            names.append(name)
            tls.context = server

        other.sni_callback = choose
        near, far = await opened(pair=(client, other))
        async with near, far:
            assert names == ["localhost"]
            assert far.context is server
            far.context = server

    async def test_name_that_is_not_ascii(self) -> None:
        """A name is encoded by the rules that clients of HTTP use (UTS 46)."""
        near, far = direct(await tcp_pair())
        client, _ = make_contexts("1.3")
        async with far:
            stream = TLSStream(near, client, server_hostname="Faß.example")
            assert stream.server_hostname == "xn--fa-hia.example"
            await stream.aclose()

    async def test_wrong_arguments(self) -> None:
        """A missing name, and a context for the other side, are refused."""
        near, far = direct(await tcp_pair())
        client, server = make_contexts("1.3")
        async with near, far:
            with pytest.raises(ValueError, match="server_hostname"):
                TLSStream(near, client)
            with pytest.raises(ssl.SSLError):
                TLSStream(near, client, server_side=True)
            with pytest.raises(ssl.SSLError):
                TLSStream(near, server, server_hostname="localhost")

    @every_version
    @pytest.mark.parametrize("size", [1, 100, 1_000_000])
    async def test_bytes_received_early(self, version: str, size: int) -> None:
        """The beginning of TLS may have been read from the transport already."""
        client, server = make_contexts(version)
        near, far = direct(await tcp_pair())
        peer = TLSStream(near, client, server_hostname="localhost")
        async with peer, trio.open_nursery() as nursery:
            nursery.start_soon(peer.send_all, b"x")
            early = await far.receive_some(size)
            stream = TLSStream(far, server, server_side=True, received=early)
            async with stream:
                assert await stream.receive_some() == b"x"

    @pytest.mark.skipif(not hasattr(socket, "TCP_QUICKACK"), reason="needs Linux")
    async def test_client_with_nagle(self) -> None:
        """Its first data does not wait 40 ms for the server's acknowledgement."""
        client, server = make_contexts("1.3")
        seconds = []
        for _ in range(10):
            near, far = direct(await tcp_pair())
            near.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 0)
            sender = TLSStream(near, client, server_hostname="localhost")
            receiver = TLSStream(far, server, server_side=True)
            async with sender, receiver:
                await handshake(sender, receiver)
                start = trio.current_time()
                await sender.send_all(b"x")
                assert await receiver.receive_some() == b"x"
                seconds.append(trio.current_time() - start)
        assert min(seconds) < 0.03


def raw(stream: TLSStream) -> Any:
    """Return the stream below, of any type."""
    return stream.transport_stream


async def cancel_at(step: int, run) -> bool:
    """Run, cancelled at a step; return whether it was cancelled before it ended."""
    instrument = CancelAtStep(step)
    trio.lowlevel.add_instrument(instrument)
    try:
        with instrument.scope:
            await run()
    finally:
        trio.lowlevel.remove_instrument(instrument)
    return instrument.scope.cancelled_caught


def tasks_waiting() -> int:
    """Return how many tasks Trio has registered as waiting for descriptors."""
    statistics = trio.lowlevel.current_statistics().io_statistics
    return statistics.tasks_waiting_read + statistics.tasks_waiting_write
