# The rules for an HTTP/1.1 server, client or recipient that can switch: one row for each
# rule, with what we do.  docs/topics/conformance.md is made from this and from the
# marks of the tests.
from __future__ import annotations

from typing import NamedTuple

# The letters of the roles in the table.
ROLES = {
    "S": "server",
    "C": "client",
    "I": "intermediary",
    "R": "recipient",
    "X": "sender",
    "all": "every role",
}


class Requirement(NamedTuple):
    """A row: where the rule is, for which role, its level, and what we do."""

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
        "9110 §7.8", "S", "MAY", "an offer that the app ignores is an ordinary request"
    ),
    "U03": _row(
        "9110 §7.8", "R", "SHOULD", "names compare without case, versions exactly"
    ),
    "U04": _row(
        "9110 §7.8, §15.2.2",
        "S, R",
        "MUST",
        "a 101 names its protocol; the client refuses one that does not",
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
    "U07": _row("9110 §7.8", "S", "MAY", "the app can accept any of the offers"),
    "U08": _row(
        "9110 §7.8, §15.5.22",
        "S",
        "MUST",
        "a 426 names what is required; without it Response raises ValueError",
    ),
    "U09": _row(
        "9110 §7.8",
        "S, C",
        "MAY",
        "any response can advertise; only a 101 switches",
    ),
    "U10": _row(
        "9110 §7.8", "S", "desc", "the handler gets the request that it must answer"
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
        "sends the option with every Upgrade field, and ignores a field without it",
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
        "an expected 100 is sent before the 101, an unexpected one never",
    ),
    "U16": _row(
        "9110 §7.8",
        "all",
        "desc",
        "the switch applies to this connection, from the next byte on",
    ),
    "U17": _row("9110 §15.2", "S", "MUST NOT", "HTTP/1.0 gets final responses only"),
    "U18": _row(
        "9110 §15.2, 9112 §6.3",
        "R",
        "desc",
        "a 1xx ends at its blank line, whatever its framing fields",
    ),
    "U19": _row(
        "9110 §15.2",
        "C",
        "MUST",
        "accepts up to `Limits.informational` 1xx and keeps them with the answer",
    ),
    "U20": _row(
        "9110 §15.2",
        "I",
        "MUST",
        "passes on each 1xx as it comes; a 100 only where the upstream sends one",
    ),
    "U21": _row(
        "9110 §7.6.1",
        "X",
        "MUST",
        "the library sends the connection fields; the user's options are kept",
    ),
    "U22": _row(
        "9110 §7.6.1",
        "I",
        "MUST",
        "drops the fields that Connection names, then Connection",
    ),
    "U23": _row(
        "9110 §7.6.1", "I", "SHOULD", "drops the known hop-by-hop fields unnamed"
    ),
    "U24": _row(
        "9110 §7.6.1",
        "X",
        "MUST NOT",
        "sends no other options than Upgrade and close",
    ),
    "U25": _row(
        "9110 §7.6.1",
        "R",
        "desc",
        "options compare without case; Upgrade without its option is ignored",
    ),
    "U26": _row(
        "9110 §7.6",
        "I",
        "MUST",
        "obeys Connection; a request whose Via has its name gets 508",
    ),
    "U27": _row(
        "9110 §7.6.3",
        "I",
        "MUST",
        "adds Via: a proxy to both messages, a gateway to requests",
    ),
    "U28": _row(
        "9110 §5.6.1",
        "X, R",
        "MUST (NOT)",
        "lines form one list; empty elements are skipped and never sent",
    ),
    "U29": _row(
        "9110 §5.5",
        "R, X",
        "MUST",
        "control characters are refused, from the peer and from the user",
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
        "the 100 is sent when the app reads; ignored in HTTP/1.0; others: 417",
    ),
    "U32": _row(
        "9110 §10.1.1", "S", "MAY", "no 100 once the body is coming, or without one"
    ),
    "U33": _row(
        "9110 §10.1.1",
        "I",
        "MUST",
        "passes the expectation on, and the final status before the body",
    ),
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
        "only a 2xx opens a tunnel, right after its blank line",
    ),
    "C04": _row(
        "9110 §9.3.6",
        "I",
        "MUST",
        "delivers what the closed side has sent, then closes both",
    ),
    "C05": _row(
        "9110 §9.3.6",
        "I",
        "SHOULD",
        "two ports and public addresses, unless the user allows more",
    ),
    "C06": _row(
        "9110 §9.3.6, 9112 §6.3",
        "C",
        "MUST",
        "framing fields of a 2xx to CONNECT are ignored",
    ),
    "C07": _row(
        "9110 §9.3.6", "S, C", "desc", "content on CONNECT is a 400; none is sent"
    ),
    "C08": _row(
        "9112 §3.2.3",
        "C",
        "MUST",
        "only connect() sends a CONNECT, with host:port as target",
    ),
    "C09": _row(
        "9110 §15.5.8, §11.7",
        "I",
        "MUST",
        "a 407 has its challenge; credentials for the proxy stay there",
    ),
    "M01": _row(
        "9112 §3.2",
        "C, S",
        "MUST",
        "sends Host first; no Host, two or a malformed one: 400",
    ),
    "M02": _row(
        "9112 §2.2",
        "C",
        "MUST NOT",
        "protocol data comes right after the last byte of the body",
    ),
    "M03": _row(
        "9112 §2.2",
        "S",
        "SHOULD",
        "skips one blank line; TLS, HTTP/2 and noise get an error in HTTP/1.1",
    ),
    "M04": _row(
        "9112 §2.2, §5.1",
        "S",
        "MUST",
        "a bare CR or LF, a fold, a blank before the colon: 400",
    ),
    "M05": _row("9112 §2.3", "I", "MUST", "writes HTTP/1.1, whatever the peers speak"),
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
        "bad length, chunk or last coding: 400, close; codings before chunked: 501",
    ),
    "M08": _row(
        "9112 §9.2",
        "C",
        "MUST NOT",
        "bytes that answer no request close the connection",
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
        "drains `Limits.drain_body` bytes at most, else closes; answers are read first",
    ),
    "M11": _row(
        "9112 §9.3",
        "I",
        "MUST NOT",
        "ends the connection of an HTTP/1.0 client after one answer",
    ),
    "M12": _row(
        "9112 §9.6", "C", "MUST (NOT)", "no request after a close, of either side"
    ),
    "M13": _row(
        "9112 §9.6",
        "S",
        "MUST (NOT)",
        "answers, closes, and processes nothing after a close",
    ),
    "M14": _row(
        "9112 §9.6",
        "S, C",
        "desc",
        "half-closes, reads to the peer's end, closes",
    ),
    "M15": _row("9112 §9.8", "C, S", "MUST", "ends TLS by a closure alert"),
    "M16": _row(
        "9112 §9.5",
        "S, C",
        "SHOULD",
        "waits `Limits.linger` for the peer's end, and notices it",
    ),
    "M17": _row(
        "9112 §3.2.2",
        "S",
        "MUST",
        "accepts absolute targets, whose authority overrides Host",
    ),
    "M18": _row(
        "9112 §9.3", "S", "MUST", "the last response has close, a 101 never has"
    ),
    "O01": _row(
        "9931 §8", "C", "MUST", "the tunnel's stream exists only after the 2xx"
    ),
    "O02": _row(
        "9931 §8", "S", "MUST", "any answer to CONNECT other than a tunnel closes"
    ),
    "O03": _row("9931 §8", "S", "MAY", "not used: all clients are treated alike"),
    "O05": _row("9931 §5", "S", "desc", "a refused offer keeps the connection"),
}

# Of RFC 6455, for trio_upgrade.websocket.  They have no mutants: most of the code that
# keeps them is that of the websockets library.
WEBSOCKET = {
    "W01": _row(
        "6455 §4.1",
        "C",
        "MUST",
        "offers by GET, HTTP/1.1, Host, both fields, a fresh key and version 13",
    ),
    "W02": _row(
        "6455 §4.1", "C", "MUST", "sends nothing more before the answer; TLS with SNI"
    ),
    "W03": _row(
        "6455 §4.1",
        "C",
        "MUST",
        "refuses a 101 with another Upgrade, Connection or Accept, or with an extension "
        "or a subprotocol that was not offered; another status is HTTP",
    ),
    "W04": _row(
        "6455 §4.2.1",
        "S",
        "MUST",
        "a handshake that breaks the grammar gets 400 or 426",
    ),
    "W05": _row(
        "6455 §4.2.2, §4.4",
        "S",
        "MUST",
        "another version gets 426 with Sec-WebSocket-Version, an unwanted Origin 403",
    ),
    "W06": _row(
        "6455 §4.2.2",
        "S",
        "MUST",
        "the 101 has Upgrade, Connection and Accept; subprotocol and extensions come "
        "from the offer",
    ),
    "W07": _row(
        "6455 §5.1",
        "S, C",
        "MUST",
        "frames of a client have masks, those of a server none; else 1002",
    ),
    "W08": _row(
        "6455 §10.2", "S", "SHOULD", "`origins` checks Origin: 403 for all others"
    ),
}
