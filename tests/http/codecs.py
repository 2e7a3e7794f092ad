# Codecs of both roles, ready for a message.
from __future__ import annotations

from trio_upgrade import Limits
from trio_upgrade._http.client_codec import ClientCodec
from trio_upgrade._http.server_codec import ServerCodec


def make_server(limits: Limits | None = None) -> ServerCodec:
    return ServerCodec(limits or Limits())


def make_client(*fields: tuple[bytes, bytes], method: str = "GET") -> ClientCodec:
    codec = ClientCodec(Limits())
    codec.write_request(method, "/", [(b"Host", b"x"), *fields])
    codec.write_end()
    return codec
