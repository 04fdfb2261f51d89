"""Where recipes and the standard library lie, and how the text of a file is read."""

from __future__ import annotations

from pathlib import Path

from omrlang.diagnostics import Reporter
from omrlang.parse import MAX_CHARACTERS
from omrlang.source import SourceFile, Span
from omrlang.unsaved import unsaved_text


def read_source(path: Path, shown: Path, at: Span | None, reporter: Reporter) -> SourceFile | None:
    """A file's text, or None after a report at ``at`` (at the file itself if there is no such place)."""
    span = at or Span(SourceFile(shown, ""), 0, 0)
    try:
        text = unsaved_text(path, shown)
        if text is not None:
            return SourceFile(shown, text)
        if path.stat().st_size > 4 * MAX_CHARACTERS:
            reporter.error("E106", f"{shown} is over {MAX_CHARACTERS // 10**6} MB", span)
            return None
        text = path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        reporter.error("E106", f"{shown} does not exist", span)
    except UnicodeDecodeError as error:
        reporter.error("E106", f"{shown} is no UTF-8 text (byte {error.start})", span)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        reporter.error("E106", f"{shown} cannot be read: {reason}", span)
    else:
        return SourceFile(shown, text)
    return None


def library_folder() -> Path:
    """In a wheel the library lies inside the package, in a checkout beside it."""
    inside = Path(__file__).with_name("_stdlib")
    return inside if inside.is_dir() else Path(__file__).parents[1] / "stdlib"


def library_modules() -> list[str]:
    """The modules of the standard library: what may stand after ``use std.``."""
    return sorted(path.stem for path in library_folder().glob("*.omr"))
