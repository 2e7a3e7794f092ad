# The counts of a pool.
#
# Annotations are evaluated in this module: NamedTuple would compile each that is a string
# at import.

from typing import NamedTuple

from .._util import public


@public
class PoolStatistics(NamedTuple):
    """Counts of a pool, now and since its start; from ``ConnectionPool.statistics()``.

    Attributes:
        in_use: Connections that are used by a request, being dialled, or being closed.
        idle: Connections that wait for a request.
        waiting: Requests that wait for a connection.
        total_connections: Connections that were dialled since the start.
        total_requests: Requests that were made on them, each once.
        total_retried: Requests that were made a second time.
    """

    in_use: int
    idle: int
    waiting: int
    total_connections: int
    total_requests: int
    total_retried: int
