# The Date of responses (RFC 9110 §6.6.1), formatted once a second.
from __future__ import annotations

from time import time
from typing import TYPE_CHECKING, final

if TYPE_CHECKING:
    from .._http.headers import Field


@final
class DateClock:
    """The current Date field, shared by the connections of a server."""

    __slots__ = ("_field", "_second")

    def __init__(self) -> None:
        self._second = -1
        self._field: Field = (b"Date", b"")

    def field(self) -> Field:
        """Return the field."""
        second = int(time())
        if second != self._second:
            # Not imported at the top: that takes half as long as importing this whole
            # package, and a client does not need it.
            from email.utils import formatdate

            self._second = second
            self._field = (b"Date", formatdate(second, usegmt=True).encode("ascii"))
        return self._field
