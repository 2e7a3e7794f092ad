# The Date of responses (RFC 9110 §6.6.1), formatted once a second.
from __future__ import annotations

from time import time
from typing import TYPE_CHECKING, final

if TYPE_CHECKING:
    from .._http.headers import Field


@final
class DateClock:
    """The current Date field, shared by the connections of a server."""

    __slots__ = ("_field", "_format", "_second")

    def __init__(self) -> None:
        # Not at the top: to import it takes half as long as to import this whole package,
        # and a client does not need it.  Not in field(): a process at its limit of
        # descriptors, or in a chroot, can import nothing.
        from email.utils import formatdate

        self._format = formatdate
        self._second = -1
        self._field: Field = (b"Date", b"")

    def field(self) -> Field:
        """Return the field."""
        second = int(time())
        if second != self._second:
            self._second = second
            self._field = (b"Date", self._format(second, usegmt=True).encode("ascii"))
        return self._field
