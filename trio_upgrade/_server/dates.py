# The Date of responses (RFC 9110 §6.6.1), formatted once a second.
from __future__ import annotations

from time import gmtime, time
from typing import TYPE_CHECKING, final

if TYPE_CHECKING:
    from .._http.headers import Field

# In English, whatever the locale is.
_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = (
    *("Jan", "Feb", "Mar", "Apr", "May", "Jun"),
    *("Jul", "Aug", "Sep", "Oct", "Nov", "Dec"),
)


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
            self._second = second
            self._field = (b"Date", _format_date(second).encode("ascii"))
        return self._field


def _format_date(second: int) -> str:
    # An IMF-fixdate (RFC 9110 §5.6.7).  email.utils would write the same, but to import
    # it takes half as long as to import this whole package.
    year, month, day, hour, minute, rest, weekday, *_ = gmtime(second)
    date = f"{_DAYS[weekday]}, {day:02} {_MONTHS[month - 1]} {year:04}"
    return f"{date} {hour:02}:{minute:02}:{rest:02} GMT"
