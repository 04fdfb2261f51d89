"""What a file on the command line is, and how its new text takes the place of the old one: whole or not at all."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from omrlang.plan import SAVED_SUFFIX


def is_saved(path: Path) -> bool:
    """Whether a command was given a saved plan instead of a recipe."""
    return path.suffix == SAVED_SUFFIX


def replace_text(path: Path, text: str) -> bool:
    """Whether it could be written; says why not."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        beside.write_text(text, encoding="utf-8")
        os.replace(beside, path)
    except OSError as error:
        print(f"omr: {path} cannot be written: {error.strerror}", file=sys.stderr)
        return False
    return True
