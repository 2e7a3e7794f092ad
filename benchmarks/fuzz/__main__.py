"""Run the fuzz: ``python -m benchmarks.fuzz``."""

from __future__ import annotations

import sys

from .fuzz import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
