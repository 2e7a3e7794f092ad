# How serve, echo and proxy run: in this process, or in several.
from __future__ import annotations

import os
import signal
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, TypeAlias, final

import trio

from .. import (
    Limits,
    TrustedPeers,
    drain_on_signal,
    open_server,
    run_workers,
    serve_listeners,
    serve_ssl_over_tcp,
    serve_tcp,
    serve_unix,
)
from .access_log import AccessLog
from .errors import FAILURE, NAME, SUCCESS, CommandFailed, UsageFailed, describe
from .health import Health
from .listening import SocketFile, open_unix_listener
from .output import announce, show_error

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Callable
    from contextlib import AbstractAsyncContextManager

    from .. import App, ServeOptions, Server, Worker
    from .listening import Listeners, Place

# Called in each process; the block has the app for as long as that process serves.
OpenApp: TypeAlias = "Callable[[], AbstractAsyncContextManager[App]]"


@final
@dataclass(frozen=True)
class Serving:
    """How a server runs.

    Attributes:
        workers: The number of processes; None serves in this one.
        grace: Seconds that connections have in a drain; None for no limit.
        delay: Seconds from a signal to the drain.
        trusted: The proxies that may say who the client is.
        limits: The limits.
        has_access_log: Whether answers are logged.
        health: The path of health checks that are answered here; None for none.
    """

    workers: int | None
    grace: float | None
    delay: float
    trusted: TrustedPeers
    limits: Limits
    has_access_log: bool
    health: str | None

    @classmethod
    def from_arguments(cls, arguments: Namespace) -> Serving:
        """Return what the command line says.

        Raises:
            UsageFailed: A network is malformed.
        """
        try:
            trusted = TrustedPeers(arguments.trusted)
        except ValueError as exc:
            raise UsageFailed(f"--trusted: {exc}") from exc
        return cls(
            workers=arguments.workers,
            grace=arguments.grace,
            delay=arguments.delay,
            trusted=trusted,
            limits=Limits(**dict(arguments.limit)),
            has_access_log=arguments.access_log,
            health=arguments.health,
        )

    def make_options(self) -> ServeOptions:
        """Return the options of ``serve_*``."""
        observer = AccessLog(self.trusted) if self.has_access_log else None
        return {"limits": self.limits, "observer": observer}

    def wrap(self, app: App) -> App:
        """Return the app that is served: the given one, and the answers to checks."""
        return app if self.health is None else Health(app, self.health)

    def run(self, place: Place, open_app: OpenApp) -> int:
        """Serve until told to stop, and return the exit status.

        Raises:
            UsageFailed: An argument cannot be used.
            CommandFailed: The place cannot be listened on.
        """
        listeners = place.take_over()
        if self.workers is None:
            trio.run(self.serve, place, listeners, open_app)
            return SUCCESS
        return self._run_workers(self.workers, place, listeners, open_app)

    async def serve(
        self, place: Place, listeners: Listeners, open_app: OpenApp
    ) -> None:
        """Serve in this process until a signal has drained it.

        Raises:
            UsageFailed: The app cannot be called with a request.
            CommandFailed: The place cannot be listened on.
        """
        async with AsyncExitStack() as stack:
            app = self.wrap(await stack.enter_async_context(open_app()))
            try:
                server = await stack.enter_async_context(
                    self._open_server(place, listeners, app)
                )
            except TypeError as exc:
                raise UsageFailed(describe(exc)) from exc
            except OSError as exc:
                # The error of the system names no path, others name it.
                where = f" on {place.path}" if place.path and not exc.filename else ""
                raise CommandFailed(f"cannot listen{where}: {describe(exc)}") from exc
            nursery = await stack.enter_async_context(trio.open_nursery())
            # It starts when drain_on_signal() waits: who reads the URL may send a signal.
            nursery.start_soon(_announce, server.url)
            await drain_on_signal(
                server,
                signal.SIGTERM,
                signal.SIGINT,
                grace=self.grace,
                delay=self.delay,
            )

    def _open_server(
        self, place: Place, listeners: Listeners, app: App
    ) -> AbstractAsyncContextManager[Server]:
        options = self.make_options()
        context = place.make_context()
        if listeners:
            if context is not None:
                # The library's own TLS is for listeners that it opens.
                listeners = [
                    trio.SSLListener(each, context, https_compatible=True)
                    for each in listeners
                ]
            return open_server(serve_listeners, app, listeners, **options)
        if place.path is not None:
            return open_server(serve_unix, app, place.path, **options)
        if context is not None:
            return open_server(
                serve_ssl_over_tcp,
                app,
                place.port,
                context,
                host=place.host,
                **options,
            )
        return open_server(serve_tcp, app, place.port, host=place.host, **options)

    def _run_workers(
        self, workers: int, place: Place, listeners: Listeners, open_app: OpenApp
    ) -> int:
        file = None
        if place.path is not None:
            listeners = [open_unix_listener(place.path)]
            file = SocketFile(place.path)
        try:
            return run_workers(
                partial(self.work, place=place, open_app=open_app),
                workers=workers,
                grace=self.grace,
                delay=self.delay,
                port=None if listeners else place.port,
                host=None if listeners else place.host,
                listeners=listeners,
                on_ready=announce,
            )
        except OSError as exc:
            raise CommandFailed(f"cannot listen: {describe(exc)}") from exc
        finally:
            if file is not None:
                file.remove()

    async def work(self, worker: Worker, place: Place, open_app: OpenApp) -> None:
        """Serve in a worker until it has been drained."""
        try:
            async with open_app() as app:
                # Made here, so that a restart of the workers reads a new certificate.
                await worker.serve(
                    self.wrap(app),
                    ssl_context=place.make_context(),
                    **self.make_options(),
                )
        except CommandFailed as exc:
            # One line, as without workers; the supervisor sees the status, and logs it
            # with the same number.
            show_error(f"{NAME} worker {os.getpid()}", str(exc))
            raise SystemExit(FAILURE) from exc


async def _announce(url: str) -> None:
    announce(url)
