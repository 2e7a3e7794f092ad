# Requests as tests send them, and responses as our server sends them, byte for byte.
from __future__ import annotations

# A well-formed offer of "echo", and the 101 to it.
UP = b"GET /u HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n"
SWITCHED = (
    b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n"
)

# The Date of every response: conftest.py stops the clock of the tests at the epoch.
DATE = b"Date: Thu, 01 Jan 1970 00:00:00 GMT\r\n"

# The automatic refusal of a request that does not offer "echo".
REQUIRED = (
    b"HTTP/1.1 426 Upgrade Required\r\n"
    + DATE
    + b"Content-Type: text/plain; charset=utf-8\r\n"
    b"Upgrade: echo\r\nConnection: Upgrade\r\nContent-Length: 34\r\n\r\n"
    b"the request does not offer 'echo'\n"
)


def get(path: str, *fields: str) -> bytes:
    """Return a GET request with these field lines."""
    lines = [f"GET {path} HTTP/1.1", "Host: x", *fields, "", ""]
    return "\r\n".join(lines).encode()


def okay(body: bytes = b"okay", *fields: str, status: str = "200 OK") -> bytes:
    """Return a response as our server sends it, with these field lines after Date."""
    date = DATE.decode().strip()
    length = f"Content-Length: {len(body)}"
    lines = [f"HTTP/1.1 {status}", date, *fields, length, "", ""]
    return "\r\n".join(lines).encode() + body


def closing(response: bytes) -> bytes:
    """Return the same response with ``Connection: close`` as its last field."""
    return response.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n", 1)


# The field of a body that is a str, and the response to a bug of the app.
TEXT = "Content-Type: text/plain; charset=utf-8"
BUG = okay(b"Internal Server Error\n", TEXT, status="500 Internal Server Error")
