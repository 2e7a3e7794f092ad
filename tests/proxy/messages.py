# What a client or an upstream server saw, in a form that can be compared: fields by name,
# content without its framing.
from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Message:
    """A message as its recipient understands it.

    Attributes:
        first: The words of the first line but the version.
        fields: The values of each field, line by line; the names are in lower case.
        body: The content, without its framing.
        trailers: As the fields.
        framing: ``"length"``, ``"chunked"``, ``"end"`` or ``"none"``.
        whole: Whether the message came to its end.
        hints: The first lines of informational responses before it.
    """

    first: tuple[str, ...]
    fields: dict[str, list[str]]
    body: bytes = b""
    trailers: dict[str, list[str]] = field(default_factory=dict)
    framing: str = "none"
    whole: bool = True
    hints: list[str] = field(default_factory=list)


def parse_fields(lines: bytes) -> dict[str, list[str]]:
    """Return the fields of a header section by name."""
    fields: dict[str, list[str]] = {}
    for line in lines.decode("latin-1").split("\r\n"):
        name, colon, value = line.partition(":")
        if colon:
            fields.setdefault(name.lower(), []).append(value.strip())
    return fields


def parse_request(wire: bytes) -> Message:
    """Return a request that came whole or was cut."""
    head, _, rest = wire.partition(b"\r\n\r\n")
    line, _, lines = head.partition(b"\r\n")
    method, target, _ = line.decode("latin-1").split(" ", 2)
    message = Message((method, target), parse_fields(lines))
    _read_body(message, rest, until_end=False)
    return message


def parse_response(wire: bytes, method: str, *, cut: bool) -> Message | None:
    """Return the final response; None if there is none.

    Args:
        wire: All that came.
        method: The method of the request.
        cut: Whether the connection was reset after it.
    """
    hints: list[str] = []
    while True:
        head, blank, wire = wire.partition(b"\r\n\r\n")
        if not blank:
            return None
        line, _, lines = head.partition(b"\r\n")
        _, status, reason = (line.decode("latin-1") + " ").split(" ", 2)
        if not status.startswith("1"):
            break
        hints.append(status)
    message = Message((status, reason.strip()), parse_fields(lines), hints=hints)
    if method == "HEAD" or status in ("204", "304"):
        message.whole = not wire
    else:
        _read_body(message, wire, until_end=True)
    if message.framing == "end":
        message.whole = not cut
    return message


def _read_body(message: Message, rest: bytes, *, until_end: bool) -> None:
    fields = message.fields
    if "transfer-encoding" in fields:
        message.framing = "chunked"
        message.whole = False
        while True:
            size, line_end, rest = rest.partition(b"\r\n")
            if not line_end:
                return
            length = int(size.partition(b";")[0], 16)
            if not length:
                break
            message.body += rest[:length]
            rest = rest[length + 2 :]
        message.whole = rest.endswith(b"\r\n")
        message.trailers = parse_fields(rest)
    elif "content-length" in fields:
        message.framing = "length"
        length = int(fields["content-length"][0])
        message.body = rest[:length]
        message.whole = len(message.body) == length
    elif until_end:
        message.framing, message.body = "end", rest
