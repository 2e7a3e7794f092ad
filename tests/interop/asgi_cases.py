# An application and a generated list of requests, whose answers three servers are
# compared by.  It runs under asyncio as well as under Trio, so it awaits nothing else.
#
# No "from __future__ import annotations" here: FastAPI reads the annotations.

import json
from itertools import product
from typing import Any

import fastapi

api = fastapi.FastAPI(docs_url="/api/docs", openapi_url="/api/openapi.json")
STATUSES = (200, 201, 204, 205, 304, 404, 500)
TEXT = (b"content-type", b"text/plain")


@api.get("/api/items/{number}")
async def read_item(number: int, q: str = "") -> dict[str, Any]:
    """Read a path and a query."""
    return {"number": number, "q": q}


@api.post("/api/items")
async def make_item(item: dict[str, int]) -> dict[str, Any]:
    """Read a JSON body."""
    return {"sum": sum(item.values())}


@api.get("/api/teapot")
async def refuse() -> None:
    """Refuse by an exception."""
    raise fastapi.HTTPException(418, "short and stout", {"x-kind": "teapot"})


@api.get("/api/cookies")
async def set_cookies(response: fastapi.Response) -> None:
    """Set two cookies."""
    response.set_cookie("a", "1")
    response.set_cookie("b", "2")


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Do what the first segment of the path says."""
    if scope["path"].startswith("/api"):
        await api(scope, receive, send)
        return
    kind, *words = scope["path"].strip("/").split("/")
    await _KINDS.get(kind, show_scope)(scope, receive, send, words)


async def show_scope(scope: Any, _receive: Any, send: Any, _words: Any) -> None:
    """Answer with the scope."""
    shown = {
        name: scope[name]
        for name in ("type", "http_version", "method", "scheme", "path", "root_path")
    }
    shown["raw_path"] = scope["raw_path"].decode("latin-1")
    shown["query_string"] = scope["query_string"].decode("latin-1")
    shown["headers"] = [
        [name.decode("latin-1"), value.decode("latin-1")]
        for name, value in scope["headers"]
    ]
    content = json.dumps(shown, sort_keys=True).encode()
    await respond(send, 200, [TEXT, (b"content-length", b"%d" % len(content))], content)


async def respond(
    send: Any, status: int, fields: list[tuple[bytes, bytes]], *pieces: bytes
) -> None:
    """Send a whole answer."""
    await send({"type": "http.response.start", "status": status, "headers": fields})
    for number, piece in enumerate(pieces, 1):
        more = number < len(pieces)
        await send({"type": "http.response.body", "body": piece, "more_body": more})


async def send_status(_scope: Any, _receive: Any, send: Any, words: Any) -> None:
    """Answer with a status, and content in one of several ways."""
    status, how = int(words[0]), words[1]
    if how == "empty":
        await respond(send, status, [TEXT], b"")
    elif how == "length":
        await respond(send, status, [TEXT, (b"content-length", b"4")], b"okay")
    elif how == "pieces":
        await respond(send, status, [TEXT], b"one", b"", b"two", b"")
    else:
        await respond(send, status, [TEXT], b"okay")


async def echo(_scope: Any, receive: Any, send: Any, _words: Any) -> None:
    """Answer with the body."""
    content, more = b"", True
    while more:
        message = await receive()
        content += message.get("body", b"")
        more = message.get("more_body", False)
    await respond(send, 200, [(b"content-length", b"%d" % len(content))], content)


FIELDS = {
    "repeated": [(b"set-cookie", b"a=1"), (b"set-cookie", b"b=2")],
    "upper": [(b"X-Upper", b"1"), (b"x-lower", b"2")],
    "spaces": [(b"x-spaces", b"  a  b  ")],
    "empty": [(b"x-empty", b"")],
    "latin": [(b"x-latin", b"\xe9")],
    "date": [(b"date", b"Thu, 01 Jan 1970 00:00:00 GMT")],
    "close": [(b"connection", b"close")],
    "coding": [(b"transfer-encoding", b"chunked")],
    "newline": [(b"x-bad", b"a\r\nx-injected: b")],
    "name": [(b"x bad", b"a")],
}


async def send_fields(_scope: Any, _receive: Any, send: Any, words: Any) -> None:
    """Answer with fields."""
    await respond(send, 200, FIELDS[words[0]], b"okay")


async def misbehave(_scope: Any, _receive: Any, send: Any, words: Any) -> None:
    """Make a mistake."""
    start = {"type": "http.response.start", "status": 200, "headers": []}
    match words[0]:
        case "raise":
            raise LookupError
        case "return":
            return
        case "held":
            await send(start)
            raise LookupError
        case "held-return":
            await send(start)
        case "body-first":
            await send({"type": "http.response.body", "body": b"x"})
        case "unknown":
            await send({"type": "http.response.zip"})
        case "inside":
            await send(start)
            await send({"type": "http.response.body", "body": b"x", "more_body": True})
            raise LookupError
        case "short":
            await respond(send, 200, [(b"content-length", b"4")], b"x")
        case "long":
            await respond(send, 200, [(b"content-length", b"4")], b"okay", b"more")
        case "after":
            await respond(send, 200, [(b"content-length", b"4")], b"okay")
            raise LookupError


_KINDS = {
    "status": send_status,
    "echo": echo,
    "fields": send_fields,
    "mistake": misbehave,
}
MISTAKES = (
    *("raise", "return", "held", "held-return", "body-first", "unknown"),
    *("inside", "short", "long", "after"),
)


def request(
    method: str, target: str, *fields: str, body: bytes = b"", version: str = "1.1"
) -> bytes:
    """Return a request that closes its connection."""
    host = ["Host: example.com"] if version == "1.1" else []
    close = ["Connection: close"] if version == "1.1" else []
    lines = [f"{method} {target} HTTP/{version}", *host, *fields, *close, "", ""]
    return "\r\n".join(lines).encode("latin-1") + body


def post(target: str, body: bytes, *fields: str) -> bytes:
    """Return a request with content of known length."""
    return request("POST", target, f"Content-Length: {len(body)}", *fields, body=body)


def make_cases() -> dict[str, bytes]:
    """Return the requests by their names."""
    cases: dict[str, bytes] = {}
    for status, how in product(STATUSES, ("length", "one", "pieces", "empty")):
        cases[f"status {status} {how}"] = request("GET", f"/status/{status}/{how}")
    for status, how in product((200, 204, 304, 404), ("length", "one")):
        cases[f"head {status} {how}"] = request("HEAD", f"/status/{status}/{how}")
    for how in ("length", "one", "pieces", "empty"):
        target = f"/status/200/{how}"
        cases[f"http10 {how}"] = request("GET", target, version="1.0")
    for method in ("GET", "PUT", "DELETE", "PATCH", "OPTIONS", "QUERY", "get"):
        cases[f"method {method}"] = request(method, "/scope")
    targets = {
        "escaped": "/scope/a%20b/%2F?x=%20&y=%2B",
        "utf-8": "/scope/%C3%A9",
        "not utf-8": "/scope/%ff",
        "broken escape": "/scope/%zz%",
        "double slash": "//scope//x",
        "dots": "/scope/../x/./y",
        "empty query": "/scope?",
        "two marks": "/scope?a?b",
        "semicolon": "/scope;a=1",
        "absolute": "http://example.com/scope/x?y",
    }
    for name, target in targets.items():
        cases[f"target {name}"] = request("GET", target)
    cases["target asterisk"] = request("OPTIONS", "*")
    cases["scope http10"] = request("GET", "/scope", version="1.0")
    cases["scope fields"] = request(
        "GET", "/scope", "X-A: 1", "x-a:2", "X-B:\t 3 \t", "X-C:", "Cookie: a=b; c=d"
    )
    cases["scope h2c"] = request(
        "GET", "/scope", "Upgrade: h2c", "HTTP2-Settings: AAMAAABk"
    )
    for size in (0, 1, 70_000):
        cases[f"echo {size}"] = post("/echo", bytes(size))
    chunked = b"3\r\nabc\r\n1;x=y\r\nd\r\n0\r\nX-T: 1\r\n\r\n"
    fields = "Transfer-Encoding: chunked"
    cases["echo chunked"] = request("POST", "/echo", fields, body=chunked)
    cases["echo continue"] = post("/echo", b"abc", "Expect: 100-continue")
    cases["echo unread"] = post("/status/200/length", b"abc")
    cases["echo broken"] = request("POST", "/echo", fields, body=b"nonsense\r\n")
    for name in FIELDS:
        cases[f"fields {name}"] = request("GET", f"/fields/{name}")
    for name in MISTAKES:
        cases[f"mistake {name}"] = request("GET", f"/mistake/{name}")
    cases["api item"] = request("GET", "/api/items/5?q=%C3%A9")
    cases["api bad item"] = request("GET", "/api/items/x")
    cases["api missing"] = request("GET", "/api/missing")
    cases["api method"] = request("DELETE", "/api/items/5")
    cases["api slash"] = request("GET", "/api/items/5/")
    cases["api json"] = post(
        "/api/items", b'{"a":1,"b":2}', "Content-Type: application/json"
    )
    cases["api bad json"] = post("/api/items", b"{", "Content-Type: application/json")
    cases["api teapot"] = request("GET", "/api/teapot")
    cases["api cookies"] = request("GET", "/api/cookies")
    cases["api schema"] = request("GET", "/api/openapi.json")
    cases["api docs"] = request("GET", "/api/docs")
    cases["api head"] = request("HEAD", "/api/docs")
    return cases
