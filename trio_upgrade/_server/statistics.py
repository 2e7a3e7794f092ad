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
        total_upgraded: Switches.
        total_errors: Exceptions of apps and handlers.
        is_draining: Whether a drain has begun.
    """

    connections: int
    waiting: int
    idle: int
    upgraded: int
    total_connections: int
    total_requests: int
    total_upgraded: int
    total_errors: int
    is_draining: bool
