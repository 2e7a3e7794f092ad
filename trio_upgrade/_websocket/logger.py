# The logger that the protocols of websockets write to.
from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, TypeAlias, final

if TYPE_CHECKING:
    from collections.abc import MutableMapping

LOGGER = logging.getLogger("trio_upgrade.websocket")

if TYPE_CHECKING:
    _Adapter: TypeAlias = logging.LoggerAdapter[logging.Logger]
else:
    _Adapter = logging.LoggerAdapter


@final
class QuietLogger(_Adapter):
    """A logger that turns INFO into DEBUG.

    The websockets library writes a line at INFO for each connection that it opens or
    closes. This library does that by its observers, and logs at INFO only what an
    operator may have to act on.
    """

    def isEnabledFor(self, level: int) -> bool:
        """Tell whether lines of this level are written."""
        return super().isEnabledFor(_lower(level))

    def log(self, level: int, msg: object, *args: object, **kwargs: Any) -> None:  # noqa: ANN401  as logging has it
        """Write a line."""
        super().log(_lower(level), msg, *args, **kwargs)

    def process(
        self,
        msg: object,
        kwargs: MutableMapping[str, Any],
    ) -> tuple[object, MutableMapping[str, Any]]:
        """Leave the fields of the record as they are.

        The adapter of each connection above this one adds the connection to them.
        """
        return msg, kwargs


def _lower(level: int) -> int:
    return logging.DEBUG if level == logging.INFO else level
