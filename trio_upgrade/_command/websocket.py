# trio-upgrade websocket: a line of standard input is a message, and a message a line.
from __future__ import annotations

import json
import math
from base64 import b64encode
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, cast, final

import trio

from .dialling import Dialling
from .errors import SUCCESS, CommandFailed
from .masking import escape, format_response_fields
from .stdio import STDIN, STDOUT, Input, Output, is_terminal

if TYPE_CHECKING:
    from argparse import Namespace

    from websockets.exceptions import ConnectionClosed
    from websockets.trio.client import ClientConnection

    from .. import DialOptions

# The most bytes of a line, as of a message that is received.
_MOST_BYTES = 2**20
# Closes that are no failure (RFC 6455 §7.4.1): normal, going away, no code.
_GOOD_CODES = frozenset({1000, 1001, 1005})
_LOST = 1006


def run(arguments: Namespace) -> int:
    """Run the subcommand, and return its exit status."""
    trio.run(talk, arguments)
    return SUCCESS


async def talk(arguments: Namespace, stdin: int = STDIN, stdout: int = STDOUT) -> None:
    """Open a WebSocket, and send and show messages until it is closed.

    Raises:
        CommandFailed: It could not be opened, or was closed with an error.
        OutputClosed: No process reads standard output.
    """
    try:
        from ..websocket import open_websocket
    except ModuleNotFoundError as exc:
        raise CommandFailed(
            'WebSockets need the extra: pip install "trio-upgrade[websocket]"'
        ) from exc
    dialling = Dialling.from_arguments(arguments)
    url: str = arguments.url
    seconds = math.inf if dialling.seconds is None else dialling.seconds

    async def open_on(options: DialOptions) -> ClientConnection:
        # Not outside of this function: what the call raises is translated, too.
        block = open_websocket(
            url,
            origin=arguments.origin,
            subprotocols=arguments.subprotocol or None,
            headers=dialling.headers,
            **options,
        )
        return await stack.enter_async_context(block)

    async with AsyncExitStack() as stack:
        await dialling.show_request(open_on)
        # The tasks of the WebSocket run inside this scope, so it lasts as long.
        scope = stack.enter_context(trio.move_on_after(seconds))
        websocket = await dialling.translate(open_on(dialling.make_options(url)))
        scope.deadline = math.inf
        answer = websocket.response
        assert answer is not None
        dialling.show(
            format_response_fields(
                f"HTTP/1.1 {answer.status_code} {answer.reason_phrase}",
                [*answer.headers.raw_items()],
            )
        )
        source = await stack.enter_async_context(Input(stdin))
        sink = await stack.enter_async_context(Output(stdout))
        await Conversation(websocket, source, sink, is_pretty=is_terminal(stdout)).run(
            arguments.wait
        )
    if scope.cancelled_caught:
        raise CommandFailed(f"no answer within {seconds:g} seconds")


@final
class Conversation:
    """Lines to messages, and messages to lines.

    Args:
        websocket: The WebSocket.
        source: Where the lines come from.
        sink: Where the messages go.
        is_pretty: Whether JSON is indented, and controls are escaped.
    """

    def __init__(
        self,
        websocket: ClientConnection,
        source: trio.abc.ReceiveStream,
        sink: trio.abc.SendStream,
        *,
        is_pretty: bool,
    ) -> None:
        self._websocket = websocket
        self._source = source
        self._sink = sink
        self._is_pretty = is_pretty
        self._read = bytearray()
        self._last_message = -math.inf

    async def run(self, wait: float | None) -> None:
        """Send and show messages until the WebSocket is closed.

        Args:
            wait: Seconds of silence after the last line until it is closed by us; None
                leaves that to the server.

        Raises:
            CommandFailed: It was closed with an error, or a line is no message.
            OutputClosed: No process reads the messages.
        """
        from websockets.exceptions import ConnectionClosed

        async def send() -> None:
            try:
                while (line := await self._receive_line()) is not None:
                    await self._websocket.send(line)
            except ConnectionClosed:
                return  # The other task sees why.
            await self._close_after(wait)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            try:
                while True:
                    message = await self._websocket.recv()
                    self._last_message = trio.current_time()
                    await self._sink.send_all(self._format(message))
            except ConnectionClosed as exc:
                closed = exc
                nursery.cancel_scope.cancel()
        self._judge(closed)

    async def _close_after(self, wait: float | None) -> None:
        # A WebSocket has no half-close, so the answer to the last line is waited for.
        if wait is None:
            return
        ended = trio.current_time()
        while (due := max(ended, self._last_message) + wait) > trio.current_time():  # noqa: ASYNC110
            # No event: each message only moves the time.
            await trio.sleep_until(due)
        await self._websocket.aclose()

    def _judge(self, closed: ConnectionClosed) -> None:
        code, reason = self._websocket.close_code, self._websocket.close_reason
        sent = closed.sent
        if sent and not closed.rcvd_then_sent and sent.code not in _GOOD_CODES:
            # For example a message that is too long; the server may say the same.
            raise CommandFailed(f"the WebSocket had to be closed: {sent}")
        if code == _LOST:
            raise CommandFailed("the connection was lost")
        if code not in _GOOD_CODES:
            raise CommandFailed(f"the WebSocket was closed with {code} {reason}")

    async def _receive_line(self) -> str | None:
        # Returns None at the end. A last line may lack its line feed.
        while (at := self._read.find(b"\n")) < 0:
            if len(self._read) > _MOST_BYTES:
                raise CommandFailed(f"a line is longer than {_MOST_BYTES} bytes")
            chunk = await self._source.receive_some()
            if not chunk:
                at = len(self._read)
                break
            self._read += chunk
        if not self._read:
            return None
        line = bytes(self._read[:at])
        del self._read[: at + 1]
        try:
            return line.removesuffix(b"\r").decode()
        except UnicodeDecodeError:
            raise CommandFailed("a line is not UTF-8: it cannot be a message") from None

    def _format(self, message: str | bytes) -> bytes:
        if isinstance(message, bytes):
            text = b64encode(message).decode()
            if self._is_pretty:
                text = f"binary, {len(message)} bytes: {text}"
        else:
            text = _format_for_person(message) if self._is_pretty else message
        return f"{text}\n".encode()


def _format_for_person(text: str) -> str:
    try:
        value = cast("object", json.loads(text))
    except (ValueError, RecursionError):
        value = None
    if isinstance(value, dict | list):
        text = json.dumps(value, indent=2, ensure_ascii=False)
    # Nothing that comes from the server acts on the terminal.
    return "\n".join([escape(line) for line in text.split("\n")])
