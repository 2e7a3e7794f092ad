"""Offers: both fields, in HTTP/1.1, in any spelling that the grammar allows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from trio_upgrade import Request, Response, Upgrade

from ..apps import echo, echo_app
from ..wire import SWITCHED, UP, closing, get, okay

if TYPE_CHECKING:
    from .wires import Serving


async def see_offers(request: Request) -> Response:
    """Answer a request with its offers."""
    return Response(200, "|".join(request.upgrades).encode())


@pytest.mark.ids("U03", "S5")
@pytest.mark.parametrize("spelling", ["ECHO", "Echo", "eCHo"])
async def test_names_compare_without_case(serving: Serving, spelling: str) -> None:
    """A name is offered in any case; the 101 has the app's (RFC 9110 §7.8)."""
    wire = get("/", "Connection: Upgrade", f"Upgrade: {spelling}")

    await serving.check(echo_app, wire + b"HEAD", SWITCHED + b"HEAD")


@pytest.mark.ids("U03")
async def test_versions_compare_exactly(serving: Serving) -> None:
    """Versions compare with case, and a missing one is another (RFC 9110 §7.8)."""

    async def app(request: Request) -> Response:
        taken = [name for name in ("A/x", "a/X", "a") if name in request.upgrades]
        return Response(200, "|".join(taken).encode())

    wire = get("/", "Connection: Upgrade", "Upgrade: a/X")

    await serving.check(app, wire, okay(b"a/X"))
    await serving.check(app, wire.replace(b"a/X", b"A/X"), okay(b"a/X"))


@pytest.mark.ids("U12", "S4")
@pytest.mark.parametrize(
    "fields",
    [
        ["Upgrade: echo"],
        ["Connection: keep-alive", "Upgrade: echo"],
        ["Connection: upgradeX", "Upgrade: echo"],
        ["Connection: Upgrade"],
        ["Connection: Upgrade", "Upgrade: ,"],
    ],
)
async def test_incomplete_offer(serving: Serving, fields: list[str]) -> None:
    """Without both fields a request is an ordinary one (RFC 9110 §7.8)."""
    wire = get("/1", *fields) + get("/2")

    await serving.check(see_offers, wire, okay(b"") + okay(b""))


@pytest.mark.ids("U13", "S8")
async def test_offer_of_http_1_0_is_ignored(serving: Serving) -> None:
    """The Upgrade field of an HTTP/1.0 request is ignored (RFC 9110 §7.8)."""
    wire = UP.replace(b"HTTP/1.1", b"HTTP/1.0")

    await serving.check(see_offers, wire, closing(okay(b"")))


@pytest.mark.ids("U25", "S5")
@pytest.mark.parametrize("option", ["Upgrade", "upgrade", "uPGRADE"])
async def test_options_compare_without_case(serving: Serving, option: str) -> None:
    """The connection option may be in any case (RFC 9110 §7.6.1)."""
    wire = get("/", f"Connection: keep-alive, {option}", "Upgrade: echo")

    await serving.check(echo_app, wire, SWITCHED)


@pytest.mark.ids("U25", "S4")
async def test_field_without_its_option_is_ignored(serving: Serving) -> None:
    """An Upgrade field without its option is ignored (RFC 9110 §7.6.1)."""
    wire = get("/", "Connection: close", "Upgrade: echo")

    await serving.check(echo_app, wire, closing(okay(b"/")))


@pytest.mark.ids("U28", "S7")
@pytest.mark.parametrize(
    ("fields", "offers"),
    [
        (["Connection: Upgrade", "Upgrade: a/1", "Upgrade: echo"], b"a/1|echo"),
        (["Connection: a", "Connection: Upgrade", "Upgrade: a/1,echo"], b"a/1|echo"),
        (["Connection: ,, Upgrade ,", "Upgrade: ,\ta/1 , ,echo,"], b"a/1|echo"),
        (["Connection: Upgrade", "Upgrade: a b, echo, /1"], b"echo"),
    ],
)
async def test_lists_are_lists(
    serving: Serving, fields: list[str], offers: bytes
) -> None:
    """Lines form one list without its empty elements (RFC 9110 §5.6.1)."""
    await serving.check(see_offers, get("/", *fields), okay(offers))


@pytest.mark.ids("U07")
async def test_app_chooses_against_the_clients_order(serving: Serving) -> None:
    """The app may accept any of the offers (RFC 9110 §7.8)."""

    async def app(request: Request) -> Upgrade:
        assert list(request.upgrades) == ["a", "b/2", "echo"]
        return Upgrade("echo", echo)

    wire = get("/", "Connection: Upgrade", "Upgrade: a, b/2, echo")

    await serving.check(app, wire + b"HEAD", SWITCHED + b"HEAD")


@pytest.mark.ids("U02", "S28")
async def test_offer_can_be_ignored(serving: Serving) -> None:
    """An offer may be ignored; HTTP goes on (RFC 9110 §7.8)."""
    h2c = get(
        "/1",
        "Connection: Upgrade, HTTP2-Settings",
        "Upgrade: h2c",
        "HTTP2-Settings: AAMAAABk",
    )

    await serving.check(echo_app, h2c + get("/2"), okay(b"/1") + okay(b"/2"))


@pytest.mark.ids("U02", "S28")
async def test_ignored_offer_keeps_its_body(serving: Serving) -> None:
    """A POST with an ignored offer keeps its body (RFC 9110 §7.8)."""

    async def app(request: Request) -> Response:
        return Response(200, await request.read())

    # Java and curl send such requests.
    head = get("/", "Connection: Upgrade", "Upgrade: h2c", "Content-Length: 5")
    wire = head.replace(b"GET", b"POST") + b"hello" + get("/2")

    await serving.check(app, wire, okay(b"hello") + okay(b""))


@pytest.mark.ids("U11", "S43")
@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "POST", "PUT", "X-Y"])
async def test_app_decides_whether_the_method_can_be_honoured(
    serving: Serving, method: str
) -> None:
    """Every method can carry an offer, and the app decides (RFC 9110 §7.8)."""

    async def app(request: Request) -> Response | Upgrade:
        if request.method == "PUT":
            return Response(405, request.method.encode())
        return Upgrade("echo", echo)

    target = "*" if method == "OPTIONS" else "/u"
    wire = UP.replace(b"GET /u", f"{method} {target}".encode())
    refused = okay(b"PUT", status="405 Method Not Allowed")

    await serving.check(app, wire, refused if method == "PUT" else SWITCHED)
