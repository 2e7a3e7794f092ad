# The rules for an HTTP/1.1 server, client or recipient that can switch: one row each, and
# what we do about it.  docs/conformance.md is made from this and from the tests' marks.
from __future__ import annotations

from typing import NamedTuple

# What a role's letter stands for in the table.
ROLES = {
    "S": "server",
    "C": "client",
    "I": "intermediary",
    "R": "recipient",
    "X": "sender",
    "all": "everybody",
}
# Rows of intermediaries, which a reverse proxy will have to keep; no test yet.
PROXY = "proxy"


class Requirement(NamedTuple):
    """A row: where the rule stands, whose it is, how strong, and what we do."""

    where: str
    role: str
    level: str
    clause: str


def _row(where: str, role: str, level: str, clause: str) -> Requirement:
    return Requirement(where, role, level, clause)


REQUIREMENTS = {
    "U01": _row(
        "9110 §7.8", "C", "MAY", "offers one or more protocols, in the caller's order"
    ),
    "U02": _row(
        "9110 §7.8", "S", "MAY", "an offer that the app leaves is an ordinary request"
    ),
    "U03": _row(
        "9110 §7.8", "R", "SHOULD", "names compare without case, versions exactly"
    ),
    "U04": _row(
        "9110 §7.8, §15.2.2",
        "S, R",
        "MUST",
        "a 101 names its protocol; the client takes none that does not",
    ),
    "U05": _row(
        "9110 §7.8",
        "X",
        "MUST",
        "the server switches one layer at a time; the client keeps a list's order",
    ),
    "U06": _row(
        "9110 §7.8",
        "S, R",
        "MUST NOT",
        "a protocol that was not offered gets 426; the client refuses such a 101",
    ),
    "U07": _row("9110 §7.8", "S", "MAY", "any of the offers can be taken"),
    "U08": _row(
        "9110 §7.8, §15.5.22",
        "S",
        "MUST",
        "a 426 names what is required; one without is a ValueError",
    ),
    "U09": _row(
        "9110 §7.8",
        "S, C",
        "MAY",
        "any response can advertise; only a 101 switches",
    ),
    "U10": _row(
        "9110 §7.8", "S", "desc", "the handler has the request that it has to answer"
    ),
    "U11": _row(
        "9110 §7.8",
        "S",
        "MUST NOT",
        "every method can offer; the app sees it and decides",
    ),
    "U12": _row(
        "9110 §7.8",
        "X",
        "MUST",
        "writes the option beside every Upgrade field, and counts none without it",
    ),
    "U13": _row(
        "9110 §7.8",
        "S, R",
        "MUST",
        "an HTTP/1.0 request offers nothing; a 1.0 answer switches nothing",
    ),
    "U14": _row(
        "9110 §7.8",
        "C",
        "desc",
        "sends the whole body first; a 101 before its end is illegal",
    ),
    "U15": _row(
        "9110 §7.8",
        "S",
        "MUST",
        "an expected 100 goes out before the 101, an unexpected never",
    ),
    "U16": _row(
        "9110 §7.8", "all", "desc", "the switch is of this connection, at the next byte"
    ),
    "U17": _row("9110 §15.2", "S", "MUST NOT", "HTTP/1.0 gets final responses only"),
    "U18": _row(
        "9110 §15.2, 9112 §6.3",
        "R",
        "desc",
        "a 1xx ends at its blank line, framing or not",
    ),
    "U19": _row(
        "9110 §15.2",
        "C",
        "MUST",
        "takes 1xx up to `Limits.informational` and keeps them with the answer",
    ),
    "U20": _row("9110 §15.2", "I", "MUST", PROXY),
    "U21": _row(
        "9110 §7.6.1",
        "X",
        "MUST",
        "connection fields are the library's; the user's options are kept beside ours",
    ),
    "U22": _row("9110 §7.6.1", "I", "MUST", PROXY),
    "U23": _row("9110 §7.6.1", "I", "SHOULD", PROXY),
    "U24": _row(
        "9110 §7.6.1",
        "X",
        "MUST NOT",
        "writes the options Upgrade and close, no others",
    ),
    "U25": _row(
        "9110 §7.6.1",
        "R",
        "desc",
        "options compare without case; Upgrade without its option is ignored",
    ),
    "U26": _row("9110 §7.6", "I", "MUST", PROXY),
    "U27": _row("9110 §7.6.3", "I", "MUST", PROXY),
    "U28": _row(
        "9110 §5.6.1",
        "X, R",
        "MUST (NOT)",
        "lines are one list and empty elements skipped; none is sent",
    ),
    "U29": _row(
        "9110 §5.5",
        "R, X",
        "MUST",
        "control characters are refused, in what comes and in what is given",
    ),
    "U30": _row(
        "9110 §10.1.1",
        "C",
        "MUST (NOT)",
        "no expectation without a body; waits `Limits.continue_timeout`, then sends",
    ),
    "U31": _row(
        "9110 §10.1.1",
        "S",
        "MUST",
        "the 100 goes out when the body is asked for; ignored from HTTP/1.0, else 417",
    ),
    "U32": _row(
        "9110 §10.1.1", "S", "MAY", "no 100 once the body is coming, or without one"
    ),
    "U33": _row("9110 §10.1.1", "I", "MUST", PROXY),
    "U34": _row(
        "9110 §8.6, 9112 §6.1",
        "S",
        "MUST NOT",
        "no length and no coding on 101, 204 or a tunnel's 2xx",
    ),
    "C01": _row("9110 §9.3.6", "C", "MUST", "a tunnel without a port is a ValueError"),
    "C02": _row(
        "9110 §9.3.6", "S", "MUST", "no port, or none between 1 and 65535: 400"
    ),
    "C03": _row(
        "9110 §9.3.6",
        "S, C",
        "desc",
        "2xx and nothing else opens a tunnel, behind its head",
    ),
    "C04": _row("9110 §9.3.6", "I", "MUST", PROXY),
    "C05": _row("9110 §9.3.6", "I", "SHOULD", PROXY),
    "C06": _row(
        "9110 §9.3.6, 9112 §6.3",
        "C",
        "MUST",
        "framing fields on a tunnel's 2xx frame nothing",
    ),
    "C07": _row(
        "9110 §9.3.6", "S, C", "desc", "content on CONNECT is a 400; none is sent"
    ),
    "C08": _row(
        "9112 §3.2.3",
        "C",
        "MUST",
        "CONNECT has host:port alone, and is no other request's",
    ),
    "C09": _row("9110 §15.5.8, §11.7", "I", "MUST", PROXY),
    "M01": _row(
        "9112 §3.2",
        "C, S",
        "MUST",
        "sends Host first; none, two or a malformed one are a 400",
    ),
    "M02": _row(
        "9112 §2.2",
        "C",
        "MUST NOT",
        "protocol data stand right behind the body's last byte",
    ),
    "M03": _row(
        "9112 §2.2",
        "S",
        "SHOULD",
        "skips one blank line; TLS, HTTP/2 and noise are refused in HTTP/1.1",
    ),
    "M04": _row(
        "9112 §2.2, §5.1",
        "S",
        "MUST",
        "CR or LF alone, a fold, a blank before the colon: 400",
    ),
    "M05": _row("9112 §2.3", "I", "MUST", PROXY),
    "M06": _row(
        "9112 §6.1",
        "S",
        "MUST",
        "length with coding, or a coding in HTTP/1.0: 400, close",
    ),
    "M07": _row(
        "9112 §6.3",
        "S",
        "MUST",
        "bad length, chunk or last coding: 400, close; codings below chunked: 501",
    ),
    "M08": _row(
        "9112 §9.2", "C", "MUST NOT", "bytes that answer nothing close the connection"
    ),
    "M09": _row(
        "9112 §9.2, §9.3.2",
        "C, S",
        "MUST",
        "one request at a time, so answers keep their order",
    ),
    "M10": _row(
        "9112 §9.3",
        "S, C",
        "MUST",
        "skips `Limits.drain_body` bytes at most, else closes; answers are read first",
    ),
    "M11": _row("9112 §9.3", "I", "MUST NOT", PROXY),
    "M12": _row(
        "9112 §9.6", "C", "MUST (NOT)", "no request behind a close, whoever said it"
    ),
    "M13": _row(
        "9112 §9.6", "S", "MUST (NOT)", "answers, closes, and processes nothing behind"
    ),
    "M14": _row(
        "9112 §9.6",
        "S, C",
        "desc",
        "ends its direction, reads to the peer's end, closes",
    ),
    "M15": _row("9112 §9.8", "C, S", "MUST", "ends TLS by a closure alert"),
    "M16": _row(
        "9112 §9.5",
        "S, C",
        "SHOULD",
        "waits `Limits.linger` for the end, and sees the peer's",
    ),
    "M17": _row(
        "9112 §3.2.2",
        "S",
        "MUST",
        "takes absolute targets, whose authority overrides Host",
    ),
    "M18": _row(
        "9112 §9.3", "S", "MUST", "the last response says close, a 101 never does"
    ),
    "O01": _row(
        "9931 §8", "C", "MUST", "the tunnel's stream exists only behind the 2xx"
    ),
    "O02": _row(
        "9931 §8", "S", "MUST", "whatever answers a CONNECT but a tunnel closes it"
    ),
    "O03": _row("9931 §8", "S", "MAY", "not used: every client is treated alike"),
    "O05": _row("9931 §5", "S", "desc", "a refused offer keeps the connection"),
}
