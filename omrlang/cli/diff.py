"""``omr diff A B …``: recipes, plans or runs compared as experiments, not as texts."""

from __future__ import annotations

import argparse
import difflib
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from omrlang.cli.arguments import add_set, add_state, add_width
from omrlang.diff.report import Diff, Study
from omrlang.plan import Exit

if TYPE_CHECKING:
    from omrlang.diff import Side
    from omrlang.targets import Unreadable

WHAT = """FILE.omr, FILE.omr[LABEL] (one variant of a sweep), FILE.omr#STAGE (one training of several), REVISION:FILE.omr (as git
has it), the file of a plan, or the id of a run (`omr show runs`)"""


def add(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command and its arguments."""
    parser = subparsers.add_parser("diff", help="compare recipes as experiments")
    parser.add_argument("targets", nargs="+", metavar="RECIPE", help=WHAT)
    add_state(parser)
    add_set(parser, "set a value in all")
    parser.add_argument(
        "--set-b",
        action="append",
        default=[],
        metavar="PATH=VALUE",
        help="set a value in all but the first",
    )
    view = parser.add_mutually_exclusive_group()
    view.add_argument(
        "--json", action="store_true", help="print the diff itself (`omr schema diff`, `study`)"
    )
    view.add_argument("--md", action="store_true", help="print Markdown, for a pull request")
    view.add_argument("--html", action="store_true", help="print one self-contained page")
    view.add_argument(
        "--text", action="store_true", help="print what differs in the files, line by line"
    )
    parser.add_argument(
        "--fix",
        type=Path,
        metavar="FILE.omr",
        help="write the amending file of B that holds what moves along",
    )
    add_width(parser)
    parser.add_argument(
        "--detailed-exitcode", action="store_true", help="exit 2 where they differ in meaning"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Plan all, compare, print; the exit code of ``plan_and_diff.md``."""
    from omrlang.targets import Unreadable

    try:
        return _run(args)
    except Unreadable as error:
        return refuse(error)


def refuse(error: Unreadable) -> int:
    if error.diagnostics:
        from omrlang.render import render

        print(render(error.diagnostics), end="", file=sys.stderr)
    print(f"error: {error}", file=sys.stderr)
    return 1


def _run(args: argparse.Namespace) -> int:
    from omrlang.diff import diff, study

    if args.text:
        return _sources(args)
    sides = _sides(args)
    if len(sides) < 2:
        print("omr: a diff needs two recipes, or one with a sweep", file=sys.stderr)
        return 64
    if args.fix is not None:
        return _fix(args, sides)
    found: Diff | Study = diff(*sides) if len(sides) == 2 else study(sides)
    found = with_exit(_with_outcomes(found, sides, args.state), detailed=args.detailed_exitcode)
    print(view(found, args), end="")
    return found.exit.code


def _with_outcomes(found: Diff | Study, sides: Sequence[Side], state: Path) -> Diff | Study:
    """With the rows and results of what was run."""
    from omrlang.cli.outcomes import with_outcomes

    first, *others = [[side.plan] for side in sides]
    if isinstance(found, Diff):
        return with_outcomes(found, first, others[0], state)
    diffs = (with_outcomes(d, first, b, state) for d, b in zip(found.diffs, others, strict=True))
    return found.model_copy(update={"diffs": tuple(diffs)})


def _sides(args: argparse.Namespace) -> list[Side]:
    from omrlang.targets import sides

    first, *others = args.targets
    found = sides(first, args.state, args.set)
    for target in others:
        found += sides(target, args.state, [*args.set, *args.set_b])
    return found


def price_study(targets: Sequence[str], args: argparse.Namespace) -> int:
    """Of ``omr plan A B C``: what each takes and what all take together, in the cheapest order."""
    from omrlang.diff import study
    from omrlang.targets import Unreadable, sides

    try:
        found = [side for target in targets for side in sides(target, args.state, args.set)]
    except Unreadable as error:
        return refuse(error)
    print(view(study(found), args), end="")
    return 0


def with_exit(found: Diff | Study, *, detailed: bool) -> Diff | Study:
    """Code 2 says that they differ in meaning; only when asked for."""
    diffs = (found,) if isinstance(found, Diff) else found.diffs
    same = ("no change", "no change in meaning")
    if not detailed or all(diff.verdict.kind in same for diff in diffs):
        return found
    return found.model_copy(update={"exit": Exit(code=2, reason="changes")})


def view(found: Diff | Study, args: argparse.Namespace) -> str:
    """In the form that was asked for; each is imported only then."""
    if args.json:
        return found.model_dump_json(indent=1) + "\n"
    if args.md:
        from omrlang.cli.diff_view.markdown import diff_markdown, study_markdown

        return diff_markdown(found) if isinstance(found, Diff) else study_markdown(found)
    if args.html:
        from omrlang.cli.diff_view.html import diff_page, study_page

        return diff_page(found) if isinstance(found, Diff) else study_page(found)
    from omrlang.cli.diff_view.text import diff_text, study_text

    width = args.width or shutil.get_terminal_size((100, 24)).columns
    return diff_text(found, width) if isinstance(found, Diff) else study_text(found, width)


def _fix(args: argparse.Namespace, sides: list[Side]) -> int:
    """Write the file and print how it compares."""
    from omrlang.holding import hold

    if len(sides) != 2:
        print("omr: --fix needs two recipes", file=sys.stderr)
        return 64
    if args.fix.exists():
        print(f"error: {args.fix} exists already", file=sys.stderr)
        return 1
    made = hold(sides[0], args.targets[-1], args.fix, args.state, [*args.set, *args.set_b])
    args.fix.write_text(made.text)
    print(view(made.diff, args), end="")
    print(f"Written: {args.fix}", file=sys.stderr)
    return 0


def _sources(args: argparse.Namespace) -> int:
    """The plain source diff of the two files themselves."""
    from omrlang.targets import source_text

    if len(args.targets) != 2:
        print("omr: --text compares two files", file=sys.stderr)
        return 64
    texts = [source_text(target).splitlines(keepends=True) for target in args.targets]
    lines = list(difflib.unified_diff(texts[0], texts[1], *args.targets))
    print("".join(lines), end="")
    return 2 if lines and args.detailed_exitcode else 0
