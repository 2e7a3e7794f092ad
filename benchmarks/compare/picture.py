"""The results as a picture of the ratios, all on one scale."""

from __future__ import annotations

import math
from html import escape
from typing import NamedTuple

from .report import NODE, OURS, Result, number

LEFT, WIDTH, LINE = 300, 460, 26
# The scale has at least these factors, so that a point near 1 is near the middle line.
LEAST, MOST = 1 / 2, 2.0

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


class Dot(NamedTuple):
    """A peer in the line of one figure."""

    kind: str
    radius: int
    name: str
    # How many times better than the peer that is 1.00.
    better: float


class Scale:
    """A logarithmic scale that has room for all dots: no dot is moved to an end.

    Args:
        factors: The places of all dots.
    """

    def __init__(self, factors: list[float]) -> None:
        self._least = math.floor(math.log2(min([LEAST, *factors])))
        self._most = math.ceil(math.log2(max([MOST, *factors])))

    def place(self, factor: float) -> float:
        """Return the x of a factor."""
        part = (math.log2(factor) - self._least) / (self._most - self._least)
        return LEFT + WIDTH * part

    @property
    def ticks(self) -> list[float]:
        """All powers of two on it."""
        return [2.0**power for power in range(self._least, self._most + 1)]


def find_dots(result: Result) -> list[Dot]:
    """Return the dots of one figure, ours last, so that they are on top."""
    dots: list[Dot] = []
    for row in result.rows:
        ratio, cpu = result.ratio(row), result.cpu_ratio(row)
        if row.peer == result.base or not ratio:
            continue
        better = 1 / ratio if result.less_is_better else ratio
        ours = row.peer == OURS
        dots.append(
            Dot("ours" if ours else "other", 6 if ours else 4, row.peer, better)
        )
        if ours and cpu:
            dots.append(Dot("cpu", 5, f"{row.peer}, CPU", 1 / cpu))
    return sorted(dots, key=lambda dot: dot.kind != "other")


def picture(results: list[Result]) -> str:
    """Draw how many times better than Node each peer is; right is always better."""
    shown = [(result, find_dots(result)) for result in results if result.is_compared]
    scale = Scale([dot.better for _, dots in shown for dot in dots])
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
    for factor in scale.ticks:
        x = scale.place(factor)
        label = f"{factor:g}" if factor >= 1 else f"1/{1 / factor:g}"
        one = ' class="one"' if factor == 1 else ""
        parts.append(
            f'<line{one} x1="{x:.1f}" y1="32" x2="{x:.1f}" y2="{height - 24}"/>'
            f'<text class="faint" x="{x:.1f}" y="{height - 8}" '
            f'text-anchor="middle">{label}</text>'
        )
    for index, (result, dots) in enumerate(shown):
        y = 48 + LINE * index
        title = result.title
        if result.base != NODE:
            title += f" (than {result.base})"
        parts.append(f'<text x="10" y="{y + 4}">{escape(title)}</text>')
        for dot in dots:
            tip = escape(f"{dot.name}: {number(dot.better)}")
            parts.append(
                f'<circle class="{dot.kind}" cx="{scale.place(dot.better):.1f}" '
                f'cy="{y}" r="{dot.radius}"><title>{tip}</title></circle>'
            )
    return "\n".join([*parts, "</svg>", ""])
