# /// script
# requires-python = ">=3.11"
# dependencies = ["trio-upgrade"]
# ///
"""A server that is watched: an access log, and metrics for Prometheus.

    python examples/observing.py [PORT]

Standard output gets one line in Common Log Format for each answer and each switch; the
log of the library goes to standard error. ``GET /metrics`` gets the metrics in
Prometheus's text format; a server on the internet had better serve them on another port.
Offers of ``echo`` are accepted, everything else gets 200. PORT is 1337 unless given; 0
takes any free port. Ctrl-C or SIGTERM drains the server.
"""

from __future__ import annotations

import logging
import signal
import sys
from bisect import bisect_left
from collections import Counter
from datetime import datetime, timedelta
from functools import partial
from itertools import accumulate

import trio

from trio_upgrade import (
    EndReason,
    EndRecord,
    Request,
    RequestRecord,
    Response,
    Server,
    ServerStatistics,
    SwitchRecord,
    Upgrade,
    UpgradedStream,
    drain_on_signal,
    pipe,
    serve_tcp,
)

# Upper bounds of the histogram, in seconds.
BUCKETS = (0.001, 0.01, 0.1, 1.0, 10.0)
METRICS_TYPE = {"Content-Type": "text/plain; version=0.0.4; charset=utf-8"}


def format_line(record: RequestRecord | SwitchRecord) -> str:
    """Return the line of an answer in Common Log Format."""
    host = record.peer[0] if isinstance(record.peer, tuple) else "-"
    # The time of the request. The month is English unless locale.setlocale() was called.
    began = datetime.now().astimezone() - timedelta(seconds=record.seconds)
    time = began.strftime("%d/%b/%Y:%H:%M:%S %z")
    request, line = record.request, "-"
    if request is not None:
        line = f"{request.method} {request.target} HTTP/{request.http_version}"
    # As in Apache's: nothing in a line may end it, or its quotes, or reach a terminal.
    line = line.encode("unicode_escape").decode().replace('"', '\\"')
    size = record.content if isinstance(record, RequestRecord) else 0
    return f'{host} - - [{time}] "{line}" {record.status} {size or "-"}'


class Watcher:
    """The observer: prints the access log, and counts what the server does not count.

    Its methods run in the tasks of connections and must not wait: if standard output is
    a pipe that is read slowly, write to it in another thread.
    """

    def __init__(self) -> None:
        self.switches: Counter[str] = Counter()
        self.ends: Counter[EndReason] = Counter()
        self.cut = 0
        # The last one has no upper bound.
        self.buckets = [0] * (len(BUCKETS) + 1)
        self.seconds = 0.0

    def request(self, record: RequestRecord) -> None:
        """Handle the record of an answer."""
        print(format_line(record), flush=True)
        self.cut += record.cause is not None
        self.buckets[bisect_left(BUCKETS, record.seconds)] += 1
        self.seconds += record.seconds

    def switched(self, record: SwitchRecord) -> None:
        """Handle the record of a switch."""
        print(format_line(record), flush=True)
        self.switches[record.protocol] += 1

    def ended(self, record: EndRecord) -> None:
        """Handle the record of a connection that has ended."""
        self.ends[record.reason] += 1

    def format_metrics(self, counts: ServerStatistics) -> str:
        """Return all metrics in Prometheus's text format."""
        classes = ("2xx", "3xx", "4xx", "5xx", "other")
        busy = counts.connections - counts.idle - counts.upgraded
        return "".join(
            (
                self._format_histogram("http_request_duration_seconds"),
                format_metric(
                    "http_responses_total",
                    {f'class="{c}"': getattr(counts, f"total_{c}") for c in classes},
                ),
                format_metric("http_responses_cut_total", {"": self.cut}),
                format_metric(
                    "http_requests_refused_total", {"": counts.total_refused}
                ),
                # The value of a label has its backslashes, quotes and line ends escaped,
                # but a protocol has none of these.
                format_metric(
                    "http_switches_total",
                    {f'protocol="{name}"': n for name, n in self.switches.items()},
                ),
                format_metric("app_errors_total", {"": counts.total_errors}),
                format_metric("tls_failures_total", {"": counts.total_tls_failed}),
                format_metric(
                    "connections",
                    {
                        'state="idle"': counts.idle,
                        'state="busy"': busy,
                        'state="upgraded"': counts.upgraded,
                    },
                    kind="gauge",
                ),
                format_metric(
                    "connections_ended_total",
                    {f'reason="{r.name.lower()}"': n for r, n in self.ends.items()},
                ),
            )
        )

    def _format_histogram(self, name: str) -> str:
        numbers = list(accumulate(self.buckets))
        buckets = {
            f'le="{bound}"': number
            for bound, number in zip((*BUCKETS, "+Inf"), numbers, strict=True)
        }
        text = format_metric(f"{name}_bucket", buckets, kind="")
        text += f"{name}_sum {self.seconds}\n{name}_count {numbers[-1]}\n"
        return f"# TYPE {name} histogram\n{text}"


def format_metric(name: str, samples: dict[str, int], kind: str = "counter") -> str:
    """Return the samples of a metric, one for each set of labels."""
    lines = [f"# TYPE {name} {kind}"] if kind else []
    for labels, value in samples.items():
        lines.append(f"{name}{{{labels}}} {value}" if labels else f"{name} {value}")
    return "\n".join(lines) + "\n"


async def echo(_request: Request, stream: UpgradedStream, _head: bytes) -> None:
    await pipe(stream, stream)


async def app(request: Request, *, watcher: Watcher) -> Response | Upgrade:
    if request.path == "/metrics":
        text = watcher.format_metrics(request.server.statistics())
        return Response(200, text, METRICS_TYPE)
    if "echo" in request.upgrades:
        return Upgrade("echo", echo)
    return Response(200, "okay\n", {"Content-Type": "text/plain"})


async def main(port: int) -> None:
    watcher = Watcher()
    async with trio.open_nursery() as nursery:
        server: Server = await nursery.start(
            partial(
                serve_tcp,
                partial(app, watcher=watcher),
                port,
                host="127.0.0.1",
                observer=watcher,
            )
        )
        print(f"listening at {server.url}", file=sys.stderr, flush=True)
        await drain_on_signal(server, signal.SIGTERM, signal.SIGINT, grace=3)


if __name__ == "__main__":
    logging.basicConfig()
    trio.run(main, int(sys.argv[1]) if len(sys.argv) > 1 else 1337)
