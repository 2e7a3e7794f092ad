"""An echo and an ordinary response over TLS, by this library.

python benchmarks/compare/peers/tls_echo.py PORT CERTIFICATE
"""

from __future__ import annotations

import ssl
import sys
from functools import partial

import trio

from benchmarks.compare.peers.echo_app import app
from trio_upgrade import serve_ssl_over_tcp

if __name__ == "__main__":
    _, port, certificate = sys.argv
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    serve = partial(serve_ssl_over_tcp, app, host="127.0.0.1", backlog=1024)
    trio.run(serve, int(port), context)
