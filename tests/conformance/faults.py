# Faults that were found by replaying public reports and by using the library as a new
# user would: one row for each kind of fault, with what is right.  The
# page docs/topics/conformance.md shows the rows with the tests that bear their ids; the
# tests stand where the mended code is tested.
from __future__ import annotations

from typing import NamedTuple


class Fault(NamedTuple):
    """A row: the situation, and what we do in it."""

    given: str
    right: str


FAULTS = {
    "F1": Fault(
        "a peer of another protocol greets, and waits: SSH, SMTP, RFB, HTTP/2",
        "`BadResponse` at the first byte that no HTTP/1.x status line can have there; a "
        "prefix of a status line waits",
    ),
    "F2": Fault(
        "TLS 1.3: the server refuses our certificate after the handshake",
        "`TLSFailed` with the name of the alert, as in TLS 1.2",
    ),
    "F3": Fault(
        "a mistake in the call: port 0, a method, a body, a field, a list of protocols",
        "`ValueError` or `TypeError` that says what was wanted, before anything is "
        "opened",
    ),
    "F4": Fault(
        "a 1xx with framing fields, malformed or contradictory ones too",
        "they are ignored (RFC 9112 §6.3)",
    ),
    "F5": Fault(
        "a Host field of the caller's that is no authority",
        "`ValueError`, by the same check as the server's",
    ),
    "F6": Fault(
        "a refusal whose body does not end, inside a scope with a deadline",
        "the refusal is raised before the deadline",
    ),
    "F7": Fault(
        "a 408, or an end, on an idle kept connection",
        "`PeerGone` that says so, with `request_sent` False; nothing is taken for an "
        "answer",
    ),
    "F8": Fault(
        "a Unix path, a name, a proxy that cannot be reached",
        "the error names it",
    ),
    "F9": Fault(
        "`no_proxy` with networks, blanks, trailing dots, other spellings of addresses; "
        "`socks://`",
        "read as curl reads them, but for the differences that the docs name; errors "
        "name the variable",
    ),
    "F10": Fault(
        "an IPv6 address with a zone",
        "dialled with the zone, which is not in the Host field",
    ),
    "F11": Fault(
        "a response of up to 1,000 fields",
        "accepted within `header_bytes`; the message names the limit",
    ),
    "F12": Fault(
        "a certificate for another name than the URL's host",
        "`server_hostname` names it",
    ),
    "F13": Fault(
        "`send_eof` over TLS; a half-closed connection that `pipe` or `relay` passes on "
        "into TLS",
        "our close_notify, and reading goes on; a copy sends it when both directions are "
        "over, or at once with `tls_ends`: peers that stop at it give their late answer",
    ),
    "F14": Fault(
        "control characters from the wire in a message",
        "escaped; a refusal says who refused, and with which words",
    ),
    "F20": Fault(
        "a drain begins while requests are in the kernel: on idle or new connections, or "
        "in the backlog",
        "they are answered, the last one of each connection with `Connection: close`; "
        "offers get a 503",
    ),
    "F21": Fault(
        "a cancellation, or the end of a grace, cuts a handler, a tunnel, a client's "
        "block, or both ends of a proxy",
        "a reset by the owner of the stream, and over TLS no close_notify, unless "
        "`send_eof` had returned: see [ends](ends.md); `stream_scope` for other streams",
    ),
    "F22": Fault(
        "a server at its descriptor limit, or in a chroot, when its first answer is due",
        "nothing is imported after `task_status.started`: every answer comes",
    ),
    "F23": Fault(
        "two servers start over one stale Unix socket file at once",
        "one listens, the other gets EADDRINUSE",
    ),
    "F24": Fault(
        "a client whose Unix socket has a name with line ends, escapes or no UTF-8",
        "the log writes peers by `ascii()`: one line, and no record is lost",
    ),
    "F25": Fault(
        "an absolute target whose scheme is https or wss in clear text, or another one",
        "421, and 400; `request.scheme` is the transport's, and our client sends a proxy "
        "http for ws, https for wss",
    ),
    "F26": Fault(
        "a middleware that changes the fields or the reason of an answer; a second "
        "Content-Length",
        "answers are immutable; `with_headers()` makes another one, checked as the first",
    ),
    "F27": Fault(
        "a Content-Length or a chunk size of 2^63 and more, or one that is no number",
        "400 at once; `BadResponse` or `BadBody` in the client",
    ),
    "F28": Fault(
        "a reason phrase with HTAB, or with octets above 0x7F",
        "sent as it is, as Latin-1; a control or a character above U+00FF is a "
        "`ValueError` that names it",
    ),
    "F29": Fault(
        "a str body without a Content-Type, opened in a browser",
        "it is sent as `text/plain; charset=utf-8`",
    ),
    "F30": Fault(
        "a stream of the user's on top of TCP or TLS, given to `serve_stream`",
        "its `transport_stream` is followed: it has a peer and a scheme, and is reset",
    ),
    "F31": Fault(
        "`wait_disconnect()` beside a read or a switch, in many tasks, or outliving its "
        "request",
        "one receive serves all; it is False after the answer or the switch, and takes "
        "no bytes of what follows",
    ),
    "F32": Fault(
        "an app that returns None because its client is gone",
        "no bug: nothing is logged, the reason is `LOST`; while the client is there it "
        "is a 500",
    ),
    "F33": Fault(
        "a handler whose peer sends bad data",
        "`stream.reset()` ends the connection by a reset, and nothing is logged",
    ),
    "F34": Fault(
        "a header section that is refused, a TLS handshake that fails, an answer that is "
        "cut",
        "a record with status, bytes, seconds and cause for every answer on the wire; "
        "counts by class; the reason and cause of each end",
    ),
    "F35": Fault(
        "many early bytes, then an upgraded connection that is idle for long",
        'the stream drops its copy once they were read: `head` is then `b""`',
    ),
    "F36": Fault(
        "an unread body in tiny chunks",
        "its framing counts as drained, and the chunks of one receive are one piece",
    ),
    "F37": Fault(
        "content in a 204, 205 or 304",
        "`ValueError` when the response is made",
    ),
    "F38": Fault(
        "`body=request.stream()` of a request without a body, also with an offer",
        "no body is sent; `request.has_body` tells it",
    ),
    "F39": Fault(
        "a mistake in a call: of `Response`, of `Limits`, of a `serve_*` function, of a "
        "copy; `help(Limits)`",
        "`TypeError` or `ValueError` at the call that says what is wanted and was given; "
        "each limit is described",
    ),
    "F40": Fault(
        "a raw octet in the request line, a PROXY protocol header, a CONNECT without "
        "Host",
        "400, whose text names the octet and its place, or what the bytes look like",
    ),
    "F41": Fault(
        "the grace ends, and thousands of upgraded connections with it",
        "each socket is closed once and without an exception of its own",
    ),
    "F42": Fault(
        "thousands of deadlines are due at the same moment",
        "they expire in batches, between which other connections are served",
    ),
    "F43": Fault(
        "`serve_listeners` with Trio's own `SocketListener`",
        "its socket is accepted from in batches; the object given stays usable",
    ),
    "F44": Fault(
        "more connections than `Limits.connections`",
        "they wait; one line in the log, and `statistics().waiting`",
    ),
    "F45": Fault(
        "one of several workers is stopped under load",
        "every connection that it has accepted, or has in its backlog, is answered",
    ),
}
