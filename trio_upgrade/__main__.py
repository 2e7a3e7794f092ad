"""The program ``python -m trio_upgrade``, also installed as ``trio-upgrade``."""

from __future__ import annotations

import sys

from ._command.main import main

__all__ = ["main"]

if __name__ == "__main__":  # pragma: no cover  (tests import it, or run it outside)
    sys.exit(main())
