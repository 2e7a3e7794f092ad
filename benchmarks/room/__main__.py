"""Run the measurement: ``python -m benchmarks.room``; see ``--help``."""

from __future__ import annotations

import sys

from .room import main

if __name__ == "__main__":
    sys.exit(main())
