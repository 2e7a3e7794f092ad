# The messages that an application sends for one WebSocket: each is checked here, and
# only here.  The order of the messages is the duty of WebSocketCall.
from __future__ import annotations

from typing import TYPE_CHECKING, cast

from .messages import parse_fields

if TYPE_CHECKING:
    from .messages import Field
    from .types import Message

_NORMAL_CLOSURE = 1000
# The codes that a Close may have (RFC 6455 §7.4, and the registry of IANA).
_CODES = frozenset({1000, 1001, 1002, 1003, *range(1007, 1015), *range(3000, 5000)})
# Of a control frame, 125 bytes, two are for the code (RFC 6455 §5.5).
_LONGEST_REASON = 123
_WRITTEN = b"sec-websocket-"


def parse_accept(message: Message) -> tuple[str | None, list[Field]]:
    """Check a ``websocket.accept``; return the subprotocol and the further fields.

    Raises:
        TypeError: A value has another type.
        ValueError: A field is one that the server writes.
    """
    subprotocol: object = message.get("subprotocol")
    if not isinstance(subprotocol, str | None):
        kind = type(subprotocol).__name__
        raise TypeError(f"websocket.accept: subprotocol must be a str, not {kind}")
    fields = parse_fields(message, "headers", frozenset())
    for name, _ in fields:
        if name.lower().startswith(_WRITTEN):
            text = name.decode("latin-1")
            raise ValueError(f"websocket.accept: {text} is written by the server")
    return subprotocol, fields


def parse_send(message: Message) -> tuple[bytes, bool]:
    """Check a ``websocket.send``; return the content and whether it is text.

    If there are both, the bytes are sent, as other servers do.

    Raises:
        TypeError: The content is missing or has another type.
        ValueError: The text has a surrogate and cannot be UTF-8 (RFC 6455 §5.6).
    """
    data: object = message.get("bytes")
    if isinstance(data, bytes):
        return data, False
    if data is None:
        text: object = message.get("text")
        if isinstance(text, str):
            return text.encode(), True
        kind = type(text).__name__
        raise TypeError(
            f"websocket.send: text must be a str, or bytes given, not {kind}"
        )
    if isinstance(data, bytearray | memoryview):
        # A copy: the application may change it while it is being sent.
        return bytes(cast("bytes", data)), False
    raise TypeError(f"websocket.send: bytes must be bytes, not {type(data).__name__}")


def parse_close(message: Message) -> tuple[int, str]:
    """Check a ``websocket.close``; return the code and the reason.

    Raises:
        TypeError: A value has another type.
        ValueError: The code cannot be sent, or the reason is too long.
    """
    code: object = message.get("code", _NORMAL_CLOSURE)
    if code is None:
        code = _NORMAL_CLOSURE
    if isinstance(code, bool) or not isinstance(code, int):
        raise TypeError(f"websocket.close: code must be an int, not {code!r}")
    if code not in _CODES:
        raise ValueError(f"websocket.close: the code {code} cannot be sent")
    reason: object = message.get("reason")
    if reason is None:
        reason = ""
    if not isinstance(reason, str):
        kind = type(reason).__name__
        raise TypeError(f"websocket.close: reason must be a str, not {kind}")
    if len(reason.encode()) > _LONGEST_REASON:
        raise ValueError(
            f"websocket.close: the reason is longer than {_LONGEST_REASON} bytes"
        )
    return code, reason
