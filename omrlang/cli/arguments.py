"""Arguments that several commands take, each declared once."""

from __future__ import annotations

from argparse import ArgumentParser, ArgumentTypeError
from pathlib import Path

DEFAULT_STATE = ".omr"


def add_state(parser: ArgumentParser) -> None:
    """``--state DIR``: the folder of runs."""
    parser.add_argument(
        "--state",
        type=Path,
        default=Path(DEFAULT_STATE),
        metavar="DIR",
        help=f"folder of runs (default {DEFAULT_STATE})",
    )


def add_set(parser: ArgumentParser, text: str = "set a value: data=…, sample_name.n=2") -> None:
    """``--set PATH=VALUE``, as often as needed."""
    parser.add_argument("--set", action="append", default=[], metavar="PATH=VALUE", help=text)


def add_selection(parser: ArgumentParser) -> None:
    """``--select`` and ``--force``, as often as needed."""
    parser.add_argument(
        "--select",
        "-s",
        action="append",
        default=[],
        metavar="SELECTOR",
        help="only these stages: NAME, +NAME (and what it stands on), NAME+ (and what stands on it), "
        "state:modified, source:NAME, kind:KIND, reason:REASON; A & B are those that both mean",
    )
    parser.add_argument(
        "--force",
        action="append",
        default=[],
        metavar="STAGE",
        help="make a stage again although it is there, and what stands on it",
    )


def add_locked(parser: ArgumentParser) -> None:
    """``--locked``."""
    parser.add_argument(
        "--locked",
        action="store_true",
        help="exit 4 where an input is not what the lock says, or not in it",
    )


def add_deny(parser: ArgumentParser) -> None:
    """``--deny CODE``, as often as needed."""
    parser.add_argument(
        "--deny",
        action="append",
        default=[],
        type=_warning,
        metavar="CODE",
        help="make a warning an error",
    )


def _warning(text: str) -> str:
    from omrlang.diagnostics import CODES, did_you_mean

    if text in CODES and text.startswith("W"):
        return text
    hint = did_you_mean(text, [code for code in CODES if code.startswith("W")])
    more = f"; {hint}" if hint is not None else ""
    raise ArgumentTypeError(f"`{text}` is no warning{more}")


def add_width(parser: ArgumentParser) -> None:
    """``--width N``: columns of a text view."""
    parser.add_argument(
        "--width",
        type=int,
        default=0,
        metavar="N",
        help="columns of the text view (default: the terminal's)",
    )
