# How servers are reached: the options of connect, tunnel and websocket.
from __future__ import annotations

import ssl
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar, final

import trio

from .. import (
    OpenError,
    Proxy,
    Refused,
    open_upgrade,
    proxy_from_environment,
)
from .certificates import load_certificate, make_client_context
from .errors import CommandFailed, UsageFailed, describe
from .masking import format_request, format_response, hide
from .values import find_secrets

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Awaitable, Callable, Sequence

    from .. import DialOptions, UpgradedConnection
    from .values import Field

T = TypeVar("T")


@final
@dataclass(frozen=True)
class Dialling:
    """The options of the command line that say how a server is reached.

    Attributes:
        fields: Further fields of the request.
        via: The proxies, the nearest first; none: that of the environment.
        is_direct: Whether the environment is not asked.
        ca_file: The authorities to trust; None trusts those of the system.
        client_cert: Our certificate and its key.
        server_hostname: The name for TLS; None takes that of the URL.
        is_insecure: Whether no certificate is checked.
        seconds: How long the opening may take; None for no limit.
        is_verbose: Whether the header sections are shown.
        secrets: Texts that are not shown in them, nor in what is logged.
    """

    fields: tuple[Field, ...]
    via: tuple[str, ...]
    is_direct: bool
    ca_file: str | None
    client_cert: tuple[str, str] | None
    server_hostname: str | None
    is_insecure: bool
    seconds: float | None
    is_verbose: bool
    secrets: tuple[str, ...]

    @classmethod
    def from_arguments(cls, arguments: Namespace) -> Dialling:
        """Return what the command line says."""
        cert = arguments.client_cert
        return cls(
            fields=tuple([f for fields in arguments.header for f in fields]),
            via=tuple(arguments.via),
            is_direct=arguments.direct,
            ca_file=arguments.ca_file,
            client_cert=None if cert is None else (cert[0], cert[1]),
            server_hostname=arguments.server_name,
            is_insecure=arguments.insecure,
            seconds=arguments.timeout,
            is_verbose=arguments.verbose,
            secrets=tuple(find_secrets([*vars(arguments).values()])),
        )

    @property
    def headers(self) -> list[tuple[str, str]]:
        """The further fields, as the library takes them."""
        return [(field.name, field.value) for field in self.fields]

    def make_options(self, url: str) -> DialOptions:
        """Return the options of ``open_*`` for a URL.

        Raises:
            UsageFailed: A file cannot be used, or a proxy's URL is malformed.
            CommandFailed: The extra for SOCKS is not installed.
        """
        options: DialOptions = {
            "via": self.find_proxies(url),
            "server_hostname": self.server_hostname,
        }
        if self.ca_file or self.client_cert or self.is_insecure:
            options["ssl_context"] = self._make_context()
        return options

    def find_proxies(self, url: str) -> list[Proxy]:
        """Return the proxies on the way to a URL, the nearest first.

        Raises:
            UsageFailed: The URL, or that of a proxy, is malformed.
            CommandFailed: The extra for SOCKS is not installed.
        """
        try:
            if self.via:
                return [Proxy(proxy) for proxy in self.via]
            found = None if self.is_direct else proxy_from_environment(url)
        except ModuleNotFoundError as exc:
            raise CommandFailed(describe(exc)) from exc
        except ValueError as exc:
            raise UsageFailed(describe(exc)) from exc
        return [] if found is None else [found]

    def _make_context(self) -> ssl.SSLContext:
        context = make_client_context(self.ca_file)
        if self.client_cert is not None:
            load_certificate(context, *self.client_cert)
        context.set_alpn_protocols(["http/1.1"])
        if self.is_insecure:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return context

    async def attempt(self, opening: Awaitable[T]) -> T:
        """Await an opening within the time that it may take.

        Raises:
            UsageFailed: An argument of it is malformed; nothing was opened.
            CommandFailed: The server cannot be reached, refused, or took too long.
        """
        if self.seconds is None:
            return await self.translate(opening)
        try:
            with trio.fail_after(self.seconds):
                return await self.translate(opening)
        except trio.TooSlowError:
            raise CommandFailed(f"no answer within {self.seconds:g} seconds") from None

    async def translate(self, opening: Awaitable[T]) -> T:
        """Await an opening, without a limit; see :meth:`attempt` for what is raised."""
        try:
            return await opening
        except Refused as exc:
            self.show(format_response(exc.response.head))
            raise CommandFailed(describe(exc)) from exc
        except (OpenError, OSError, ModuleNotFoundError) as exc:
            raise CommandFailed(describe(exc)) from exc
        except (ValueError, TypeError) as exc:
            # Raised before anything was opened.
            raise UsageFailed(describe(exc)) from exc

    async def open_upgrade(
        self, url: str, protocols: Sequence[str], *, method: str, body: bytes
    ) -> UpgradedConnection:
        """Open an upgrade, and show both header sections if that is wanted.

        Raises:
            UsageFailed: As :meth:`attempt`.
            CommandFailed: As :meth:`attempt`.
        """

        async def open_on(options: DialOptions) -> UpgradedConnection:
            return await open_upgrade(
                url,
                *protocols,
                method=method,
                headers=self.headers,
                body=body,
                **options,
            )

        options = self.make_options(url)
        await self.show_request(open_on)
        connection = await self.attempt(open_on(options))
        self.show(format_response(connection.response))
        return connection

    async def show_request(
        self, open_on: Callable[[DialOptions], Awaitable[object]]
    ) -> None:
        """Show the request that a function makes on the connection that it opens.

        The library does not show what it sends, and a copy of its rules here could be
        wrong: so the request is made once more, on a stream that only keeps it.
        """
        if not self.is_verbose:
            return
        recorder = Recorder()
        try:
            await self.translate(open_on({"stream": recorder}))
        except UsageFailed:
            raise
        except CommandFailed:
            pass  # The stream ends before the answer.
        secret = {field.name.lower() for field in self.fields if field.is_secret}
        self.show(format_request(bytes(recorder.sent), secret))

    def show(self, lines: Sequence[str]) -> None:
        """Show lines on standard error, if that is wanted."""
        if self.is_verbose:
            shown = [f"{hide(line, self.secrets)}\n" for line in lines]
            sys.stderr.write("".join(shown))
            sys.stderr.flush()


@final
class Recorder(trio.abc.Stream):
    """A stream that keeps what is sent, and has ended.

    Attributes:
        sent: What was sent.
    """

    def __init__(self) -> None:
        self.sent: bytearray = bytearray()

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Keep bytes."""
        await trio.lowlevel.checkpoint()
        self.sent += data

    async def wait_send_all_might_not_block(self) -> None:
        """Return at once."""
        await trio.lowlevel.checkpoint()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:  # noqa: ARG002  as Trio has it
        """Return the end."""
        await trio.lowlevel.checkpoint()
        return b""

    async def aclose(self) -> None:
        """Do nothing."""
        await trio.lowlevel.checkpoint()
