"""``python -m omrlang`` is ``omr``."""

from __future__ import annotations

import sys

from omrlang.cli import main

if __name__ == "__main__":
    sys.exit(main())
