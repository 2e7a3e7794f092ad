"""The results, as Markdown tables and as a picture of the ratios."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from html import escape

OURS, NODE, NOTHING = "trio_upgrade", "Node", "-"
# If the load generator uses at least this share of its core, it limits the rate.
LIMIT = 0.9
# The range of the picture, as factors of Node's figure.
LEAST, MOST = 1 / 8, 8.0
LEFT, WIDTH, LINE = 250, 460, 26


@dataclass
class Row:
    """One peer's figures: the median of the rounds, and the least CPU per operation."""

    peer: str
    value: float
    cpu: float | None = None
    # The share of a core that the load generator used.
    load: float | None = None
    spread: float | None = None


@dataclass
class Result:
    """One figure of all peers that were found."""

    title: str
    rows: list[Row] = field(default_factory=list)
    # The unit of the CPU column, and the factor from seconds per operation.
    cpu_unit: str = ""
    cpu_factor: float = 1e6
    less_is_better: bool = False
    note: str = ""

    def row(self, peer: str) -> Row | None:
        """Find a peer's row."""
        return next((row for row in self.rows if row.peer == peer), None)

    def ratio(self, row: Row) -> float | None:
        """Divide by Node's value."""
        node = self.row(NODE)
        return row.value / node.value if node and node.value else None

    def cpu_ratio(self, row: Row) -> float | None:
        """Divide by Node's CPU per operation."""
        node = self.row(NODE)
        if node is None or not node.cpu or row.cpu is None:
            return None
        return row.cpu / node.cpu


def number(value: float | None) -> str:
    """Format a number with three digits, or with more if it is 1,000 or larger."""
    if value is None:
        return NOTHING
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2
    return f"{value:,.{digits}f}"


def share(value: float | None) -> str:
    """Format a percentage."""
    return NOTHING if value is None else f"{value:.0%}".replace("%", " %")


def summary(results: list[Result]) -> str:
    """Make the first table: our ratios to Node, and the other peers'."""
    lines = [
        "| Node = 1.00 | trio_upgrade | its CPU per operation | others: figure (CPU) |",
        "| --- | --- | --- | --- |",
    ]
    for result in results:
        ours = result.row(OURS)
        if ours is None or result.row(NODE) is None:
            continue
        others = [row for row in result.rows if row.peer not in (OURS, NODE)]
        told = ", ".join(
            f"{row.peer} {number(result.ratio(row))}"
            + (f" ({number(result.cpu_ratio(row))})" if row.cpu is not None else "")
            for row in others
        )
        # With its core used up, the load generator determines the rates.
        node = result.row(NODE)
        limited = any((row.load or 0) >= LIMIT for row in (ours, node) if row)
        mark = " †" if limited else ""
        lines.append(
            f"| {result.title} | **{number(result.ratio(ours))}**{mark} "
            f"| {number(result.cpu_ratio(ours))} | {told} |"
        )
    return "\n".join(lines) + "\n"


def full(results: list[Result]) -> str:
    """Make the tables with all figures, one section for each."""
    lines: list[str] = []
    for result in results:
        lines += [f"### {result.title}", ""]
        if result.note:
            lines += [result.note, ""]
        unit = result.cpu_unit or "CPU"
        lines += [
            f"| peer | figure | ÷ Node | {unit} | ÷ Node | load's core | spread |",
            "| --- | --- | --- | --- | --- | --- | --- |",
        ]
        order = sorted(
            result.rows, key=lambda row: row.value, reverse=not result.less_is_better
        )
        for row in order:
            name = f"**{row.peer}**" if row.peer == OURS else row.peer
            cpu = None if row.cpu is None else row.cpu * result.cpu_factor
            mark = " †" if (row.load or 0) >= LIMIT else ""
            cells = [
                name,
                number(row.value),
                number(result.ratio(row)),
                number(cpu),
                number(result.cpu_ratio(row)),
                share(row.load) + mark,
                share(row.spread),
            ]
            lines.append(f"| {' | '.join(cells)} |")
        lines.append("")
    return "\n".join(lines)


STYLE = """\
text { font: 13px system-ui, sans-serif; fill: #1f2328; }
.faint { font-size: 11px; fill: #6e7781; }
line { stroke: #d0d7de; } .one { stroke: #6e7781; stroke-width: 2; }
.ours { fill: #1f6feb; } .cpu { fill: none; stroke: #1f6feb; stroke-width: 2; }
.other { fill: #8c959f; }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3; } .faint { fill: #9198a1; }
  line { stroke: #3d444d; } .one { stroke: #9198a1; }
  .ours { fill: #58a6ff; } .cpu { stroke: #58a6ff; } .other { fill: #7d8590; }
}
"""


def place(factor: float) -> float:
    """Return the x of a factor, on a logarithmic scale that is cut at both ends."""
    factor = min(max(factor, LEAST), MOST)
    return LEFT + WIDTH * math.log(factor / LEAST) / math.log(MOST / LEAST)


def picture(results: list[Result]) -> str:
    """Draw how many times better than Node each peer is; right is always better."""
    shown = [result for result in results if result.row(NODE) and result.row(OURS)]
    height = 66 + LINE * len(shown)
    right = LEFT + WIDTH
    parts = [
        '<svg xmlns="http://www.w3.org/2000/svg" role="img"',
        f' viewBox="0 0 {right + 30} {height}" width="{right + 30}" height="{height}">',
        "<title>trio_upgrade compared with Node and others, right is better</title>",
        f"<style>\n{STYLE}</style>",
        '<circle class="ours" cx="16" cy="16" r="6"/>',
        '<text x="28" y="20">trio_upgrade</text>',
        '<circle class="cpu" cx="126" cy="16" r="5"/>',
        '<text x="138" y="20">its CPU per operation</text>',
        '<circle class="other" cx="286" cy="16" r="4"/>',
        '<text x="298" y="20">others</text>',
        f'<text class="faint" x="{right}" y="20" text-anchor="end">',
        "times better than Node →</text>",
    ]
    factor = LEAST
    while factor <= MOST:
        x = place(factor)
        label = f"{factor:g}" if factor >= 1 else f"1/{1 / factor:g}"
        one = ' class="one"' if factor == 1 else ""
        parts.append(
            f'<line{one} x1="{x:.1f}" y1="32" x2="{x:.1f}" y2="{height - 24}"/>'
            f'<text class="faint" x="{x:.1f}" y="{height - 8}" '
            f'text-anchor="middle">{label}</text>'
        )
        factor *= 2
    for index, result in enumerate(shown):
        y = 48 + LINE * index
        parts.append(f'<text x="10" y="{y + 4}">{escape(result.title)}</text>')
        dots: list[tuple[str, int, str, float]] = []
        for row in result.rows:
            ratio, cpu = result.ratio(row), result.cpu_ratio(row)
            if row.peer == NODE or not ratio:
                continue
            better = 1 / ratio if result.less_is_better else ratio
            ours = row.peer == OURS
            dots.append(
                ("ours" if ours else "other", 6 if ours else 4, row.peer, better)
            )
            if ours and cpu:
                dots.append(("cpu", 5, f"{row.peer}, CPU", 1 / cpu))
        # Ours last, on top of the others.
        for kind, radius, name, better in sorted(
            dots, key=lambda dot: dot[0] != "other"
        ):
            tip = escape(f"{name}: {number(better)}")
            parts.append(
                f'<circle class="{kind}" cx="{place(better):.1f}" cy="{y}" '
                f'r="{radius}"><title>{tip}</title></circle>'
            )
    return "\n".join([*parts, "</svg>", ""])
