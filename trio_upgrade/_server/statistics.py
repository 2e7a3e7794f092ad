# The counts of a server.
#
# Annotations are evaluated in this module: NamedTuple would compile each that is a string
# at import.

from typing import NamedTuple

from .._util import public


@public
class ServerStatistics(NamedTuple):
    """Counts of a server, now and since its start; from ``Server.statistics()``.

    Attributes:
        connections: Open connections, upgraded ones included.
        waiting: Connections that wait in the kernel's backlog to be accepted, for example
            because ``Limits.connections`` are open. Their number is known for TCP on
            Linux; any other listener counts 1 if one or more wait.
        idle: Open connections with no request under way.
        upgraded: Open connections that have switched.
        total_connections: Connections since the start.
        total_requests: Requests whose header section was received whole.
        total_refused: Header sections that were refused, or came too slowly. Their
            answers are counted below, too.
        total_2xx: Answers with a status from 200 to 299, also those that were cut. The
            200 of a tunnel is a switch, not an answer.
        total_3xx: Those from 300 to 399.
        total_4xx: Those from 400 to 499.
        total_5xx: Those from 500 to 599.
        total_other: Those from 600 on.
        total_upgraded: Switches.
        total_errors: Exceptions of apps and handlers.
        total_tls_failed: Connections that ended with ``EndReason.TLS_FAILED``.
        is_draining: Whether a drain has begun.
    """

    connections: int
    waiting: int
    idle: int
    upgraded: int
    total_connections: int
    total_requests: int
    total_refused: int
    total_2xx: int
    total_3xx: int
    total_4xx: int
    total_5xx: int
    total_other: int
    total_upgraded: int
    total_errors: int
    total_tls_failed: int
    is_draining: bool
