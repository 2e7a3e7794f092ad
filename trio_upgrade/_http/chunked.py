# Decodes a chunked body (RFC 9112 §7.1).  Not h11: it accepts lines that the RFC does not
# allow, such as a bare CR in a chunk extension, or a trailer line that ends in a bare LF
# or is folded, and request smuggling needs two readers that understand such a line
# differently.  Nor could it join chunks: a body in chunks of one byte would cost an event
# and a checkpoint for each byte.  h11 still parses the trailer section, and ends the
# message.
#
# "Chunk header" means the line before the data of a chunk: its size and its extensions.
# The decoder follows the body through four states: in a chunk header, in the data of a
# chunk, in the CRLF after the data, in the trailer section after the last chunk.
from __future__ import annotations

from typing import final

from .._errors import BadBody
from .framing import parse_length
from .head_syntax import has_controls

# A chunk header of up to 16 bytes is normal, even before a chunk of one byte.
_NORMAL_HEADER_BYTES = 16


@final
class ChunkDecoder:
    """Decodes one chunked body.

    Args:
        line_bytes: The longest chunk header, and the longest trailer section, in bytes.
        trailer_fields: The largest number of trailer fields.

    Attributes:
        framing_bytes: How many bytes were received that are not data: chunk headers, the
            line end after each chunk, the trailer section.
    """

    __slots__ = (
        "_data_left",
        "_ended",
        "_excess",
        "_fault",
        "_in_data",
        "_line",
        "_line_bytes",
        "_trailer_bytes",
        "_trailer_fields",
        "_trailer_lines",
        "framing_bytes",
    )

    def __init__(self, line_bytes: int, trailer_fields: int) -> None:
        self._line_bytes = line_bytes
        self._trailer_fields = trailer_fields
        # Whether a chunk has begun whose CRLF has not come, and how much of its data is
        # still to come.
        self._in_data = False
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
        self.framing_bytes: int = 0
        # The first error.  After it the lines cannot be told from the data any more.
        self._fault: str | None = None

    def decode(self, received: bytes) -> tuple[bytes, bytes]:
        """Decode the bytes of one receive.

        Returns:
            The data of all its chunks, joined; and bytes for h11: the last chunk, the
            trailer section line by line, and then all that follows the body.

        Raises:
            BadBody: A line breaks RFC 9112 §7.1 or a limit. Data before that line is
                returned first, and the next call raises; so does every later one.
        """
        pieces: list[bytes] = []
        tail: list[bytes] = []
        if self._fault is None:
            try:
                size = self._walk(received, pieces, tail)
            except BadBody as exc:
                self._fault = str(exc)
            else:
                # Of one piece, the usual case, join() makes no copy.
                data = b"".join(pieces)
                self.framing_bytes += size - len(data)
                return data, b"".join(tail)
        if not pieces:
            raise BadBody(self._fault)
        return b"".join(pieces), b""

    def _walk(self, received: bytes, pieces: list[bytes], tail: list[bytes]) -> int:
        # Returns how many of the bytes belong to the body.
        position, size = 0, len(received)
        while position < size and not self._ended:
            if self._data_left:
                piece = received[position : position + self._data_left]
                pieces.append(piece)
                position += len(piece)
                self._data_left -= len(piece)
                if received.startswith(b"\r\n", position):
                    self._in_data = False
                    position += 2
                continue
            end = received.find(b"\n", position) + 1
            line = self._line + received[position : end or size]
            position = end or size
            if self._in_data:
                if not b"\r\n".startswith(line):
                    raise BadBody("a chunk that does not end in CRLF")
            elif len(line) > self._line_bytes:
                raise BadBody("a chunk header or a trailer that is too long")
            if not end:
                self._line = line
                break
            self._line = b""
            if self._in_data:
                self._in_data = False
            elif self._trailer_bytes is not None:
                self._check_trailer(line)
                tail.append(line)
            elif not self._read_header(line):
                self._trailer_bytes = 0
                tail.append(b"0\r\n")
        if self._ended:
            tail.append(received[position:])
        return position

    def _read_header(self, line: bytes) -> int:
        # Returns the size of the chunk that begins.
        digits, extension, _ = line[:-2].partition(b";")
        if extension or line[-2:] != b"\r\n":
            _check_line(line)
        else:
            # h11 and others accept blanks before the line's end.
            digits = digits.rstrip(b" \t")
        try:
            size = parse_length(digits, 16)
        except ValueError as exc:
            _check_line(line)
            raise BadBody(f"a chunk size that {exc}") from None
        excess = self._excess + len(line) - _NORMAL_HEADER_BYTES - size
        self._excess = max(0, excess)
        if excess > self._line_bytes:
            raise BadBody("chunk headers far longer than the chunk data")
        self._data_left = size
        self._in_data = size > 0
        return size

    def _check_trailer(self, line: bytes) -> None:
        assert self._trailer_bytes is not None
        _check_line(line)
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


def _check_line(line: bytes) -> None:
    if not line.endswith(b"\r\n") or has_controls(line[:-2]):
        raise BadBody("a chunk header or a trailer with a control character")
