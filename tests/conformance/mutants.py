# For each requirement one way to break it.  `nox -s mutants` applies them one by one and
# checks that the tests of the requirement fail.
from __future__ import annotations

from .breaking import Mutant

MUTANTS = {
    # Offers
    "U01": Mutant(
        "format_upgrade",
        "map(check_protocol, protocols)",
        "map(check_protocol, sorted(protocols))",
    ),
    "U02": Mutant("Exchange.start_answer", "self._last", "bool(self.request.upgrades)"),
    "U03": Mutant(
        "fold_protocol", "name.lower() + slash + version", "name + slash + version"
    ),
    "U07": Mutant(
        "Offers.__contains__",
        "protocol in self._offers or ...",
        "protocol in self._offers[:1] and ...",
    ),
    "U11": Mutant("find_offers", 'method == "CONNECT"', 'method != "GET"'),
    "U13": Mutant("find_offers", 'http_version != "1.1"'),
    "U25": Mutant("connection_options", "map(bytes.lower, values)", "values"),
    "U28": Mutant("split_list", "if stripped: ...", "if True: ..."),
    # The 101
    "U04": Mutant(
        "switch_fields", '(b"Upgrade", check_protocol(protocol).encode("ascii"))'
    ),
    "U05": Mutant("_is_protocol", "re.compile(...).fullmatch", "re.compile(...).match"),
    "U06": Mutant(
        "Offers.__contains__",
        "fold_protocol(protocol) in self._fold()",
        "bool(self._fold())",
    ),
    "U10": Mutant(
        "Connection.serve", "handler(request, ..., ...)", "handler(None, ..., ...)"
    ),
    "U12": Mutant("switch_fields", '(b"Connection", b"Upgrade")'),
    "U15": Mutant(
        "Exchange._complete_request",
        "if http.continue_owed: ...",
        "if http.client_waits: ...",
    ),
    "U16": Mutant(
        "Exchange._switch_to",
        "UpgradedStream(..., rest, ended=ended)",
        "UpgradedStream(..., rest.lstrip(), ended=ended)",
    ),
    "U17": Mutant("_receive_body", "http.client_waits", "http.body_left"),
    "U21": Mutant("offer_fields", '["Upgrade", *options]', '["Upgrade"]'),
    "U24": Mutant(
        "advertise",
        '(b"Connection", b"Upgrade")',
        '(b"Connection", b"Upgrade, Cache-Control")',
    ),
    "U29": Mutant("_is_value", "re.compile(...).fullmatch", "re.compile(...).match"),
    "U34": Mutant(
        "ServerCodec.write_response",
        "status not in (_NO_CONTENT, _NOT_MODIFIED)",
        "status != _NOT_MODIFIED",
    ),
    # Refusal
    "U08": Mutant("refuse", "error.protocol", '"x"'),
    "U09": Mutant(
        "_RESPONSE_FORBIDDEN",
        '{b"transfer-encoding"}',
        '{b"transfer-encoding", b"upgrade"}',
    ),
    "O05": Mutant(
        "must_close", "if unread == 0: return False", "if unread == 0: return True"
    ),
    # Bodies
    "U31": Mutant("_receive_body", "http.client_waits", "False"),
    "U32": Mutant("ServerCodec.client_waits", "not self._buffer"),
    "M07": Mutant(
        "_check_body_length",
        'codings[-1:] != ["chunked"] or codings.count("chunked") > 1',
        "not codings",
    ),
    "M10": Mutant("Exchange.complete", "await self._drop_body(http)"),
    # CONNECT
    "C01": Mutant("parse_connect_authority", "not authority.port"),
    "C02": Mutant("targets._MAX_PORT", "65535", "99999"),
    "C03": Mutant(
        "opens_tunnel", "status < _MULTIPLE_CHOICES", "status <= _MULTIPLE_CHOICES + 2"
    ),
    "C06": Mutant("ClientCodec.parse_response", "raw = drop_framing(raw)"),
    "C07": Mutant("check_request", 'head.startswith(b"CONNECT ")', "False"),
    "C08": Mutant(
        "ask_for_tunnel",
        'CheckedRequest("CONNECT", authority, fields, b"", endpoint, '
        "on_informational=on_informational)",
        'CheckedRequest("CONNECT", "//" + authority, fields, b"", endpoint)',
    ),
    "O01": Mutant("connection._LAST_INFORMATIONAL", "199", "99"),
    "O02": Mutant(
        "must_close",
        'if method == "CONNECT": return True',
        'if method == "CONNECT": return False',
    ),
    "O03": Mutant(
        "Exchange.start_answer",
        "self.request.method",
        '"user-agent" in self.request.headers or self.request.method',
    ),
    # Strict reading
    "M01": Mutant("_check_host", "check_authority(values[0])"),
    "M03": Mutant(
        "ServerCodec._start_exchange",
        "self._skip_blank = True",
        "self._skip_blank = False",
    ),
    "M04": Mutant(
        "check_head", r'head.count(b"\r\n") == head.count(b"\r") == lines', "True"
    ),
    "M06": Mutant(
        "_check_body_length",
        'raise MalformedMessage("both Content-Length and Transfer-Encoding")',
        "return",
    ),
    "M17": Mutant("Request.authority", "self._target.authority is not None", "False"),
    # The client
    "U14": Mutant("RequestSender.handle_response_head", "await self._sent.wait()"),
    "U18": Mutant(
        "MessageCodec.detach", "bytes(self._buffer)", "bytes(self._buffer[3:])"
    ),
    "U19": Mutant("connection._LAST_INFORMATIONAL", "199", "100"),
    "U30": Mutant(
        "complete_fields",
        'b"expect" in names and _find_length(body) == 0 and expects_anything(fields)',
        "False",
    ),
    "M02": Mutant(
        "ClientHTTP.send_end",
        "head + self._codec.write_end(trailers)",
        r'head + self._codec.write_end(trailers) + b"\r\n"',
    ),
    "M08": Mutant("ClientConnection._claim", "await http.has_unasked_input()", "False"),
    "M12": Mutant(
        "ClientConnection._claim",
        "self._spent or http.ended or not http.is_reusable",
        "self._spent",
    ),
    # Ends
    "M09": Mutant("ServerHTTP.send_response", "await self.send_short(head + body)"),
    "M13": Mutant(
        "Exchange.complete",
        "if http.closes: return False",
        "if http.closes: return True",
    ),
    "M14": Mutant("_exchange_ends", "while await reader.receive_some(): ..."),
    "M15": Mutant("_exchange_ends", "await tls.send_eof()"),
    "M16": Mutant(
        "move_on_after", "math.inf if seconds is None else seconds", "math.inf"
    ),
    "M18": Mutant("ServerCodec.write_response", "close and not closing", "False"),
    # Proxies
    "U20": Mutant("_inform", "await request.send_informational(..., ...)"),
    "U22": Mutant(
        "fields.end_to_end",
        "({option.encode(...) for option in find_options(headers)} - _NEVER_NAMED)",
        "frozenset()",
    ),
    "U23": Mutant("fields._HOP_BY_HOP", 'b"keep-alive"'),
    "U26": Mutant(
        "ReverseProxy._refuse", "has_passed(request.headers, self._name)", "False"
    ),
    "U27": Mutant("make_outgoing", "add_via(..., ..., ...)"),
    "U33": Mutant("make_outgoing", 'request.http_version == "1.0"', "True"),
    "C04": Mutant(
        "run_tunnel",
        "options.half_close_timeout",
        "0",
    ),
    "C05": Mutant("TargetPolicy.allows", "is_public(address) and not local", "True"),
    "C09": Mutant("fields._HOP_BY_HOP", 'b"proxy-authorization"'),
    "M05": Mutant("_format_head", 'b"HTTP/1.1 %d %b\\r\\n"', 'b"HTTP/1.0 %d %b\\r\\n"'),
    "M11": Mutant("keeps_alive", 'http_version == "1.1"', "True"),
    # Faults
    "F1": Mutant("ClientCodec.next_head", "check_status_line(self._buffer)"),
    "F2": Mutant(
        "raise_break", "find_tls_error(exc) or find_tls_error(earlier)", "None"
    ),
    "F3": Mutant("CheckedRequest.__init__", "_check_method(method)"),
    "F4": Mutant(
        "ClientCodec.parse_response",
        'tunnel or status.startswith(b"1")',
        "tunnel",
    ),
    "F5": Mutant("complete_fields", '_check_hosts(field_values(fields, b"host"))'),
    "F6": Mutant("refusal_seconds", "left / 2", "left"),
    "F7": Mutant("ClientConnection._claim", "http.has_timeout_answer", "False"),
    "F8": Mutant("Route.open", 'exc.add_note(f"while connecting to {named}")'),
    "F9": Mutant(
        "_is_meant", "address is not None or given is not None", "given is not None"
    ),
    "F10": Mutant("parse_any_url", "_split_zone(authority)", "(authority, None)"),
    "F11": Mutant("Limits.header_fields", "1000", "128"),
    "F12": Mutant("Route._secure", "self._names[index]", "self._endpoints[index].host"),
    "F13": Mutant(
        "takes_end",
        "any(isinstance(layer, TLSStream) for layer in iter_layers(sink))",
        "False",
    ),
    "F14": Mutant("_client.wording.escape", "not shown.isprintable()", "False"),
    "F20": Mutant("Connection._has_late_request", "has_input(self._stream)", "False"),
    "F21": Mutant("end_stream", "exc is None", "not isinstance(exc, Exception)"),
    "F22": Mutant("_make_state", 'import_module("http")'),
    "F23": Mutant("_wait_lock", "fcntl.LOCK_EX", "fcntl.LOCK_SH"),
    "F24": Mutant(
        "Observers.report_error",
        '"error in the app, serving %r to %a"',
        '"error in the app, serving %r to %s"',
    ),
    "F25": Mutant("Request.__init__", "is_secure(transport)", "True"),
    "F26": Mutant(
        "replace_fields", "pair[0].lower() not in names", "pair[0] not in names"
    ),
    "F27": Mutant("parse_length", "length > _GREATEST_LENGTH", "False"),
    "F28": Mutant("_format_head", '"latin-1"', '"utf-8"'),
    "F29": Mutant("_check_fields", "is_text and not headers.lines(...)", "False"),
    "F30": Mutant(
        "_find_next",
        'cast("Any", stream).transport_stream',
        "stream.transport_stream if isinstance(stream, trio.SSLStream) else None",
    ),
    "F31": Mutant("Exchange.complete", "await http.turn.wait_free()"),
    "F32": Mutant("Connection._run_app", "exchange.is_client_gone", "False"),
    "F33": Mutant("UpgradedStream.reset", "reset_on_close(stream._transport)"),
    "F34": Mutant("ObservedHTTP.send_response", "self.response_begun", "cause is None"),
    "F35": Mutant("ReplayStream._take", 'self._head = b""'),
    "F36": Mutant("Exchange._drop_body", "drained + http.framing_bytes", "drained"),
    "F37": Mutant("_WITHOUT_CONTENT", "_NOT_MODIFIED"),
    "F38": Mutant("request_head._find_length", "isinstance(body, BodyStream)", "False"),
    "F39": Mutant("serve._check", "check_app(app)"),
    "F40": Mutant("ServerCodec.parse_request", "find_line_fault(raw)", "None"),
    "F41": Mutant("close_forcefully", "isinstance(below, DirectSocketStream)", "False"),
    "F42": Mutant("deadlines._BATCH", "64", "65536"),
    "F43": Mutant("AcceptLoop.__init__", "share_listener(listener)", "listener"),
    "F44": Mutant("ServerState.wait_capacity", "self._full.begins()", "True"),
    "F45": Mutant("AcceptLoop.run", "await self._accept_waiting()"),
}
