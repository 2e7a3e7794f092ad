# The command line: its options, and the help that a person reads.
from __future__ import annotations

import argparse
import re
from importlib import import_module
from typing import TYPE_CHECKING, Any, NoReturn, TypeAlias, final

from .errors import NAME, UsageFailed
from .values import (
    parse_body,
    parse_count,
    parse_delay,
    parse_descriptor,
    parse_field_file,
    parse_fields,
    parse_health,
    parse_limit,
    parse_network,
    parse_offer,
    parse_path,
    parse_port,
    parse_ports,
    parse_seconds,
    parse_text,
    parse_users,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

# Both have add_argument().
_Options: TypeAlias = "Parser | argparse._ArgumentGroup"  # pyright: ignore[reportPrivateUsage]

_DESCRIPTION = """\
Serve and use HTTP/1.1 connections that become something else: upgrades, tunnels,
WebSockets."""

_EPILOG = f"""\
Start with a server that echoes, and a client in another terminal:

  {NAME} echo --port 8000
  {NAME} connect http://127.0.0.1:8000/ echo

"{NAME} COMMAND --help" says more, with examples. Standard output gets data, or
one line with the URL; logs and errors go to standard error. The exit status is 0 after
success or a drain, 1 after a failure, 2 for a wrong command line, and 130 after Ctrl-C.

Arguments that may be secret (URLs, proxies, fields) can be @FILE or env:NAME: then no
other user sees them in the list of processes, and no shell keeps them."""

_SERVING = """\
SIGTERM or Ctrl-C drains: no new connection is accepted, open ones have --grace seconds,
and a second signal ends that time. Then the exit status is 0."""

_SERVE = f"""\
Serve an application that MODULE:APP names, as in main:app. Modules are also looked for in
the working directory.

{_SERVING}

examples:
  {NAME} serve main:app                          an app of this library
  {NAME} serve main:app --asgi --port 8080       FastAPI, Starlette, Litestar
  {NAME} serve main:app --workers 4 --grace 30   four processes on one port
  {NAME} serve main:app --health /up --delay 5   behind a load balancer
  {NAME} serve main:app --host '*' --port 443 --tls cert.pem key.pem
  {NAME} serve main:app --limit connections=500 --limit body_timeout=none
  {NAME} serve main:app --fd 3                   under systemd's socket activation"""

_ECHO = f"""\
Accept every offer and every CONNECT, and send back what comes, to try clients and
proxies. Other requests get a 200.

{_SERVING}

examples:
  {NAME} echo --port 8000
  {NAME} echo --unix /tmp/echo.sock"""

_CONNECT = f"""\
Upgrade a connection to PROTOCOL, and join it to standard input and output. The end of
standard input is passed on as a half-close; the command ends when the server has ended.

examples:
  echo hello | {NAME} connect http://127.0.0.1:8000/ echo
  {NAME} connect -v https://example.com/chat chat/2 --header @headers.txt
  {NAME} connect http+unix://%2Frun%2Fdocker.sock/exec/ID/start tcp \\
      --method POST --header 'Content-Type: application/json' \\
      --body '{{"Detach": false, "Tty": true}}'"""

_TUNNEL = f"""\
Join standard input and output, or each connection to a local port, to TARGET: host:port
(or host and port) through proxies, or the URL of an endpoint that upgrades to --protocol.
Without --via the environment names the proxy: https_proxy, all_proxy, no_proxy. If it
names none, the connection is direct.

examples:
  ssh -o ProxyCommand='{NAME} tunnel %h:%p --via http://proxy:3128' user@host
  {NAME} tunnel db.internal:5432 --listen 5432 --via socks5h://127.0.0.1:1080
  ssh -o ProxyCommand='{NAME} tunnel https://example.com/ssh --protocol ssh' user@x
  {NAME} tunnel https://example.com/ssh --protocol ssh --carriers --listen 2222"""

_PROXY = f"""\
Forward requests and upgrades to UPSTREAM, the URL of a server without a path; or, with
--forward, to the hosts that clients name. Names of protocols are compared without case,
versions exactly.

{_SERVING}

examples:
  {NAME} proxy http://127.0.0.1:8000 --port 8080
  {NAME} proxy http+unix://%2Frun%2Fapp.sock --upgrade websocket --upgrade tcp
  {NAME} proxy --forward --port 3128
  {NAME} proxy --forward --allow 10.0.0.0/8 --allow-port 22 --allow-port 443"""

_WEBSOCKET = f"""\
Open a WebSocket: each line of standard input is sent as a message, and each message is a
line of standard output. On a terminal JSON is indented. Binary messages are shown in
base64. It needs the extra: pip install "trio-upgrade[websocket]"

examples:
  {NAME} websocket ws://127.0.0.1:8000/chat
  echo '{{"op": "ping"}}' | {NAME} websocket wss://example.com/ --wait 5"""


@final
class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line, without the words that may be secret."""

    def __init__(self, **settings: Any) -> None:  # noqa: ANN401  those of the base class
        super().__init__(
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
            **settings,
        )

    def error(self, message: str) -> NoReturn:
        """Report a wrong command line.

        Raises:
            UsageFailed: Always.
        """
        message = re.sub(r"ignored explicit argument .*", "it takes no value", message)
        raise UsageFailed(f"{message} (see {self.prog} --help)")


def parse(words: Sequence[str] | None) -> argparse.Namespace:
    """Parse a command line.

    Args:
        words: Its words; None takes those of this program.

    Raises:
        UsageFailed: It is wrong.
        SystemExit: It asked for help, or the version, which was printed.
    """
    parser = make_parser()
    arguments, unknown = parser.parse_known_args(words)
    if unknown:
        parser.prog = f"{NAME} {arguments.command}"
        parser.error(_describe_unknown(unknown))
    return arguments


def find_run(command: str) -> Callable[[argparse.Namespace], int]:
    """Return the function of a subcommand. Only its modules are imported."""
    run: Callable[[argparse.Namespace], int]
    run = import_module(f".{command}", __package__).run
    return run


def _describe_unknown(words: Sequence[str]) -> str:
    # Only the names of options: a value, or an argument too many, may be a secret.
    for word in words:
        if word.startswith("--"):
            return f"there is no option {word.partition('=')[0]}"
        if word.startswith("-"):
            return f"there is no option {word[:2]}"
    return "too many arguments, or options between them"


def make_parser() -> Parser:
    """Return the parser of the whole command line."""
    parser = Parser(prog=NAME, description=_DESCRIPTION, epilog=_EPILOG)
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version")
    commands = parser.add_subparsers(
        title="commands", dest="command", metavar="COMMAND", required=True
    )

    def add(name: str, summary: str, text: str) -> Parser:
        # The examples come last, where the reader of a long help looks first.
        description, _, examples = text.partition("\n\nexamples:")
        return commands.add_parser(
            name, help=summary, description=description, epilog=f"examples:{examples}"
        )

    _fill_serve(add("serve", "serve an application", _SERVE))
    _fill_echo(add("echo", "serve an echo of any protocol", _ECHO))
    _fill_connect(add("connect", "stdin and stdout on an upgrade", _CONNECT))
    _fill_tunnel(add("tunnel", "a port or stdio through proxies", _TUNNEL))
    _fill_proxy(add("proxy", "a reverse or a forward proxy", _PROXY))
    _fill_websocket(add("websocket", "lines on a WebSocket", _WEBSOCKET))
    return parser


class _Version(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> NoReturn:
        # Imported when it is asked for: importlib.metadata is slow.
        from .. import __version__

        parser.exit(0, f"trio_upgrade {__version__}\n")


def _fill_serve(parser: Parser) -> None:
    parser.add_argument("app", metavar="MODULE:APP", help="the application")
    parser.add_argument(
        "--asgi", action="store_true", help="it is an application of ASGI"
    )
    _add_serving(parser)


def _fill_echo(parser: Parser) -> None:
    _add_serving(parser)


def _fill_connect(parser: Parser) -> None:
    parser.add_argument("url", metavar="URL", type=parse_text, help="http, https, …")
    parser.add_argument(
        "protocol", metavar="PROTOCOL", nargs="+", help="name or name/version"
    )
    parser.add_argument(
        "--method", default="GET", help="the method of the request (%(default)s)"
    )
    parser.add_argument(
        "--body",
        type=parse_body,
        default=b"",
        metavar="TEXT",
        help="the content of the request, or @FILE",
    )
    parser.add_argument(
        "--keep-open",
        action="store_true",
        help="do not pass on the end of stdin, for proxies that close both ways then "
        "(nginx, Caddy, tinyproxy)",
    )
    _add_dialling(parser)


def _fill_tunnel(parser: Parser) -> None:
    parser.add_argument(
        "target", metavar="TARGET", type=parse_text, help="host:port, or a URL"
    )
    parser.add_argument(
        "to_port", metavar="PORT", nargs="?", type=parse_port, help="if not in TARGET"
    )
    parser.add_argument(
        "--listen",
        type=_parse_local,
        metavar="[HOST:]PORT",
        help="a local port instead of stdio; HOST is 127.0.0.1 unless given",
    )
    parser.add_argument(
        "--protocol", metavar="NAME", help="what the endpoint upgrades to"
    )
    parser.add_argument(
        "--carriers",
        action="store_true",
        help="try Upgrade, then a WebSocket, then CONNECT (trio_upgrade.carrier)",
    )
    _add_grace(parser)
    _add_dialling(parser)


def _fill_proxy(parser: Parser) -> None:
    parser.add_argument(
        "upstream", metavar="UPSTREAM", nargs="?", type=parse_text, help="a URL"
    )
    parser.add_argument(
        "--upgrade",
        action="append",
        default=[],
        type=parse_offer,
        metavar="PROTOCOL",
        help="pass on this offer, NAME or NAME/VERSION (chat is not chat/1), or * for "
        "any; websocket unless given; a request with other offers is passed on without "
        "them; may be repeated",
    )
    forward = parser.add_argument_group("a forward proxy")
    forward.add_argument(
        "--forward", action="store_true", help="go where the client says"
    )
    forward.add_argument(
        "--allow",
        action="append",
        default=[],
        type=parse_network,
        metavar="NETWORK",
        help="allow this network although it is not public; may be repeated",
    )
    forward.add_argument(
        "--allow-port",
        action="append",
        default=[],
        type=parse_ports,
        metavar="PORT",
        help="the ports, also as FIRST-LAST, instead of 443, 8443 (CONNECT), and 80, "
        "8080; may be repeated",
    )
    forward.add_argument(
        "--users",
        type=parse_users,
        metavar="@FILE",
        help="lines user:password, without comments; others get a 407",
    )
    _add_serving(parser, "log more: each tunnel that has ended, and why")


def _fill_websocket(parser: Parser) -> None:
    parser.add_argument("url", metavar="URL", type=parse_text, help="ws, wss, http, …")
    parser.add_argument(
        "--subprotocol",
        action="append",
        default=[],
        type=parse_text,
        metavar="NAME",
        help="offer this one, @FILE or env:NAME; may be repeated",
    )
    parser.add_argument("--origin", help="the Origin field, for servers that want one")
    parser.add_argument(
        "--wait",
        type=parse_seconds,
        default=1.0,
        metavar="SECONDS",
        help="silence after the end of stdin until it is closed (1); none waits for the "
        "server",
    )
    _add_dialling(parser)


def _add_serving(parser: Parser, verbose: str = "log more") -> None:
    place = parser.add_argument_group("where to listen")
    place.add_argument(
        "--host", help="the address (127.0.0.1), * for every address of this machine"
    )
    place.add_argument(
        "--port", type=parse_port, help="the port (8000), 0 for any free one"
    )
    place.add_argument(
        "--unix", type=parse_path, metavar="PATH", help="a Unix socket instead"
    )
    place.add_argument(
        "--fd",
        action="append",
        default=[],
        type=parse_descriptor,
        metavar="NUMBER",
        help="a listening socket that another program has opened, as systemd does; may "
        "be repeated; without any address systemd's are used",
    )
    place.add_argument(
        "--tls", nargs=2, metavar=("CERT", "KEY"), help="HTTPS: two files in PEM"
    )
    group = parser.add_argument_group("serving")
    group.add_argument(
        "--workers",
        type=parse_count,
        metavar="N",
        help="serve in N processes; one that dies is replaced, and SIGHUP replaces all",
    )
    _add_grace(group)
    group.add_argument(
        "--delay",
        type=parse_delay,
        default=0.0,
        metavar="SECONDS",
        help="serve on after a signal, so that health checks can fail first: --health, "
        "or an app that looks at request.server.is_leaving (0)",
    )
    group.add_argument(
        "--health",
        type=parse_health,
        metavar="PATH",
        help="answer GET and HEAD of this path here: 200, and 503 from a signal on",
    )
    group.add_argument(
        "--trusted",
        action="append",
        default=[],
        metavar="NETWORK",
        help="proxies that may say who the client is, or unix; may be repeated",
    )
    group.add_argument(
        "--limit",
        action="append",
        default=[],
        type=parse_limit,
        metavar="NAME=VALUE",
        help="a field of trio_upgrade.Limits; may be repeated",
    )
    group.add_argument(
        "--access-log",
        action="store_true",
        help="a line on stderr for each answer, without queries and passwords",
    )
    _add_verbose(group, verbose)


def _add_grace(parser: _Options) -> None:
    parser.add_argument(
        "--grace",
        type=parse_seconds,
        default=10.0,
        metavar="SECONDS",
        help="how long connections may go on after a signal (10); none for no limit",
    )


def _add_dialling(parser: Parser) -> None:
    group = parser.add_argument_group("dialling")
    group.add_argument(
        "-H",
        "--header",
        action="append",
        default=[],
        type=parse_fields,
        metavar="FIELD",
        help='"Name: value", @FILE or env:NAME; may be repeated',
    )
    group.add_argument(
        "--header-file",
        action="append",
        dest="header",
        type=parse_field_file,
        metavar="FILE",
        help="the same as --header @FILE",
    )
    group.add_argument(
        "--via",
        action="append",
        default=[],
        type=parse_text,
        metavar="PROXY",
        help="http, https, socks5 or socks5h URL, @FILE or env:NAME; repeated for a "
        "chain, the nearest first; the environment's proxy unless given",
    )
    group.add_argument(
        "--direct", action="store_true", help="no proxy of the environment"
    )
    group.add_argument(
        "--ca-file", metavar="FILE", help="the authorities to trust, in PEM"
    )
    group.add_argument(
        "--client-cert", nargs=2, metavar=("CERT", "KEY"), help="for servers that ask"
    )
    group.add_argument(
        "--server-name", metavar="NAME", help="for TLS, instead of the URL's host"
    )
    group.add_argument(
        "--insecure", action="store_true", help="do not check certificates"
    )
    group.add_argument(
        "--timeout",
        type=parse_seconds,
        default=30.0,
        metavar="SECONDS",
        help="how long the opening may take (30); none for no limit",
    )
    _add_verbose(group, "show both header sections, without secrets")


def _add_verbose(parser: _Options, text: str) -> None:
    parser.add_argument("-v", "--verbose", action="store_true", help=text)


def _parse_local(word: str) -> tuple[str, int]:
    host, _, port = word.rpartition(":")
    return host.strip("[]") or "127.0.0.1", parse_port(port)
