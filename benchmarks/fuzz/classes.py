"""The requests that one server accepts and another does not, class by class.

Servers may be strict in different ways: a request that only one of two servers takes is
no danger, as the other ends the connection. But each such class has to be known, so it is
in the table below with the reason for it; one that is not makes the fuzz fail. A class is
named by the server that refuses, and by the words with which it does: ours says in its
answer what is wrong, Node has a code for it, nginx writes it into its log.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from .exchange import CLOSED, CUT, ENDED, EXPECTATION, WITHOUT_HEAD
from .servers import NGINX, NODE, OURS


class Class(NamedTuple):
    """A class of requests that one server refuses while another accepts them.

    Attributes:
        server: The server that refuses.
        words: A regular expression that all of its words have to match.
        reason: Why this difference is right, or at least no danger.
    """

    server: str
    words: str
    reason: str


CLASSES = [
    # Ours: stricter than the others where two readers could differ.
    Class(
        OURS, "400 a bare CR or LF in the message head", "RFC 9112 §2.2 permits both"
    ),
    Class(OURS, "400 a control character in the message head", "RFC 9110 §5.5"),
    Class(OURS, "400 a folded field line", "RFC 9112 §5.2: refused or unfolded"),
    Class(OURS, "400 the request line .*", "RFC 9112 §3: the grammar"),
    Class(OURS, "400 illegal header line", "RFC 9112 §5: the grammar"),
    Class(OURS, "400 (the name in )?field line [0-9]+ .*", "RFC 9112 §5: the grammar"),
    Class(
        OURS, "400 no HTTP message begins with octet .*", "one blank line is skipped"
    ),
    Class(OURS, "400 a TLS .*", "no HTTP at all"),
    Class(OURS, "400 no Host field.*", "RFC 9112 §3.2: 400 is a MUST"),
    Class(OURS, "400 more than one Host field", "RFC 9112 §3.2: 400 is a MUST"),
    Class(OURS, "400 a malformed Host field: .*", "RFC 9112 §3.2: 400 is a MUST"),
    Class(OURS, "400 the request target is malformed: .*", "RFC 9112 §3.2: the forms"),
    Class(OURS, "400 the target's scheme must .*", "no server for that scheme"),
    Class(OURS, "421 .*", "RFC 9110 §7.4: not a server for that scheme"),
    Class(OURS, "400 .* closed connection without .*", "the end came within a body"),
    Class(OURS, "400 both Content-Length and Transfer-Encoding", "RFC 9112 §6.1"),
    Class(OURS, "400 more than one Content-Length", "RFC 9112 §6.3 permits both"),
    Class(OURS, "400 .*Content-Length.*", "RFC 9112 §6.3: the grammar of a length"),
    Class(OURS, "400 a transfer coding in HTTP/1.0", "RFC 9112 §6.1: faulty framing"),
    Class(OURS, "400 chunked is not the last transfer coding.*", "RFC 9112 §6.3"),
    Class(OURS, "501 a transfer coding other than chunked", "RFC 9112 §6.1: SHOULD"),
    Class(OURS, "501 .*Transfer-Encoding.*", "RFC 9112 §6.1: an empty line of it"),
    Class(OURS, "400 .*chunk.*", "RFC 9112 §7.1: the grammar of chunks"),
    Class(OURS, "400 .*trailer.*", "RFC 9112 §7.1.2: the grammar of fields"),
    Class(OURS, "400 a CONNECT has no content", "RFC 9110 §9.3.6: no meaning"),
    Class(OURS, "400 HTTP/1.[0-9]+ is not supported", "there is no HTTP/1.2"),
    Class(OURS, "505 HTTP/[0-9.]+ is not supported", "RFC 9110 §15.6.6"),
    Class(OURS, "413 the body is longer than .*", "a length over Limits.body_bytes"),
    Class(OURS, "417 an unknown expectation", "RFC 9110 §10.1.1: 417 is permitted"),
    Class(OURS, "[45][0-9]{2}", "a refusal of HEAD has no text"),
    Class(
        OURS, CLOSED, "HTTP/1.0, a refused CONNECT (RFC 9931 §8), close and keep-alive"
    ),
    # Node: knows fewer methods; stricter in few things.
    Class(NODE, "400 HPE_INVALID_METHOD", "llhttp has a list of methods"),
    Class(NODE, "400 HPE_INVALID_CONSTANT", "llhttp has a list of methods"),
    Class(NODE, "400 HPE_INVALID_VERSION", "as ours; nginx takes any HTTP/1.x"),
    Class(NODE, "400 HPE_INVALID_URL", "octets that it does not take in targets"),
    Class(NODE, "400 HPE_INVALID_HEADER_TOKEN", "as ours; nginx drops such fields"),
    Class(NODE, "400 HPE_(CR|LF)_EXPECTED", "as ours; nginx takes a bare LF"),
    Class(NODE, "400 HPE_STRICT", "as ours; nginx takes a bare LF"),
    Class(
        NODE, "400 HPE_INVALID_CONTENT_LENGTH", "no tab after a length; trailers, too"
    ),
    Class(NODE, "400 HPE_UNEXPECTED_CONTENT_LENGTH", "in trailers, too"),
    Class(NODE, "400 HPE_INVALID_TRANSFER_ENCODING", "in trailers, too"),
    Class(NODE, "400 HPE_INVALID_CHUNK_SIZE", "no tab after the size of a chunk"),
    Class(NODE, "400 HPE_INVALID_EOF_STATE", "the end came within a request"),
    Class(NODE, "400 HPE_CLOSED_CONNECTION", "data after a request that says close"),
    Class(NODE, f"417( {EXPECTATION})?", "as ours; nginx ignores other expectations"),
    Class(NODE, CLOSED, "close and keep-alive together; HTTP/1.0"),
    Class(
        NODE, ENDED, "loses requests after an ignored offer: docs/topics/node.md, S13"
    ),
    Class(NODE, CUT, "the end came within a request, or before its answer"),
    # nginx: a proxy, with opinions of its own.
    Class(
        NGINX, "400 client sent invalid host header", "an empty Host, odd characters"
    ),
    Class(
        NGINX, "400 client sent duplicate host header", "as ours; Node takes the first"
    ),
    Class(NGINX, "400 client sent duplicate header line", "two equal fields of a kind"),
    Class(NGINX, "400 client sent invalid method", "upper case, _ and - only"),
    Class(
        NGINX, "400 client sent invalid request", "OPTIONS * with a proxy; its grammar"
    ),
    Class(NGINX, '400 client sent invalid "Content-Length" header', "its grammar"),
    Class(
        NGINX, "400 client sent invalid host in request line", "its grammar of hosts"
    ),
    Class(NGINX, "400 client sent HTTP/1.1 request without .*", "as ours: no Host"),
    Class(NGINX, "400 client sent HTTP/1.0 request with .*", "as ours: chunked in 1.0"),
    Class(NGINX, '400 client sent "Content-Length" and .*', "as ours: both framings"),
    Class(NGINX, "400 client sent invalid header line", "a bare CR, or a NUL"),
    Class(NGINX, "400 client sent invalid chunked body", "no tab or extension as ours"),
    Class(NGINX, "405 client sent (TRACE|CONNECT) method", "not done by a proxy"),
    Class(NGINX, '501 client sent unknown "Transfer-Encoding"', "an empty one, too"),
    Class(NGINX, "505 client sent invalid version", "as ours"),
    Class(NGINX, WITHOUT_HEAD, "taken for HTTP/0.9"),
    Class(NGINX, "4[0-9]{2}", "without a word in the log"),
    Class(NGINX, CLOSED, "HTTP/1.0, close and keep-alive together"),
    Class(NGINX, CUT, "the end came within a request"),
]


def find_class(server: str, words: str) -> Class | None:
    """Return the first class that a refusal belongs to; None if it is not listed."""
    for listed in CLASSES:
        if listed.server == server and re.fullmatch(listed.words, words):
            return listed
    return None
