# Checks the framing lines of a chunked body before h11 gets them.  h11 stays the
# parser: this module only refuses lines that h11 accepts and RFC 9112 §7.1 does not
# allow, such as a bare CR in a chunk extension, or a trailer line that ends in a bare
# LF or is folded. Request smuggling needs two readers that understand such a line
# differently.
#
# "Chunk header" means the line before the data of a chunk: its size and its extensions.
# The guard follows the body through three states: in a chunk header, in the data of a
# chunk (which it skips), in the trailer section after the last chunk.
from __future__ import annotations

from typing import final

from .._errors import BadBody
from .framing import parse_length
from .head_syntax import has_controls

# A chunk header of up to 16 bytes is normal, even before a chunk of one byte.
_NORMAL_HEADER_BYTES = 16


@final
class ChunkGuard:
    """Checks the framing lines of one chunked body.

    Args:
        line_bytes: The longest chunk header, and the longest trailer section, in bytes.
        trailer_fields: The largest number of trailer fields.
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
        # How much of the chunk's data is still to come, including the CRLF after it.
        self._data_left = 0
        # The part of a framing line that has been received.
        self._line = b""
        # The length of the trailer section so far; None before the last chunk.
        self._trailer_bytes: int | None = None
        self._trailer_lines = 0
        # How many bytes the chunk headers have beyond what their data justifies
        # (CVE-2023-39326).
        self._excess = 0
        self._ended = False
        # The first error.  After it the lines cannot be told from the data any more.
        self._fault: str | None = None

    def check(self, data: bytes) -> None:
        """Check the bytes that h11 is about to get.

        Bytes after the end of the body are ignored.

        Raises:
            BadBody: A line breaks RFC 9112 §7.1 or a limit, in this call or in an earlier
                one.
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
        digits, extension, _ = line[:-2].partition(b";")
        if not extension:
            # h11 and others accept blanks before the line's end.
            digits = digits.rstrip(b" \t")
        try:
            size = parse_length(digits, 16)
        except ValueError as exc:
            raise BadBody(f"a chunk size that {exc}") from None
        excess = len(line) - _NORMAL_HEADER_BYTES - size
        self._excess = max(0, self._excess + excess)
        if self._excess > self._line_bytes:
            raise BadBody("chunk headers far longer than the chunk data")
        if size == 0:
            self._trailer_bytes = 0
        else:
            self._data_left = size + 2

    def _check_trailer(self, line: bytes) -> None:
        assert self._trailer_bytes is not None
        if line == b"\r\n":
            self._ended = True
            return
        self._trailer_bytes += len(line)
        self._trailer_lines += 1
        if line.startswith((b" ", b"\t")):
            raise BadBody("a folded trailer line")
        if self._trailer_lines > self._trailer_fields:
            raise BadBody(f"more than {self._trailer_fields} trailers (header_fields)")
        if self._trailer_bytes > self._line_bytes:
            raise BadBody("a trailer section that is too long")
