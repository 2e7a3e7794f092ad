# Cases with which Node.js 20, 24 and 26 were tested, and what we do.  docs/topics/node.md
# is made from this and from the marks of all tests.
from __future__ import annotations

from typing import NamedTuple


class Case(NamedTuple):
    """A row.

    Attributes:
        given: What is received; UP is an offer of echo, 101 the legal answer.
        ours: What we do.
        node: What Node does instead; empty if it does the same.
        why_untested: Why the row cannot have a test.
    """

    given: str
    ours: str
    node: str = ""
    why_untested: str = ""


CASES = {
    "S1": Case(
        "UP and bytes in one packet",
        "the bytes are first in the stream; `head` shows them",
        "they are only in `head`: a pipe from the socket never gets them",
    ),
    "S2": Case("UP, then bytes one by one", "the same stream; `head` may be empty"),
    "S3": Case(
        "UP and 300,000 bytes",
        "`head` has what one receive returned: 64 KiB, including UP",
    ),
    "S4": Case(
        "half an offer: one field, a wrong option, an empty list", "an ordinary request"
    ),
    "S5": Case("options and names in any case, order and number of lines", "an offer"),
    "S6": Case("`Connection: close, upgrade`", "an offer; the close is ignored"),
    "S7": Case("two Upgrade lines", "one list, in order, in `request.upgrades`"),
    "S8": Case(
        "the offer in HTTP/1.0, 0.9, 2.0",
        "1.0: no offer; other major versions: 505",
        "switches",
    ),
    "S9": Case("an offer without Host, or with two", "400", "switches"),
    "S10": Case(
        "`Expect: 100-continue` beside the offer; another expectation",
        "100, then 101; 417",
        "never sends the 100; ignores the other",
    ),
    "S11": Case(
        "POST offer with a length, then bytes",
        "the body is the request's, the bytes the stream's",
        "before 26 the body is stream data",
    ),
    "S12": Case(
        "the same, chunked with trailers",
        "the same",
        "before 26 the chunk framing is stream data",
    ),
    "S13": Case(
        "a refused offer and the next request in one packet",
        "both are answered, in order, also after a body",
        "the second request is lost",
    ),
    "S14": Case(
        "a slow GET, then UP and bytes",
        "the response, then the 101, then the bytes",
        "101 first, and the response lands in the upgraded stream",
    ),
    "S15": Case("a slow POST with its body, then UP", "as S14", "as S14"),
    "S16": Case(
        "a GET with `Connection: close`, then UP",
        "the response, then the end",
        "the response is lost, a bare 400 comes",
    ),
    "S17": Case(
        "a GET, then UP, on a connection limited to one request",
        "the response with `Connection: close`, then the end",
        "the offer is accepted anyway",
    ),
    "S18": Case(
        "length with coding, two lengths, NUL, blank before the colon, fold, bare LF, "
        "HTTP/1.2",
        "400, close",
    ),
    "S19": Case(
        "an offer with `Transfer-Encoding: gzip`",
        "400 (501 before chunked), close",
        "switches; the body is stream data",
    ),
    "S20": Case(
        "an offer whose body is cut by an end or a reset",
        "the body's reader raises; 400, no 101",
        "the body's reader waits for ever",
    ),
    "S21": Case(
        "an offer whose body stalls",
        "no 101 before its end, no HTTP after a 101",
        "may write a 408 after the 101",
    ),
    "S22": Case(
        "an offer with garbled chunks",
        "the body's reader raises; 400, no 101",
        "hangs without an error",
    ),
    "S23": Case("an offer whose body is not read", "it is dropped, then the 101"),
    "S24": Case(
        "CONNECT to an app that has no tunnels",
        "a response, then the end",
        "closes without a word",
    ),
    "S25": Case("CONNECT with content", "400, close", "the content is tunnel data"),
    "S26": Case("CONNECT with upgrade fields", "a CONNECT; it offers nothing"),
    "S27": Case("the HTTP/2 preface", "505, close", "closes"),
    "S28": Case(
        "an offer that the app ignores, for example h2c",
        "an ordinary request, its body with it",
        "waits for ever if there is an `upgrade` listener",
    ),
    "S29": Case("a request head that stalls", "408 exactly at `Limits.header_timeout`"),
    "S30": Case(
        "a request head over the limits", "431, or 414 within the target; close"
    ),
    "S31": Case("a switched connection that idles", "stays open"),
    "S32": Case("UP, then the end", "101, echo, our end"),
    "S33": Case(
        "UP, bytes and the end, a handler that reads late",
        "the bytes, then the end, at any time",
        "the bytes are lost, perhaps the process with them",
    ),
    "S34": Case("UP, a handler that reads late, bytes meanwhile", "nothing is lost"),
    "S35": Case(
        "a handler that does nothing, then the client's end",
        "closed when the handler returns",
        "the socket leaks",
    ),
    "S36": Case(
        "a handler that does nothing, then a reset",
        "that connection ends",
        "the process dies",
    ),
    "S37": Case("a flood that the handler does not read", "the client waits"),
    "S38": Case(
        "a refusal with a text", "any response; the connection goes on", "always closes"
    ),
    "S39": Case(
        "a listener that is added during a request",
        "one app serves from the start",
        "it misses the first offer",
        "there are no listeners to add",
    ),
    "S40": Case(
        "an app that writes a 101 by itself",
        "impossible: the stream comes from the switch only",
        "a 408 comes into the stream later",
    ),
    "S41": Case("HTTP again on a switched stream", "`serve_stream` takes the stream"),
    "S42": Case(
        "blank lines before the request", "one is skipped, two are a 400", "skips any"
    ),
    "S43": Case(
        "offers with HEAD, OPTIONS *, POST, PUT", "offers; the app sees the method"
    ),
    "C1": Case("101 and bytes, then more", "one stream; `head` shows the first"),
    "C2": Case("the same, cut anywhere", "the same stream"),
    "C3": Case(
        "101 to a request that made no offer",
        "`IllegalSwitch`, closed",
        "the socket is destroyed without an error",
    ),
    "C4": Case("the same, with an `upgrade` listener", "the same", "switches"),
    "C5": Case("101 to a protocol not offered", "`IllegalSwitch`, closed", "switches"),
    "C6": Case("`HTTP/1.0 101`", "`IllegalSwitch`, closed", "switches"),
    "C7": Case(
        "101 without Upgrade or its option",
        "`IllegalSwitch`, closed; a missing option can be tolerated",
        "an ordinary response, and the connection is used again",
    ),
    "C8": Case("101 with a length or a coding", "accepted; the fields are ignored"),
    "C9": Case("100, 103, then 101", "accepted; the first two are in `informational`"),
    "C10": Case("200, 403, 426 instead", "`UpgradeRefused` with the response"),
    "C11": Case("200 that advertises", "`UpgradeRefused` with the response"),
    "C12": Case(
        "a response and a 101 in one packet",
        "the response; then the connection is closed",
        "before 24 both",
    ),
    "C13": Case("two 101s", "the second is stream data"),
    "C14": Case("an end or a reset before the answer is complete", "`PeerGone`"),
    "C15": Case(
        "101, then the end",
        "end of stream; our direction stays open",
        "ends our direction, too",
    ),
    "C16": Case(
        "101, then a reset",
        "raises in the reader",
        "ends the process if there is no listener",
    ),
    "C17": Case(
        "no answer, and a timeout",
        "cancelled, closed at once",
        "an event; goes on waiting",
    ),
    "C18": Case(
        "101 in the middle of the request's body",
        "`IllegalSwitch`, closed",
        "switches; the rest of the body is lost",
    ),
    "C19": Case(
        "the request is cancelled after its 101",
        "the scope closes the stream",
        "nothing happens to it",
    ),
    "C20": Case(
        "CONNECT: 407 with a text",
        "`TunnelRefused` with the response",
        "a tunnel, the text in `head`",
    ),
    "C21": Case(
        "CONNECT: 100, then 200",
        "the tunnel; the 100 is in `informational`",
        "a tunnel at the 100, the 200 in `head`",
    ),
    "C22": Case("CONNECT: 200 with a length", "the tunnel; the length is ignored"),
    "C23": Case(
        "CONNECT: 200, no listener",
        "cannot happen",
        "the socket is destroyed",
        "the caller waits for it",
    ),
    "C24": Case("no HTTP, or a response head over the limit", "`BadResponse`"),
    "C25": Case("a status line without a reason", "accepted"),
    "C26": Case("an offer on a used connection", "switches as on a new one"),
    "C27": Case(
        "a switch while requests wait for a connection of a pool",
        "there is no pool",
        "",
        "there is no pool",
    ),
}
# Node fails in these; a test must show that we do not.
BETTER_THAN_NODE = (
    *(
        "S1",
        "S8",
        "S9",
        "S10",
        "S13",
        "S14",
        "S15",
        "S16",
        "S19",
        "S20",
        "S21",
        "S22",
        "S24",
    ),
    *("S28", "S33", "S35", "S36", "S40"),
    *("C3", "C4", "C5", "C6", "C7", "C18", "C20", "C21"),
)
