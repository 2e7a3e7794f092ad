# For each requirement one way to break it.  `nox -s mutants` does, one by one, and sees
# the requirement's tests fail.
from __future__ import annotations

from typing import NamedTuple


class Mutant(NamedTuple):
    """One change: in this room of the package the old text becomes the new one."""

    room: str
    old: str
    new: str


MUTANTS = {
    # Offers
    "U01": Mutant(
        "_http.tokens",
        "map(check_protocol, protocols)",
        "map(check_protocol, sorted(protocols))",
    ),
    "U02": Mutant(
        "_server.exchange",
        "            close\n            or self._last",
        "            close\n            or bool(self.request.upgrades)",
    ),
    "U03": Mutant("_http.tokens", "return name.lower() + slash", "return name + slash"),
    "U07": Mutant(
        "_http.tokens",
        "return protocol in self._offers or (",
        "return protocol in self._offers[:1] and (",
    ),
    "U11": Mutant(
        "_http.switching", 'or method == "CONNECT" or', 'or method != "GET" or'
    ),
    "U13": Mutant("_http.switching", 'if http_version != "1.1" or method', "if method"),
    "U25": Mutant(
        "_http.tokens",
        "frozenset(split_list([value.lower() for value in values]))",
        "frozenset(split_list(values))",
    ),
    "U28": Mutant("_http.tokens", "            if stripped:", "            if True:"),
    # The 101
    "U04": Mutant(
        "_http.switching",
        '        (b"Upgrade", check_protocol(protocol).encode("ascii")),\n',
        "",
    ),
    "U05": Mutant(
        "_http.tokens", '(?:/{_TOKEN})?").fullmatch', '(?:/{_TOKEN})?").match'
    ),
    "U06": Mutant(
        "_http.tokens",
        "and fold_protocol(protocol) in self._fold()",
        "and bool(self._fold())",
    ),
    "U10": Mutant(
        "_server.session", "handler(request, stream,", "handler(None, stream,"
    ),
    "U12": Mutant(
        "_http.switching",
        '        (b"Connection", b"Upgrade"),\n        (b"Upgrade", check',
        '        (b"Upgrade", check',
    ),
    "U15": Mutant(
        "_server.exchange", "if codec.continue_owed:", "if codec.client_waits:"
    ),
    "U16": Mutant(
        "_server.exchange",
        "UpgradedStream(self._transport, rest,",
        "UpgradedStream(self._transport, rest.lstrip(),",
    ),
    "U17": Mutant(
        "_server.exchange",
        "        if http.codec.client_waits:\n",
        "        if http.codec.body_left:\n",
    ),
    "U21": Mutant("_http.switching", '(["Upgrade", *options])', '(["Upgrade"])'),
    "U24": Mutant(
        "_http.switching",
        'return (*fields, (b"Connection", b"Upgrade"))',
        'return (*fields, (b"Connection", b"Upgrade, Cache-Control"))',
    ),
    "U29": Mutant("_http.headers", r'\x80-\xff]*").fullmatch', r'\x80-\xff]*").match'),
    "U34": Mutant(
        "_server.response_writer",
        "status not in (_NO_CONTENT, _NOT_MODIFIED)",
        "status != _NOT_MODIFIED",
    ),
    # Refusal
    "U08": Mutant("_server.response", '"Upgrade": error.protocol', '"Upgrade": "x"'),
    "U09": Mutant(
        "_server.response",
        '{b"transfer-encoding"}',
        '{b"transfer-encoding", b"upgrade"}',
    ),
    "O05": Mutant(
        "_http.switching",
        "    if unread == 0:\n        return False",
        "    if unread == 0:\n        return True",
    ),
    # Bodies
    "U31": Mutant(
        "_server.exchange",
        "        if http.codec.client_waits:\n",
        "        if False:\n",
    ),
    "U32": Mutant(
        "_http.codec", "self._body_awaited and not self._buffer", "self._body_awaited"
    ),
    "M07": Mutant(
        "_http.framing",
        'if codings[-1:] != ["chunked"] or codings.count("chunked") > 1:',
        "if not codings:",
    ),
    "M10": Mutant(
        "_server.exchange",
        "        await self._drain_body(http)\n        return http.reusable",
        "        return http.reusable",
    ),
    # CONNECT
    "C01": Mutant(
        "_http.targets",
        "not authority.host or not authority.port",
        "not authority.host",
    ),
    "C02": Mutant("_http.targets", "_MAX_PORT = 65535", "_MAX_PORT = 99999"),
    "C03": Mutant("_http.messages", "< _MULTIPLE_CHOICES", "<= _MULTIPLE_CHOICES + 2"),
    "C06": Mutant(
        "_http.codec", "            raw = drop_framing(raw)", "            pass"
    ),
    "C07": Mutant("_http.framing", 'and head.startswith(b"CONNECT ")', "and False"),
    "C08": Mutant(
        "_client.connection",
        '"CONNECT", authority, fields',
        '"CONNECT", "//" + authority, fields',
    ),
    "O01": Mutant(
        "_client.connection", "_LAST_INFORMATIONAL = 199", "_LAST_INFORMATIONAL = 99"
    ),
    "O02": Mutant(
        "_http.switching",
        '    if method == "CONNECT":\n        return True',
        '    if method == "CONNECT":\n        return False',
    ),
    "O03": Mutant(
        "_server.exchange",
        "            self.request.method,\n",
        '            "user-agent" in self.request.headers or self.request.method,\n',
    ),
    # Strict reading
    "M01": Mutant("_http.framing", "check_authority(values[0])", "pass"),
    "M03": Mutant(
        "_http.codec",
        "self._skip_blank = self._role is h11.SERVER",
        "self._skip_blank = False",
    ),
    "M04": Mutant(
        "_http.head_syntax",
        r'if head.count(b"\n") != lines or head.count',
        "if head.count",
    ),
    "M06": Mutant(
        "_http.framing",
        'raise MalformedMessage("both Content-Length and Transfer-Encoding")',
        "return",
    ),
    "M17": Mutant(
        "_server.request", "if self._target.authority is not None:", "if False:"
    ),
    # The client
    "U14": Mutant("_client.request_sender", "await self._done.wait()", "pass"),
    "U18": Mutant(
        "_http.codec", "rest = bytes(self._buffer)", "rest = bytes(self._buffer[3:])"
    ),
    "U19": Mutant(
        "_client.connection", "_LAST_INFORMATIONAL = 199", "_LAST_INFORMATIONAL = 100"
    ),
    "U30": Mutant(
        "_client.request_head", "if not body and expects_anything(fields):", "if False:"
    ),
    "M02": Mutant(
        "_client.request_sender",
        "send_request(head + http.codec.write_end())",
        r'send_request(head + http.codec.write_end() + b"\r\n")',
    ),
    "M08": Mutant(
        "_client.connection", "if await http.has_unasked_input():", "if False:"
    ),
    "M12": Mutant(
        "_client.connection",
        "if used and (self._spent or http.ended or not http.reusable):",
        "if used and self._spent:",
    ),
    # Ends
    "M09": Mutant(
        "_server.http",
        "            await self.send_short(head + body)",
        "            pass",
    ),
    "M13": Mutant(
        "_server.exchange",
        "no need to find its beginning.\n            return False",
        "no need to find its beginning.\n            return True",
    ),
    "M14": Mutant(
        "_streams.closing",
        "        while await bottom.receive_some():\n            pass\n",
        "",
    ),
    "M15": Mutant(
        "_streams.closing",
        "            await tls.unwrap()\n    bottom = ",
        "            pass\n    bottom = ",
    ),
    "M16": Mutant(
        "_streams.closing",
        "move_on_after(math.inf if linger is None else linger)",
        "move_on_after(math.inf)",
    ),
    "M18": Mutant(
        "_server.response_writer", "    if close and not closing:", "    if False:"
    ),
}
