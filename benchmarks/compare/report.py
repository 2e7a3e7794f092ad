"""The results, as Markdown tables."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from .rounds import WIDE

OURS, NODE, NOTHING = "trio_upgrade", "Node", "-"
# If the load generator uses at least this share of its core, it limits the rate.
LIMIT = 0.9
LIMITED, UNSTEADY = " †", " ‡"
COMPARED = (
    "| Node = 1.00 | trio_upgrade | its CPU per operation | others: figure (CPU) |"
)


@dataclass
class Row:
    """One peer's figures: the median of the rounds, and the least CPU per operation."""

    peer: str
    value: float
    cpu: float | None = None
    # The share of a core that the load generator used, and its least CPU per operation.
    load: float | None = None
    load_cpu: float | None = None
    spread: float | None = None

    @property
    def is_limited(self) -> bool:
        """Whether the load generator limited the rate: its core was used up."""
        return (self.load or 0) >= LIMIT

    @property
    def is_unsteady(self) -> bool:
        """Whether the rounds still differed much at the end."""
        return (self.spread or 0) > WIDE


class Fact(NamedTuple):
    """A figure of ours that has no peers, and the bound that it should keep."""

    name: str
    value: float
    unit: str = ""
    # The bound; none if there is nothing to keep.
    most: float | None = None
    least: float | None = None
    spread: float | None = None

    @property
    def wanted(self) -> str:
        """The bound, as text."""
        if self.most is not None:
            return f"≤ {self.show(self.most)}"
        return NOTHING if self.least is None else f"≥ {self.show(self.least)}"

    @property
    def kept(self) -> str:
        """Whether the bound is kept, as text."""
        if self.most is None and self.least is None:
            return NOTHING
        low = self.least is None or self.value >= self.least
        high = self.most is None or self.value <= self.most
        return "yes" if low and high else "no"

    def show(self, value: float) -> str:
        """Format a value with the unit."""
        return f"{number(value)} {self.unit}".rstrip()


@dataclass
class Result:
    """One figure of all peers that were found, or several of ours alone."""

    title: str
    rows: list[Row] = field(default_factory=list)
    facts: list[Fact] = field(default_factory=list)
    # Whose figure is 1.00.
    base: str = NODE
    # Why it could not be measured on this machine; "" if it was measured, or has failed.
    why_not: str = ""
    # The unit of the CPU column, and the factor from seconds per operation.
    cpu_unit: str = ""
    cpu_factor: float = 1e6
    less_is_better: bool = False
    note: str = ""

    def row(self, peer: str) -> Row | None:
        """Find a peer's row."""
        return next((row for row in self.rows if row.peer == peer), None)

    @property
    def has_failed(self) -> bool:
        """Whether there is nothing of ours although it could be measured."""
        return not (self.why_not or self.facts or self.row(OURS))

    @property
    def is_compared(self) -> bool:
        """Whether there are ratios of ours to another peer."""
        return self.base != OURS and None not in (self.row(OURS), self.row(self.base))

    def ratio(self, row: Row) -> float | None:
        """Divide by the value of the base."""
        base = self.row(self.base)
        return row.value / base.value if base and base.value else None

    def cpu_ratio(self, row: Row) -> float | None:
        """Divide by the base's CPU per operation."""
        base = self.row(self.base)
        if base is None or not base.cpu or row.cpu is None:
            return None
        return row.cpu / base.cpu


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
    """Make the first tables: our ratios to Node and the other peers', and our facts."""
    lines: list[str] = []
    for result in results:
        ours, base = result.row(OURS), result.row(result.base)
        if not result.is_compared or ours is None or base is None:
            continue
        others = [row for row in result.rows if row not in (ours, base)]
        told = ", ".join(
            f"{row.peer} {number(result.ratio(row))}"
            + (f" ({number(result.cpu_ratio(row))})" if row.cpu is not None else "")
            for row in others
        )
        title = result.title
        if result.base != NODE:
            title += f" ({result.base} = 1.00)"
        # With its core used up, the load generator determines the rates.
        mark = LIMITED * (ours.is_limited or base.is_limited)
        mark += UNSTEADY * (ours.is_unsteady or base.is_unsteady)
        lines.append(
            f"| {title} | **{number(result.ratio(ours))}**{mark} "
            f"| {number(result.cpu_ratio(ours))} | {told} |"
        )
    if lines:
        lines = [COMPARED, "| --- | --- | --- | --- |", *lines, ""]
    facts = [fact for result in results for fact in result.facts]
    if facts:
        lines += [*tabulate(facts), ""]
    return "\n".join(lines)


def tabulate(facts: list[Fact]) -> list[str]:
    """Make the lines of a table of facts."""
    lines = [
        "| figure of trio_upgrade | measured | wanted | kept | spread |",
        "| --- | --- | --- | --- | --- |",
    ]
    for fact in facts:
        mark = UNSTEADY * ((fact.spread or 0) > WIDE)
        cells = [
            fact.name,
            fact.show(fact.value),
            fact.wanted,
            fact.kept,
            share(fact.spread) + mark,
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def full(results: list[Result]) -> str:
    """Make the tables with all figures, one section for each."""
    lines: list[str] = []
    for result in results:
        lines += [f"### {result.title}", ""]
        if result.note:
            lines += [result.note, ""]
        if result.why_not:
            lines += [f"Not measured: {result.why_not}.", ""]
        if result.rows:
            lines += [*tabulate_rows(result), ""]
        if result.facts:
            lines += [*tabulate(result.facts), ""]
    return "\n".join(lines)


def tabulate_rows(result: Result) -> list[str]:
    """Make the lines of a table of all peers."""
    unit, base = result.cpu_unit or "CPU", result.base
    lines = [
        f"| peer | figure | ÷ {base} | {unit} | ÷ {base} | load's core | spread |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    order = sorted(
        result.rows, key=lambda row: row.value, reverse=not result.less_is_better
    )
    for row in order:
        name = f"**{row.peer}**" if row.peer == OURS else row.peer
        cpu = None if row.cpu is None else row.cpu * result.cpu_factor
        cells = [
            name,
            number(row.value),
            number(result.ratio(row)),
            number(cpu),
            number(result.cpu_ratio(row)),
            share(row.load) + LIMITED * row.is_limited,
            share(row.spread) + UNSTEADY * row.is_unsteady,
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return lines
