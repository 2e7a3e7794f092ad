"""Who the client is behind proxies: Forwarded (RFC 7239) and the fields before it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, cast

import pytest
import trio
from hypothesis import example, given, settings, strategies as st

from trio_upgrade import (
    Authority,
    Forwarded,
    Request,
    Response,
    TrustedPeers,
    forwarded,
    serve_stream,
)

from ..servers import run_script
from ..sockets import tcp_pair, unix_pair
from ..wire import get

if TYPE_CHECKING:
    from trio_upgrade import TrustedLike

# The proxies: the test's own end of a connection, and addresses in fields.
TRUSTED = TrustedPeers(["127.0.0.1", "10.0.0.0/8", "fd00::/8"])
CLIENT = ("192.0.2.43", 0)


async def ask(
    *fields: str, trusted: TrustedLike = TRUSTED, pair: Any = tcp_pair
) -> tuple[Forwarded, Any]:
    """Return what is found in a request with these fields, and its peer."""
    found = []

    async def app(request: Request) -> Response:
        assert request.scheme == "http"
        found.append((forwarded(request, trusted), request.peer))
        return Response(200)

    near, far = await pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve_stream, app, far)
        async with near:
            await near.send_all(get("/", *fields, "Connection: close"))
            while await near.receive_some():
                pass
    return found[0]


async def find(*fields: str, trusted: TrustedLike = TRUSTED) -> object:
    """Return the client alone; "proxy" stands for our own peer."""
    found, peer = await ask(*fields, trusted=trusted)
    return "proxy" if found.peer == peer else found.peer


class TestForwarded:
    """The field of RFC 7239."""

    @pytest.mark.parametrize(
        ("value", "peer"),
        [
            # RFC 7239 §4, §6, §7.1.
            ("for=192.0.2.43", CLIENT),
            ('For="[2001:db8:cafe::17]:4711"', ("2001:db8:cafe::17", 4711)),
            ('for="[2001:db8:cafe::17]"', ("2001:db8:cafe::17", 0)),
            ("for=192.0.2.60;proto=http;by=203.0.113.43", ("192.0.2.60", 0)),
            ("for=192.0.2.43, for=198.51.100.17", ("198.51.100.17", 0)),
            ('for="192.0.2.43:47011"', ("192.0.2.43", 47011)),
            ('for="192.0.2.43:_port"', CLIENT),
            ("for=_hidden", "_hidden"),
            ('for="_SEVKISEK"', "_SEVKISEK"),
            ('for="_a.b-c:80"', "_a.b-c"),
            ("for=unknown", None),
            ('for="UNKNOWN:5"', None),
            # Quoted strings, with escapes and separators in them (RFC 9110 §5.6.4).
            ('for="\\1\\9\\2.0.2.43"', CLIENT),
            ('for="192.0.2.43";by="a,b;c=\\"d\\\\"', CLIENT),
            ('by="\\\\\\"";for="192.0.2.43"', CLIENT),
            ('secret="for=1.2.3.4, for=1.2.3.4";for=192.0.2.43', CLIENT),
            # Empty elements and pairs, and blanks.
            (", for=192.0.2.43 ,, ,", CLIENT),
            (";;for=192.0.2.43;;", CLIENT),
            ("for=192.0.2.43; proto=http ;by=_a", CLIENT),
            # A proxy with a socket for both versions.
            ('for="[::ffff:192.0.2.43]"', CLIENT),
            # No client named: the nearest peer that is known.
            ("proto=https", "proxy"),
            ("for=192.0.2.43, by=_x", "proxy"),
            (",;,", "proxy"),
        ],
    )
    async def test_grammar(self, value: str, peer: object) -> None:
        """Every form of the grammar (RFC 7239 §4, §6)."""
        assert await find(f"Forwarded: {value}") == peer

    @pytest.mark.parametrize(
        "element",
        [
            "for",
            "for=",
            "=1.2.3.4",
            "for=1.2.3.4:80",
            "for=[::1]",
            'for="::1"',
            'for="[::1"',
            'for="[::g]"',
            'for="[fe80::1%eth0]"',
            "for=1.2.3",
            "for=01.2.3.4",
            "for=1.2.3.256",
            'for="1.2.3.4:"',
            'for="1.2.3.4:65536"',
            'for="1.2.3.4:123456"',
            'for="1.2.3.4:x"',
            "for=_",
            "for=hidden",
            "for=example.com",
            'for=""',
            "for =1.2.3.4",
            "for= 1.2.3.4",
            "for=1.2.3.4 proto=http",
            "for=1.2.3.4;for=1.2.3.4",
            "for=1.2.3.4;FOR=1.2.3.5",
            'for="1.2.3.4',
            'for=1.2.3.4"',
            'for="1.2.3.4\\"',
            'for="1.2.3.4" x',
            "for=1.2.3.4;proto=ftp",
            'for=1.2.3.4;host="a b"',
        ],
    )
    async def test_malformed(self, element: str) -> None:
        """A malformed element ends the reading; the last good one counts."""
        assert await find(f"Forwarded: {element}") == "proxy"
        assert await find(f"Forwarded: for=1.1.1.1, {element}, for=10.0.0.1") == (
            "10.0.0.1",
            0,
        )
        # Whatever a client wrote, a proxy's own element after it is read.
        assert await find(f"Forwarded: {element}, for=192.0.2.43") == CLIENT
        assert await find(f"Forwarded: {element}", "Forwarded: for=192.0.2.43") == (
            CLIENT
        )

    @pytest.mark.parametrize(
        ("values", "expected"),
        [
            # The first proxy spoke TLS with the client, and http with the second one.
            (
                ['for=192.0.2.43;proto=https;host="a:8443", for=10.0.0.1;host=b'],
                (CLIENT, "https", ("a", 8443)),
            ),
            # The client wrote the first element itself.
            (
                ["for=1.1.1.1;proto=https;host=evil", "for=192.0.2.43;proto=http"],
                (CLIENT, "http", ("x", None)),
            ),
            # What the client's element does not say, the nearer one does.
            (
                ["for=192.0.2.43", 'for=10.0.0.1;proto=WSS;host="[::1]:5"'],
                (CLIENT, "https", ("::1", 5)),
            ),
            # Only proxies: the first of them.
            (["for=10.0.0.2, for=10.0.0.1"], (("10.0.0.2", 0), "http", ("x", None))),
            (["for=1.1.1.1, for=_x, for=10.0.0.1"], ("_x", "http", ("x", None))),
            (["for=1.1.1.1, for=unknown"], (None, "http", ("x", None))),
            (["for=1.1.1.1, proto=https"], ("proxy", "https", ("x", None))),
        ],
    )
    async def test_chain(self, values: list[str], expected: Any) -> None:
        """The last client that is no trusted proxy, in any number of lines."""
        found, own = await ask(*(f"Forwarded: {value}" for value in values))
        peer, scheme, host = expected

        assert found.peer == (own if peer == "proxy" else peer)
        assert (found.scheme, found.host) == (scheme, host)
        assert isinstance(found.host, Authority)

    @pytest.mark.parametrize(
        ("field", "expected"),
        [
            (None, "1.1.1.1"),
            ("X-Forwarded-For", "1.1.1.1"),
            ("Forwarded", "192.0.2.43"),
        ],
    )
    async def test_both(self, field: Any, expected: str) -> None:
        """The field of the proxies counts; X-Forwarded-For if it is not named."""
        trusted = TrustedPeers(["127.0.0.1"], field=field)
        others = ("X-Forwarded-For: 1.1.1.1", "X-Forwarded-Proto: https")
        found, _ = await ask("Forwarded: for=192.0.2.43", *others, trusted=trusted)

        assert found.peer == (expected, 0)
        assert found.scheme == ("http" if field == "Forwarded" else "https")

    async def test_only_the_other(self) -> None:
        """A field that the proxies do not write is ignored, also if it is alone."""
        for field, other in (
            ("Forwarded", "X-Forwarded-For: 1.1.1.1"),
            ("X-Forwarded-For", "Forwarded: for=1.1.1.1"),
        ):
            trusted = TrustedPeers(["127.0.0.1"], field=cast("Any", field))
            assert await find(other, trusted=trusted) == "proxy"
        assert await find("Forwarded:") == "proxy"

    @pytest.mark.parametrize(
        "value",
        [
            '"' * 30000,
            'for="' + "\\" * 30000,
            "\\" * 15000 + '"' + "\\" * 15000 + '"',
            'for="' + "a\\" * 15000 + '"',
            "=" * 30000,
            ";" * 30000,
            "; " * 15000 + "x",
            "a" * 30000,
            "a=" * 15000,
            "," * 30000,
            "for=10.0.0.1," * 2300,
            'x=",' * 7500,
        ],
        ids=range(12),
    )
    async def test_time(self, value: str) -> None:
        """The time is linear for any value."""
        began = time.perf_counter()
        await find(f"Forwarded: {value}")

        assert time.perf_counter() - began < 1


class TestOlderFields:
    """X-Forwarded-For, -Proto and -Host."""

    @pytest.mark.parametrize(
        ("values", "peer"),
        [
            (["192.0.2.43"], CLIENT),
            (["1.1.1.1, 192.0.2.43"], CLIENT),
            (["1.1.1.1", "192.0.2.43", "10.0.0.2, 10.0.0.1"], CLIENT),
            (["10.0.0.2,10.0.0.1"], ("10.0.0.2", 0)),
            (["192.0.2.43:4711"], ("192.0.2.43", 4711)),
            (["2001:db8::17, fd00::1"], ("2001:db8::17", 0)),
            (["[2001:db8::17]:80"], ("2001:db8::17", 80)),
            (["::ffff:192.0.2.43"], CLIENT),
            (["unknown"], None),
            (["1.1.1.1, unknown, 10.0.0.1"], None),
            (["1.1.1.1, bad, 10.0.0.1"], ("10.0.0.1", 0)),
            (["192.0.2.43, fe80::1%eth0"], "proxy"),
            (["bad"], "proxy"),
            (['"192.0.2.43"'], "proxy"),
            (["192.0.2.43, 256.0.0.1"], "proxy"),
            ([" , "], "proxy"),
            ([], "proxy"),
        ],
    )
    async def test_for(self, values: list[str], peer: object) -> None:
        """The last client that is no trusted proxy; a malformed entry ends the list."""
        fields = [f"X-Forwarded-For: {value}" for value in values]

        assert await find(*fields) == peer

    @pytest.mark.parametrize(
        ("clients", "values", "scheme"),
        [
            ("192.0.2.43", ["https"], "https"),
            ("192.0.2.43", ["HTTPS"], "https"),
            ("192.0.2.43", ["wss"], "https"),
            ("192.0.2.43", ["ftp"], "http"),
            ("192.0.2.43", [], "http"),
            # As long as the list of clients: the entry of the client.
            ("192.0.2.43, 10.0.0.1", ["https, http"], "https"),
            ("1.1.1.1, 192.0.2.43, 10.0.0.1", ["http", "https, http"], "https"),
            # Otherwise the nearest proxy's.
            ("192.0.2.43, 10.0.0.1", ["https"], "https"),
            ("192.0.2.43", ["http, https"], "https"),
            ("192.0.2.43, 10.0.0.1", ["http, https, http"], "http"),
            ("192.0.2.43, bad", ["http, https"], "https"),
            ("", ["http, https"], "https"),
        ],
    )
    async def test_proto(self, clients: str, values: list[str], scheme: str) -> None:
        """The scheme that the client used, if a trusted proxy says so."""
        lists = [f"X-Forwarded-Proto: {value}" for value in values]
        found, _ = await ask(f"X-Forwarded-For: {clients}", *lists)

        assert found.scheme == scheme

    @pytest.mark.parametrize(
        ("value", "host"),
        [
            ("Example.com:8443", ("example.com", 8443)),
            ("a, [::1]", ("::1", None)),
            ("a b", ("x", None)),
        ],
    )
    async def test_host(self, value: str, host: object) -> None:
        """The host that the client asked for; a malformed one is ignored."""
        found, _ = await ask("X-Forwarded-Host: " + value, "X-Forwarded-Proto: https")

        assert (found.host, found.scheme) == (host, "https")


class TestTrusted:
    """From which peers the fields count."""

    FIELDS = (
        "Forwarded: for=1.1.1.1;proto=https;host=evil",
        "X-Forwarded-For: 1.1.1.1",
        "X-Forwarded-Proto: https",
        "X-Forwarded-Host: evil",
    )

    @pytest.mark.parametrize("trusted", [(), ["unix"], ["10.0.0.0/8"], ["::1"]])
    async def test_from_others(self, trusted: Any) -> None:
        """Fields of a peer that is not trusted are ignored."""
        found, peer = await ask(*self.FIELDS, trusted=trusted)

        assert found == (peer, "http", ("x", None))
        assert peer[0] == "127.0.0.1"

    async def test_unix(self) -> None:
        """Every client of a Unix socket is trusted by its own word only."""
        for fields in (self.FIELDS, self.FIELDS[1:]):
            found, _ = await ask(*fields, trusted=["unix"], pair=unix_pair)
            assert found == (("1.1.1.1", 0), "https", ("evil", None))
            for trusted in ([], ["0.0.0.0/0", "::/0"]):
                found, _ = await ask(*fields, trusted=trusted, pair=unix_pair)
                assert found == (None, "http", ("x", None))

    async def test_without_a_socket(self) -> None:
        """A peer without an address is not trusted."""
        found = []

        async def app(request: Request) -> Response:
            found.append(forwarded(request, ["unix", "0.0.0.0/0", "::/0"]))
            return Response(200)

        await run_script(app, get("/", *self.FIELDS))

        assert found == [(None, "http", ("x", None))]

    async def test_checked_first(self) -> None:
        """A mistake in the networks is an error for every peer."""

        async def app(request: Request) -> Response:
            with pytest.raises(ValueError, match="neither a network"):
                forwarded(request, ["10.0.0.0/8", "nonsense"])
            with pytest.raises(TypeError, match="peers must be a collection"):
                forwarded(request, "10.0.0.0/8")
            return Response(200)

        await run_script(app, get("/"))

    def test_repr(self) -> None:
        """It is a tuple with names."""
        found = Forwarded(CLIENT, "https", Authority("a", None))

        assert repr(found) == (
            "Forwarded(peer=('192.0.2.43', 0), scheme='https', "
            "host=Authority(host='a', port=None))"
        )


# Anything that a client may put before the element of a trusted proxy.
noise = st.text(st.sampled_from('for=",;\\ 1.2[]:_x\t\xe9'), max_size=30)


@given(noise, noise)
@example('for="', ";x=")
@example('for=1.1.1.1;a="', '";x=')
@settings(max_examples=150, deadline=None)
def test_client_cannot_hide_the_proxy(before: str, host: str) -> None:
    """Whatever a client writes, the element after it is found, also with a Host of it."""
    quoted = host.replace("\\", "\\\\").replace('"', '\\"')

    async def check() -> None:
        for last in (
            "for=192.0.2.43",
            'for="[2001:db8::1]:80";proto=https',
            f'x="{quoted}";for=192.0.2.43',
            f'for=192.0.2.43;x="{quoted}"',
        ):
            peer = await find(f"Forwarded: {before}, {last}")
            assert peer in (CLIENT, ("2001:db8::1", 80))

    trio.run(check)
