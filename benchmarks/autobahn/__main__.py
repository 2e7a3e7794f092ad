"""Run the suite: ``python -m benchmarks.autobahn``; see ``--help``."""

from __future__ import annotations

import sys

from .suite import main

if __name__ == "__main__":
    sys.exit(main())
