# Faults that were found by replaying public reports and by using the library as a new
# user would: one row for each kind of fault, with what is right.  docs/conformance.md
# shows the rows with the tests that bear their ids; the tests stand where the mended code
# is tested.
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
    "F14": Fault(
        "control characters from the wire in a message",
        "escaped; a refusal says who refused, and with which words",
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
}
