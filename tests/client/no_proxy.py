# The forms of no_proxy, for two tests: one of our function, and one beside curl, which
# reads the differences to curl below.
from __future__ import annotations

from typing import NamedTuple


class Form(NamedTuple):
    """One value of no_proxy, one URL, and whether the URL is dialled directly."""

    no_proxy: str
    url: str
    direct: bool


def _forms(direct: bool, *forms: tuple[str, str]) -> list[Form]:
    return [Form(no_proxy, f"http://{host}/", direct) for no_proxy, host in forms]


FORMS = [
    *_forms(
        True,
        # Names, and the names below them.
        ("example.com", "example.com"),
        ("example.com", "EXAMPLE.com"),
        ("EXAMPLE.com", "example.com"),
        ("example.com", "www.example.com"),
        ("example.com", "a.b.example.com"),
        ("example.com", "example.com:8080"),
        (".example.com", "example.com"),
        (".example.com", "www.example.com"),
        ("*.example.com", "www.example.com"),
        ("*.example.com", "example.com"),
        ("example.com.", "example.com"),
        (".example.com.", "www.example.com"),
        ("example.com", "example.com."),
        ("example.com", "www.example.com."),
        ("example.com.", "example.com."),
        ("com", "example.com"),
        ("localhost", "localhost"),
        ("xn--bcher-kva.example", "b\xfccher.example"),
        ("B\xfccher.example", "xn--bcher-kva.example"),
        # Lists.
        ("*", "example.com"),
        ("*", "192.0.2.1"),
        ("*", "[2001:db8::1]"),
        ("a.example,*", "example.com"),
        ("a.example,example.com", "example.com"),
        (" a.example , example.com ", "example.com"),
        ("a.example,,example.com", "example.com"),
        (",example.com,", "example.com"),
        ("a.example example.com", "example.com"),
        ("a.example\texample.com", "example.com"),
        ("a.example\nexample.com", "example.com"),
        # Addresses.
        ("192.0.2.1", "192.0.2.1"),
        ("192.0.2.1", "192.0.2.1:81"),
        ("192.0.2.1", "192.0.2.1."),
        ("127.0.0.1", "127.1"),
        ("127.0.0.1", "0x7f000001"),
        ("127.1", "127.0.0.1"),
        ("a.example,192.0.2.1", "192.0.2.1"),
        ("2001:db8::1", "[2001:db8::1]"),
        ("2001:DB8:0:0::1", "[2001:db8::1]"),
        ("2001:db8:0:0:0:0:0:1", "[2001:db8::1]"),
        ("2001:db8::192.0.2.1", "[2001:db8::c000:201]"),
        ("[2001:db8::1]", "[2001:db8::1]"),
        ("::1", "[0:0::1]"),
        ("::", "[::]"),
        ("fe80::1", "[fe80::1%25lo]"),
        ("fe80::1%lo", "[fe80::1%25lo]"),
        ("192.0.2.1", "[::ffff:192.0.2.1]"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        # Networks.
        ("10.0.0.0/8", "10.10.20.1"),
        ("10.20.30.40/8", "10.10.20.1"),
        ("172.16.0.0/12", "172.31.255.255"),
        ("192.0.2.1/32", "192.0.2.1"),
        ("0.0.0.0/0", "192.0.2.1"),
        ("a.example 10.0.0.0/8", "10.10.20.1"),
        ("a.example,10.0.0.0/8", "10.10.20.1"),
        ("10.0.0.0/8", "[::ffff:10.0.0.1]"),
        ("fd00::/8", "[fd12:3456::1]"),
        ("FD00::1/8", "[fd12:3456::1]"),
        ("[fd00::]/8", "[fd12:3456::1]"),
        ("[fd00::/8]", "[fd12:3456::1]"),
        ("fc00::/7", "[fd12:3456::1]"),
        ("2001:db8::1/128", "[2001:db8::1]"),
        ("::/0", "[2001:db8::1]"),
        # Ports.
        ("example.com:80", "example.com"),
        ("example.com:81", "www.example.com:81"),
        ("*.example.com:81", "example.com:81"),
        ("192.0.2.1:81", "192.0.2.1:81"),
        ("[2001:db8::1]:81", "[2001:db8::1]:81"),
        ("*:81", "example.com:81"),
    ),
    *_forms(
        False,
        ("", "example.com"),
        (" , ", "example.com"),
        (".", "example.com"),
        ("*.", "example.com"),
        (":80", "example.com"),
        ("example.com", "notexample.com"),
        (".example.com", "notexample.com"),
        ("*.example.com", "notexample.com"),
        ("*example.com", "www.example.com"),
        ("e*mple.com", "example.com"),
        ("example.com", "example.org"),
        ("www.example.com", "example.com"),
        ("example.com..", "example.com"),
        ("..example.com", "example.com"),
        ("example", "example.com"),
        ("http://example.com", "example.com"),
        ("example.com/", "example.com"),
        ("[example.com]", "example.com"),
        ("\u2100.example", "c.example"),
        ("a.example;example.com", "example.com"),
        # An address is no suffix, and neither is a name.
        ("20.1", "10.10.20.1"),
        (".20.1", "10.10.20.1"),
        ("*.20.1", "10.10.20.1"),
        ("10.", "10.10.20.1"),
        ("20.1", "20.0.2.1"),
        ("192.0.2.1", "192.0.2.11"),
        ("2.1", "192.0.2.1"),
        ("0.0.1", "a.0.0.1.example"),
        ("2001:db8::1", "[2001:db8::2]"),
        ("db8::1", "[2001:db8::1]"),
        ("::1", "example.com"),
        ("127.0.0.1", "localhost"),
        ("192.0.2.1", "[2001:db8::1]"),
        ("1:2", "[::1:2]"),
        ("[::1", "[::1]"),
        # Networks.
        ("10.0.0.0/8", "11.0.0.1"),
        ("172.16.0.0/12", "172.32.0.1"),
        ("10.0.0.0/8", "example.com"),
        ("10.0.0.0/8", "[fd00::1]"),
        ("10.0.0.0/33", "10.0.0.0"),
        ("10.0.0.0/x", "10.0.0.0"),
        ("10.0.0.0/255.0.0.0", "10.0.0.1"),
        ("10.0.0.0/-8", "10.0.0.0"),
        ("10.0.0.0/8:80", "10.0.0.1"),
        ("10/8", "10.0.0.1"),
        ("example.com/8", "example.com"),
        ("fd00::/8", "[fe80::1]"),
        ("fd00::/129", "[fd00::]"),
        ("fd00::/8", "10.0.0.1"),
        ("::/0", "192.0.2.1"),
        ("::ffff:10.0.0.0/104", "[::ffff:10.0.0.1]"),
        ("0.0.0.0/0", "[2001:db8::1]"),
        # Ports.
        ("example.com:81", "example.com"),
        ("example.com:80", "example.com:81"),
        ("example.com:", "example.com"),
        ("example.com:080x", "example.com"),
        ("example.com:000080", "example.com"),
        ("192.0.2.1:81", "192.0.2.1"),
        ("[2001:db8::1]:81", "[2001:db8::1]"),
        ("2001:db8::1:81", "[2001:db8::1]:81"),
        ("*:81", "example.com"),
    ),
]

_ASTERISK = "curl takes an asterisk only alone; Go reads both forms as we do"
_IDNA = "curl does not encode names in no_proxy"
_SPELLING = "curl takes one spelling of an IPv4 address in no_proxy"
_BRACKETS = "curl takes no brackets in no_proxy"
_ZONE = "curl takes no zone in no_proxy"
_MAPPED = (
    "for curl an IPv4-mapped address is not the IPv4 address; for the kernel it is"
)
_ALL = "curl takes /0 for a single address"
_PORT = "curl takes no port in no_proxy; urllib and Go do"
# The forms in which curl decides otherwise, each with the reason.
DIFFERENT_IN_CURL = {
    ("*.example.com", "http://www.example.com/"): _ASTERISK,
    ("*.example.com", "http://example.com/"): _ASTERISK,
    ("a.example,*", "http://example.com/"): _ASTERISK,
    ("B\xfccher.example", "http://xn--bcher-kva.example/"): _IDNA,
    ("127.1", "http://127.0.0.1/"): _SPELLING,
    ("[2001:db8::1]", "http://[2001:db8::1]/"): _BRACKETS,
    ("[fd00::]/8", "http://[fd12:3456::1]/"): _BRACKETS,
    ("[fd00::/8]", "http://[fd12:3456::1]/"): _BRACKETS,
    ("fe80::1%lo", "http://[fe80::1%25lo]/"): _ZONE,
    ("192.0.2.1", "http://[::ffff:192.0.2.1]/"): _MAPPED,
    ("::ffff:192.0.2.1", "http://192.0.2.1/"): _MAPPED,
    ("10.0.0.0/8", "http://[::ffff:10.0.0.1]/"): _MAPPED,
    ("::ffff:10.0.0.0/104", "http://[::ffff:10.0.0.1]/"): _MAPPED,
    ("0.0.0.0/0", "http://192.0.2.1/"): _ALL,
    ("::/0", "http://[2001:db8::1]/"): _ALL,
    ("example.com:80", "http://example.com/"): _PORT,
    ("example.com:81", "http://www.example.com:81/"): _PORT,
    ("*.example.com:81", "http://example.com:81/"): _PORT,
    ("192.0.2.1:81", "http://192.0.2.1:81/"): _PORT,
    ("[2001:db8::1]:81", "http://[2001:db8::1]:81/"): _PORT,
    ("*:81", "http://example.com:81/"): _PORT,
}
_BLANKS = "newer versions stop at a blank that is not beside a comma"
_BUILD = "only some builds encode the host of a URL"
_BITS = "older versions compare the last bits of an IPv6 network wrongly"
_NUMBER = "older versions take the digits at the beginning, or 0"
# The forms in which versions of curl >= 8 differ from each other, each with the reason.
VARYING_IN_CURL = {
    ("a.example example.com", "http://example.com/"): _BLANKS,
    ("a.example\texample.com", "http://example.com/"): _BLANKS,
    ("a.example\nexample.com", "http://example.com/"): _BLANKS,
    ("a.example 10.0.0.0/8", "http://10.10.20.1/"): _BLANKS,
    ("xn--bcher-kva.example", "http://b\xfccher.example/"): _BUILD,
    ("fc00::/7", "http://[fd12:3456::1]/"): _BITS,
    ("10.0.0.0/x", "http://10.0.0.0/"): _NUMBER,
    ("10.0.0.0/8:80", "http://10.0.0.1/"): _NUMBER,
}
