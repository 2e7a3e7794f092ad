# The framing of a chunked body, walked beside h11.  h11 is the parser; this only looks
# at the lines it lets through although RFC 9112 §7.1 does not: a CR within a chunk
# extension, a trailer line that ends in LF alone or is folded.  Two readers that see
# such a line differently are what request smuggling is made of.
from __future__ import annotations

from typing import final

from .._errors import BadBody
from .head_syntax import has_controls

# A chunk header of so many bytes is nothing to talk about, whatever the chunk's size.
_FAIR_LINE = 16


@final
class ChunkGuard:
    """Checks the framing lines of one chunked body.

    Args:
        line_bytes: The longest chunk header, and the longest trailer section.
        trailer_fields: The most trailer fields.
    """

    __slots__ = (
        "_data_left",
        "_ended",
        "_excess",
        "_fault",
        "_line",
        "_line_bytes",
        "_trailer_bytes",
        "_trailer_fields",
        "_trailer_lines",
    )

    def __init__(self, line_bytes: int, trailer_fields: int) -> None:
        self._line_bytes = line_bytes
        self._trailer_fields = trailer_fields
        # What is left of a chunk's data, its CRLF counted in.
        self._data_left = 0
        # The part of a line that has come so far.
        self._line = b""
        # Of the trailer section; None before the last chunk.
        self._trailer_bytes: int | None = None
        self._trailer_lines = 0
        # Framing beyond what the data that came with it accounts for (CVE-2023-39326).
        self._excess = 0
        self._ended = False
        # What was wrong: behind it nobody knows any more what is a line.
        self._fault: str | None = None

    def check(self, data: bytes) -> None:
        """Check what h11 is about to get; what is behind the body's end is passed over.

        Raises:
            BadBody: A line breaks RFC 9112 §7.1, or a bound; now or in an earlier call.
        """
        if self._fault is not None:
            raise BadBody(self._fault)
        try:
            self._walk(data)
        except BadBody as exc:
            self._fault = str(exc)
            raise

    def _walk(self, data: bytes) -> None:
        position = 0
        while position < len(data) and not self._ended:
            if self._data_left:
                step = min(self._data_left, len(data) - position)
                self._data_left -= step
                position += step
                continue
            end = data.find(b"\n", position) + 1
            self._line += data[position : end or len(data)]
            if len(self._line) > self._line_bytes:
                raise BadBody("a chunk header or a trailer that is too long")
            if not end:
                return
            line, self._line = self._line, b""
            position = end
            self._check_line(line)

    def _check_line(self, line: bytes) -> None:
        if not line.endswith(b"\r\n") or has_controls(line[:-2]):
            raise BadBody("a chunk header or a trailer with a control character")
        if self._trailer_bytes is not None:
            self._check_trailer(line)
            return
        try:
            size = int(line.partition(b";")[0], 16)
        except ValueError:
            raise BadBody("a chunk header without a size") from None
        beyond = len(line) - _FAIR_LINE - max(0, size)
        self._excess = max(0, self._excess + beyond)
        if self._excess > self._line_bytes:
            raise BadBody("chunk headers out of all proportion")
        if size == 0:
            self._trailer_bytes = 0
        else:
            # Of one below zero h11 says that it is none.
            self._data_left = max(0, size) + 2

    def _check_trailer(self, line: bytes) -> None:
        assert self._trailer_bytes is not None
        if line == b"\r\n":
            self._ended = True
            return
        self._trailer_bytes += len(line)
        self._trailer_lines += 1
        if line.startswith((b" ", b"\t")):
            raise BadBody("a folded trailer line")
        if (
            self._trailer_bytes > self._line_bytes
            or self._trailer_lines > self._trailer_fields
        ):
            raise BadBody("a trailer section that is too long")
