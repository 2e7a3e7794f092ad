"""The rules of the switch: offers, legal 101s, and when to close."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from trio_upgrade import Headers, Offers
from trio_upgrade._http.switching import (
    advertise,
    connect_fields,
    expects_anything,
    expects_continue,
    find_offers,
    find_switch_defect,
    must_close,
    offer_fields,
    switch_fields,
    tunnel_fields,
)

CONNECTION = (b"Connection", b"Upgrade")
INJECTIONS = ["a\r\nEvil: 1", "a\n", "a\r", "a\0"]


def upgrade(value: bytes) -> tuple[bytes, bytes]:
    return (b"Upgrade", value)


class TestFindOffers:
    """The protocols that a request offers."""

    @pytest.mark.ids("U01", "U12", "U25", "U28")
    @pytest.mark.parametrize(
        ("fields", "expected"),
        [
            ([CONNECTION, upgrade(b"echo")], ["echo"]),
            ([upgrade(b"echo"), CONNECTION], ["echo"]),
            ([(b"connection", b"UPGRADE"), (b"UPGRADE", b"Echo/1")], ["Echo/1"]),
            ([(b"Connection", b"keep-alive, Upgrade"), upgrade(b"a")], ["a"]),
            ([(b"Connection", b"te"), CONNECTION, upgrade(b"a")], ["a"]),
            ([CONNECTION, upgrade(b"b, a"), upgrade(b"c/1")], ["b", "a", "c/1"]),
            ([(b"Connection", b",, upgrade"), upgrade(b",a,,")], ["a"]),
            # A malformed element is left out, the others stay.
            ([CONNECTION, upgrade(b"a b, c, d/")], ["c"]),
            ([CONNECTION, upgrade(b"")], []),
            ([CONNECTION], []),
            ([], []),
        ],
    )
    def test_offers(
        self, fields: list[tuple[bytes, bytes]], expected: list[str]
    ) -> None:
        """The lines of Upgrade form one list, in order (RFC 9110 §7.8, §5.6.1)."""
        offers = find_offers("GET", "1.1", Headers([(b"Host", b"x"), *fields]))

        assert list(offers) == expected

    @pytest.mark.ids("U12", "U25")
    @pytest.mark.parametrize(
        "options",
        [
            None,
            b"",
            b"keep-alive",
            b"close",
            b"notupgrade",
            b"upgrade-insecure-requests",
            b"up grade",
            b'"upgrade"',
            b"upgrade;q=1",
        ],
    )
    def test_option_missing(self, options: bytes | None) -> None:
        """Upgrade without its connection option is ignored (RFC 9110 §7.6.1)."""
        connection = [] if options is None else [(b"Connection", options)]
        offers = find_offers("GET", "1.1", Headers([*connection, upgrade(b"echo")]))

        assert list(offers) == []

    @pytest.mark.ids("U13")
    @pytest.mark.parametrize("version", ["1.0", "0.9", "2.0"])
    def test_http_version(self, version: str) -> None:
        """An offer in another version than HTTP/1.1 is ignored (RFC 9110 §7.8)."""
        headers = Headers([CONNECTION, upgrade(b"echo")])

        assert list(find_offers("GET", version, headers)) == []

    @pytest.mark.parametrize(
        ("method", "expected"),
        [
            ("CONNECT", []),
            ("GET", ["echo"]),
            ("POST", ["echo"]),
            ("OPTIONS", ["echo"]),
            ("connect", ["echo"]),
        ],
    )
    def test_method(self, method: str, expected: list[str]) -> None:
        """Any method but CONNECT may offer (RFC 9110 §7.8, §9.3.6)."""
        headers = Headers([CONNECTION, upgrade(b"echo")])

        assert list(find_offers(method, "1.1", headers)) == expected


class TestOfferFields:
    """The fields of a client's offer."""

    @pytest.mark.ids("U01", "U12", "U21", "go#36381")
    @pytest.mark.parametrize(
        ("protocols", "headers", "expected"),
        [
            (["echo"], {}, [CONNECTION, upgrade(b"echo")]),
            (["b", "A/1"], (), [CONNECTION, upgrade(b"b, A/1")]),
            (
                ["a"],
                [("Cookie", "1"), ("X", "2"), ("Cookie", "3")],
                [
                    CONNECTION,
                    upgrade(b"a"),
                    (b"Cookie", b"1"),
                    (b"X", b"2"),
                    (b"Cookie", b"3"),
                ],
            ),
            (
                ["a"],
                [("TE", "trailers"), ("connection", "TE, close"), ("CONNECTION", "X")],
                [
                    (b"Connection", b"Upgrade, TE, close, X"),
                    upgrade(b"a"),
                    (b"TE", b"trailers"),
                ],
            ),
            (
                ["a"],
                {"Connection": "upgrade, , keep-alive"},
                [(b"Connection", b"upgrade, keep-alive"), upgrade(b"a")],
            ),
            (["a"], {"Connection": ""}, [CONNECTION, upgrade(b"a")]),
        ],
    )
    def test_fields(self, protocols, headers, expected) -> None:
        """Upgrade has its option, and the user's options are kept (RFC 9110 §7.8)."""
        assert offer_fields(protocols, headers) == expected

    @pytest.mark.parametrize(
        "name",
        [
            "transfer-encoding",
            "Upgrade",
            "Keep-Alive",
            "PROXY-CONNECTION",
        ],
    )
    def test_forbidden(self, name: str) -> None:
        """Fields of framing and of the switch are refused; the error names the field."""
        with pytest.raises(ValueError, match=f"^{name} is written by the library"):
            offer_fields(["a"], {name: "1"})

    @pytest.mark.ids("U29", "CVE-2026-1527", "CVE-2022-31150")
    @pytest.mark.parametrize("text", INJECTIONS)
    def test_injection(self, text: str) -> None:
        """Nothing is injected by a protocol, name, value or option (RFC 9110 §5.5)."""
        with pytest.raises(ValueError, match="not a protocol"):
            offer_fields([text], {})
        with pytest.raises(ValueError, match="not a token"):
            offer_fields(["a"], {text: "1"})
        with pytest.raises(ValueError, match="X-Field: control characters"):
            offer_fields(["a"], {"X-Field": text})
        with pytest.raises(ValueError, match="Connection: control characters"):
            offer_fields(["a"], {"Connection": text})

    def test_malformed_option(self) -> None:
        """A connection option must be a token (RFC 9110 §7.6.1)."""
        with pytest.raises(ValueError, match="not a token: 'a b'"):
            offer_fields(["a"], {"Connection": "close, a b"})


class TestSwitchFields:
    """The fields of the 101 that our server sends."""

    @pytest.mark.ids("U04", "U12")
    @pytest.mark.parametrize(
        ("protocol", "headers", "expected"),
        [
            ("echo", {}, [CONNECTION, upgrade(b"echo")]),
            ("Foo/2B", (), [CONNECTION, upgrade(b"Foo/2B")]),
            (
                "a",
                [("Sec-A", "1"), ("Set-Cookie", "b"), ("Set-Cookie", "c")],
                [
                    CONNECTION,
                    upgrade(b"a"),
                    (b"Sec-A", b"1"),
                    (b"Set-Cookie", b"b"),
                    (b"Set-Cookie", b"c"),
                ],
            ),
        ],
    )
    def test_fields(self, protocol, headers, expected) -> None:
        """A 101 has the new protocol and the Upgrade option (RFC 9110 §7.8)."""
        assert list(switch_fields(protocol, headers)) == expected

    @pytest.mark.ids("U21", "U34")
    @pytest.mark.parametrize(
        "name",
        [
            "Content-Length",
            "Transfer-Encoding",
            "Connection",
            "Upgrade",
            "Keep-Alive",
            "Proxy-Connection",
            "te",
        ],
    )
    def test_forbidden(self, name: str) -> None:
        """A 101 has no length and no other hop-by-hop field (RFC 9110 §8.6, §7.6.1)."""
        with pytest.raises(ValueError, match=f"^{name} is written by the library"):
            switch_fields("a", {name: "1"})

    @pytest.mark.ids("U04", "U29", "CVE-2026-1527")
    @pytest.mark.parametrize("text", [*INJECTIONS, "", "a, b", "a/"])
    def test_bad_protocol(self, text: str) -> None:
        """A 101 switches to exactly one well-formed protocol."""
        with pytest.raises(ValueError, match="not a protocol"):
            switch_fields(text, {})

    @pytest.mark.ids("U29")
    @pytest.mark.parametrize("text", INJECTIONS)
    def test_injection(self, text: str) -> None:
        """Nothing is injected by a field's name or value (RFC 9110 §5.5)."""
        with pytest.raises(ValueError, match="not a token"):
            switch_fields("a", {text: "1"})
        with pytest.raises(ValueError, match="X-Field: control characters"):
            switch_fields("a", {"X-Field": text})


class TestTunnelFields:
    """The fields of the 200 that opens a tunnel."""

    def test_fields(self) -> None:
        """The fields of the app are unchanged, and none is needed (RFC 9110 §9.3.6)."""
        assert tunnel_fields({}) == ()
        assert tunnel_fields([("Via", "x"), (b"via", b"y")]) == (
            (b"Via", b"x"),
            (b"via", b"y"),
        )

    @pytest.mark.ids("U34")
    @pytest.mark.parametrize(
        "name",
        [
            "Content-Length",
            "Transfer-Encoding",
            "Connection",
            "Keep-Alive",
            "Proxy-Connection",
            "TE",
            "upgrade",
        ],
    )
    def test_forbidden(self, name: str) -> None:
        """A 2xx to CONNECT has no length and no hop-by-hop field (RFC 9110 §8.6)."""
        with pytest.raises(ValueError, match=f"^{name} is written by the library"):
            tunnel_fields({name: "1"})


class TestConnectFields:
    """The fields of a client's CONNECT."""

    @pytest.mark.ids("C08")
    def test_fields(self) -> None:
        """Host is the authority and comes first, others follow (RFC 9112 §3.2.3)."""
        given = [("Proxy-Authorization", "Basic x"), ("Connection", "close")]

        assert connect_fields("[::1]:22", given) == [
            (b"Host", b"[::1]:22"),
            (b"Proxy-Authorization", b"Basic x"),
            (b"Connection", b"close"),
        ]

    @pytest.mark.parametrize(
        "name", ["Content-Length", "transfer-encoding", "Upgrade", "HOST", "Expect"]
    )
    def test_forbidden(self, name: str) -> None:
        """A CONNECT has no content, no offer and no other Host (RFC 9110 §9.3.6)."""
        with pytest.raises(ValueError, match=f"^{name} is written by the library"):
            connect_fields("a:1", {name: "1"})


class TestAdvertise:
    """The Upgrade field of a response that does not switch."""

    @pytest.mark.ids("U08", "U09", "U12")
    @pytest.mark.parametrize(
        ("fields", "added"),
        [
            ((), ()),
            (((b"Connection", b"close"),), ()),
            ((upgrade(b"a"),), (CONNECTION,)),
            (((b"UPGRADE", b"a"), (b"Connection", b"close")), (CONNECTION,)),
            ((upgrade(b"a"), (b"Connection", b"close, UPGRADE")), ()),
            ((upgrade(b"a"), (b"Connection", b"te"), (b"connection", b"upgrade")), ()),
        ],
    )
    def test_fields(self, fields, added) -> None:
        """The Upgrade option is added if it is missing (RFC 9110 §7.8)."""
        assert advertise(fields) == fields + added


class TestFindSwitchDefect:
    """The defects that make a 101 illegal."""

    OFFERS = Offers(["Echo", "foo/1A", "bar"])

    @pytest.mark.ids("U03", "U05", "U12", "U25", "U28")
    @pytest.mark.parametrize(
        "fields",
        [
            [CONNECTION, upgrade(b"Echo")],
            [upgrade(b"ECHO"), (b"connection", b"upgrade")],
            [CONNECTION, upgrade(b"FOO/1A")],
            [(b"Connection", b"keep-alive,,UPGRADE"), upgrade(b", bar,")],
            [(b"Connection", b"close"), CONNECTION, upgrade(b"bar")],
            # Several layers may change, lowest first (RFC 9110 §7.8).
            [CONNECTION, upgrade(b"bar, echo")],
            [CONNECTION, upgrade(b"bar"), upgrade(b"echo")],
        ],
    )
    def test_legal(self, fields: list[tuple[bytes, bytes]]) -> None:
        """A 101 is legal if it names only offers, and the option (RFC 9110 §7.8)."""
        assert find_switch_defect(self.OFFERS, "1.1", Headers(fields)) is None

    @pytest.mark.ids("U04", "U06", "U12", "CVE-2026-43974", "CVE-2026-59898")
    @pytest.mark.parametrize(
        ("fields", "defect"),
        [
            ([CONNECTION], "it has no Upgrade field"),
            ([CONNECTION, upgrade(b"")], "it has no Upgrade field"),
            ([CONNECTION, upgrade(b" ,\t,")], "it has no Upgrade field"),
            ([CONNECTION, upgrade(b"a b")], "its Upgrade field is malformed: 'a b'"),
            (
                [CONNECTION, upgrade(b"echo"), upgrade(b"bar/")],
                "its Upgrade field is malformed: 'echo, bar/'",
            ),
            (
                [CONNECTION, upgrade(b"h2c")],
                "it switches to 'h2c', which was not offered",
            ),
            (
                [CONNECTION, upgrade(b"echo, H2c/1")],
                "it switches to 'H2c/1', which was not offered",
            ),
            (
                [CONNECTION, upgrade(b"foo")],
                "it switches to 'foo', which was not offered",
            ),
            (
                [CONNECTION, upgrade(b"foo/1a")],
                "it switches to 'foo/1a', which was not offered",
            ),
            (
                [CONNECTION, upgrade(b"bar/1")],
                "it switches to 'bar/1', which was not offered",
            ),
            ([upgrade(b"bar")], "its Connection field does not name Upgrade"),
            (
                [(b"Connection", b"close"), upgrade(b"bar")],
                "its Connection field does not name Upgrade",
            ),
            (
                [(b"Connection", b"notupgrade"), upgrade(b"bar")],
                "its Connection field does not name Upgrade",
            ),
        ],
    )
    def test_illegal(self, fields: list[tuple[bytes, bytes]], defect: str) -> None:
        """Each defect is reported as a short clause (RFC 9110 §7.8, §15.2.2)."""
        assert find_switch_defect(self.OFFERS, "1.1", Headers(fields)) == defect

    @pytest.mark.ids("U06", "CVE-2026-43974")
    def test_not_asked_for(self) -> None:
        """A 101 to a request without an offer is illegal (RFC 9110 §7.8)."""
        headers = Headers([CONNECTION, upgrade(b"echo")])

        assert find_switch_defect(Offers(), "1.1", headers) == (
            "the request asked for no switch"
        )

    @pytest.mark.ids("U13", "U17")
    @pytest.mark.parametrize("version", ["1.0", "0.9"])
    def test_http_version(self, version: str) -> None:
        """A 101 in HTTP/1.0 is illegal: it has no 1xx (RFC 9110 §15.2)."""
        headers = Headers([CONNECTION, upgrade(b"echo")])

        assert find_switch_defect(self.OFFERS, version, headers) == (
            f"it is HTTP/{version}"
        )

    @pytest.mark.parametrize(
        ("fields", "strict", "tolerant"),
        [
            ([], False, True),
            ([CONNECTION], True, True),
            ([(b"connection", b"keep-alive, upgrade")], True, True),
            ([(b"Connection", b"close")], False, False),
            ([(b"connection", b"keep-alive")], False, False),
            ([(b"Connection", b"")], False, False),
        ],
    )
    def test_tolerance(
        self, fields: list[tuple[bytes, bytes]], strict: bool, tolerant: bool
    ) -> None:
        """A missing Connection field can be tolerated, a wrong one cannot."""
        for tolerate, legal in ((False, strict), (True, tolerant)):
            headers = Headers([upgrade(b"echo"), *fields])
            defect = find_switch_defect(
                self.OFFERS, "1.1", headers, tolerate_missing_connection=tolerate
            )
            expected = None if legal else "its Connection field does not name Upgrade"
            assert defect == expected

    @pytest.mark.parametrize(
        "fields", [[], [upgrade(b"other")], [upgrade(b"e cho")], [upgrade(b"")]]
    )
    def test_tolerance_of_nothing_else(self, fields) -> None:
        """The tolerance changes no other rule (RFC 9110 §7.8)."""
        defects = {
            find_switch_defect(
                self.OFFERS,
                "1.1",
                Headers(fields),
                tolerate_missing_connection=tolerate,
            )
            for tolerate in (False, True)
        }
        assert len(defects) == 1
        assert None not in defects

    @given(
        st.lists(
            st.tuples(
                st.sampled_from([b"Upgrade", b"Connection"]),
                st.binary() | st.sampled_from([b"upgrade", b"echo", b"bar"]),
            )
        )
    )
    def test_arbitrary_bytes(self, fields: list[tuple[bytes, bytes]]) -> None:
        """Any bytes are accepted, and a legal 101 names only offered protocols."""
        headers = Headers(fields)
        defect = find_switch_defect(self.OFFERS, "1.1", headers)
        named = find_offers("GET", "1.1", headers)

        assert defect is None or defect
        if defect is None:
            assert named
            assert all(protocol in self.OFFERS for protocol in named)

    @pytest.mark.ids("U04", "U06")
    @pytest.mark.parametrize("protocol", ["echo", "FOO/1A", "Bar"])
    def test_our_own(self, protocol: str) -> None:
        """Our client accepts our server's 101, and our server our client's offer."""
        offered = find_offers("GET", "1.1", Headers(offer_fields([protocol], {})))
        switch = Headers(switch_fields(protocol, {}))

        assert list(offered) == [protocol]
        assert find_switch_defect(offered, "1.1", switch) is None


class TestExpectsContinue:
    """Expect: 100-continue."""

    @pytest.mark.ids("U15", "U28", "U31")
    @pytest.mark.parametrize(
        ("version", "lines", "expected"),
        [
            ("1.1", [b"100-continue"], True),
            ("1.1", [b"100-Continue"], True),
            ("1.1", [b", 100-continue ,"], True),
            ("1.1", [b"x=1", b"100-continue"], True),
            ("1.1", [], False),
            ("1.1", [b""], False),
            ("1.1", [b"100-continued"], False),
            ("1.1", [b"100"], False),
            ("1.0", [b"100-continue"], False),
        ],
    )
    def test_expectation(
        self, version: str, lines: list[bytes], expected: bool
    ) -> None:
        """It compares without case, and is ignored in HTTP/1.0 (RFC 9110 §10.1.1)."""
        headers = Headers([(b"Expect", line) for line in lines])

        assert expects_continue(version, headers) is expected

    @pytest.mark.parametrize(
        ("fields", "expected"),
        [
            ([], False),
            ([(b"Expect", b"100-continue")], True),
            ([(b"EXPECT", b", x")], True),
            ([(b"Expect", b""), (b"expect", b" ,")], False),
            ([(b"X-Expect", b"100-continue")], False),
        ],
    )
    def test_of_our_own(
        self, fields: list[tuple[bytes, bytes]], expected: bool
    ) -> None:
        """Our client waits for any expectation that it sends (RFC 9110 §10.1.1)."""
        assert expects_anything(fields) is expected


class TestMustClose:
    """Whether a final response ends the connection."""

    @pytest.mark.ids("M10", "RFC9931")
    @pytest.mark.parametrize(
        ("method", "client_waits", "unread", "expected"),
        [
            ("GET", False, 0, False),
            ("POST", False, 1, False),
            ("POST", False, 10, False),
            ("POST", False, 11, True),
            ("POST", False, None, False),
            ("POST", True, 0, False),
            ("POST", True, 1, True),
            ("POST", True, None, True),
            ("POST", True, 11, True),
            ("CONNECT", False, 0, True),
            ("CONNECT", False, None, True),
            ("connect", False, 0, False),
        ],
    )
    def test_table(
        self, method: str, client_waits: bool, unread: int | None, expected: bool
    ) -> None:
        """A body too long to drain, or a CONNECT, closes (RFC 9112 §9.3, RFC 9931 §8)."""
        closes = must_close(
            method, client_waits=client_waits, unread=unread, drain_body=10
        )

        assert closes is expected
