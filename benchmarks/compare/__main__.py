"""Run the comparison: ``python -m benchmarks.compare``; see ``--help``."""

from __future__ import annotations

import sys

from .compare import main

if __name__ == "__main__":
    sys.exit(main())
