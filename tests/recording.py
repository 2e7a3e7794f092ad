# An observer for tests.
from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from trio_upgrade import (
        EndReason,
        EndRecord,
        ErrorRecord,
        RequestRecord,
        SwitchRecord,
    )


class Recorder:
    """An observer that keeps every record."""

    def __init__(self) -> None:
        self.requests: list[RequestRecord] = []
        self.switches: list[SwitchRecord] = []
        self.ends: list[EndRecord] = []
        self.errors: list[ErrorRecord] = []

    @property
    def reasons(self) -> list[EndReason]:
        """Why each connection ended, in the order of the ends."""
        return [end.reason for end in self.ends]

    def request(self, record: RequestRecord) -> None:
        self.requests.append(record)

    def switched(self, record: SwitchRecord) -> None:
        self.switches.append(record)

    def ended(self, record: EndRecord) -> None:
        self.ends.append(record)

    def error(self, record: ErrorRecord) -> None:
        self.errors.append(record)
