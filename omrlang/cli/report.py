"""``omr report [FILE|RUN]``: what ran, why it came out so and what it cost, as one HTML page that stands alone or as Markdown."""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from omrlang.cli.arguments import add_state

if TYPE_CHECKING:
    from omr_runtime.report.page import Against
    from omr_runtime.report.ran import Ran


def add(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command and its arguments."""
    parser = subparsers.add_parser("report", help="write what ran as one HTML page")
    parser.add_argument(
        "target", nargs="?", metavar="FILE|RUN", help="a recipe or a run's id (default: the last)"
    )
    parser.add_argument(
        "--against", metavar="FILE|RUN", help="another one on the same state folder to compare with"
    )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="FILE",
        help="where to write it (default RECIPE.html or RECIPE.md)",
    )
    parser.add_argument(
        "--format",
        choices=["html", "markdown"],
        default="html",
        help="markdown has the tables alone, for a model card or a pull request",
    )
    parser.add_argument(
        "--with",
        dest="results",
        action="append",
        default=[],
        type=Path,
        metavar="FILE",
        help="a result file of lm-eval or lmms-eval, for the tournament",
    )
    add_state(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Gather, draw, write; nothing is changed on the state folder."""
    from omr_runtime.errors import RunError

    try:
        from omr_runtime.report.facts import gather
        from omr_runtime.report.markdown import markdown
        from omr_runtime.report.official import official_line
        from omr_runtime.report.page import page
        from omr_runtime.report.ran import find

        ran = find(args.state, args.target)
        against = _against(ran, find(args.state, args.against)) if args.against else None
        facts = gather(ran, [official_line(path) for path in args.results])
        text = page(facts, against) if args.format == "html" else markdown(facts, against)
    except RunError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    suffix = ".html" if args.format == "html" else ".md"
    return _write(args.out or _default_name(ran.plan.recipe, suffix), text)


def _default_name(recipe: str, suffix: str) -> Path:
    return Path(re.sub(r"[^\w.-]", "_", Path(recipe).name.replace(".omr", "")) + suffix)


def _write(path: Path, text: str) -> int:
    from omrlang.cli.files import replace_text

    if not replace_text(path, text):
        return 1
    print(f"{path}: {len(text.encode()) / 1000:,.0f} kB")
    return 0


def _against(ran: Ran, other: Ran) -> Against:
    from omr_runtime.report.comparison import across
    from omr_runtime.report.page import Against
    from omrlang.cli.diff_view.text import diff_text
    from omrlang.diff import Side, diff

    found = diff(Side(other.plan.recipe, other.plan), Side(ran.plan.recipe, ran.plan))
    return Against(other.plan.recipe, diff_text(found, 100), across(other, ran))
